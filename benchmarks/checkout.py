"""What a pool adds to a call: an instance is taken from it and given back around each.

One caller, one instance: the pool's own, which the baseline calls directly, so that both speak to the same worker. The
difference is taken round by round, from blocks that follow each other.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from pdsandbox import I32, Pool, Supervisor, WasmInstance, WasmtimeHost

from .guests import ADD
from .measure import Bar, Contender, Group, Row, Series

# As for warm calls: long against the clock's grain, short against a scheduler's time slice.
_CALLS = 100
_LEAD_IN = 20

SERIES = (
    Series("checkout.pool", 'Supervisor: pool.call("add", [1, 2])'),
    Series("checkout.direct", 'Supervisor: instance.call("add", [1, 2])', short="direct call", side="ours"),
    Series("checkout.added", "Supervisor: what pool.call takes longer than instance.call, in the same round"),
    Series("checkout.with", 'Supervisor: with pool.instance() as instance: instance.call("add", [1, 2])'),
    Series("checkout.local_pool", 'WasmtimeHost: pool.call("add", [1, 2])'),
    Series(
        "checkout.local_direct",
        'WasmtimeHost: instance.call("add", [1, 2])',
        short="direct call, WasmtimeHost",
        side="ours",
    ),
)
ROWS = (
    Row(
        "checkout.added",
        "added by a pool to a warm call",
        "checkout.added",
        "checkout.direct",
        bar=Bar(5e-6, "issue 6", of="value"),
    ),
    Row("checkout.pool", "warm call through a pool", "checkout.pool", "checkout.direct"),
    Row("checkout.with", "borrowed for one call", "checkout.with", "checkout.direct"),
    Row("checkout.local", "WasmtimeHost call through a pool", "checkout.local_pool", "checkout.local_direct"),
)


def _timed(call: Callable[[], object]) -> float:
    for _ in range(_LEAD_IN):
        call()
    started = time.perf_counter()
    for _ in range(_CALLS):
        call()
    return (time.perf_counter() - started) / _CALLS


def _its_only(pool: Pool) -> WasmInstance:
    """The one instance of a pool with room for one, and nobody else to use it."""
    with pool.instance() as instance:
        found = instance
    if not found.call("add", [1, 2]) == pool.call("add", [1, 2]) == [I32(3)]:
        raise RuntimeError("what answers wrongly is not worth timing")
    return found


@contextlib.contextmanager
def _open() -> Iterator[Sequence[Contender]]:
    with contextlib.ExitStack() as stack:
        supervisor, local_host = stack.enter_context(Supervisor()), stack.enter_context(WasmtimeHost())
        pool = stack.enter_context(supervisor.pool(supervisor.compile(ADD), max=1))
        local_pool = stack.enter_context(local_host.pool(local_host.compile(ADD), max=1))
        instance, local = _its_only(pool), _its_only(local_pool)

        def isolated() -> Mapping[str, float]:
            direct = _timed(lambda: instance.call("add", [1, 2]))
            pooled = _timed(lambda: pool.call("add", [1, 2]))
            return {"checkout.direct": direct, "checkout.pool": pooled, "checkout.added": pooled - direct}

        def borrow() -> None:
            with pool.instance() as mine:
                mine.call("add", [1, 2])

        def in_process() -> Mapping[str, float]:
            return {
                "checkout.local_direct": _timed(lambda: local.call("add", [1, 2])),
                "checkout.local_pool": _timed(lambda: local_pool.call("add", [1, 2])),
            }

        yield isolated, (lambda: {"checkout.with": _timed(borrow)}), in_process


GROUP = Group(
    "checkout",
    "pools",
    SERIES,
    ROWS,
    _open,
    rounds=200,
    quick_rounds=50,
    warmup=5,
    caption="A pool of one instance, called by one thread: an instance is taken and given back around each call.",
)
