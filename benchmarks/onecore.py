"""The warm call where spinning is out of the question: everything on one core, as in a small container.

The harness binds its own thread to one of its cores while the group runs; what it starts meanwhile inherits that.
Caller and worker then take turns on the core, and each message costs a switch between them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

from pdsandbox import I32, Supervisor

from .guests import ADD, plain_add
from .measure import Contender, Group, Row, Series, Unmeasurable, block
from .pipes import Echo

# 50 calls take about a millisecond: shorter than a scheduler's time slice.
_CALLS = 50
_LEAD_IN = 20

SERIES = (
    Series("onecore.call", 'Supervisor, all on one core: instance.call("add", [I32(1), I32(2)])'),
    Series("onecore.func", 'Supervisor, all on one core: add = instance.func("add"); add(1, 2)'),
    Series("onecore.pipe", "bare blocking pipe round trip, both ends on one core", short="bare pipe, blocking"),
    Series("onecore.wasmtime", "wasmtime-py in-process: add(store, 1, 2)", short="wasmtime-py in-process"),
)
ROWS = (
    Row("onecore_call.pipe", "isolated call, one core", "onecore.call", "onecore.pipe"),
    Row("onecore_func.pipe", "isolated func, one core", "onecore.func", "onecore.pipe"),
    Row("onecore_call.wasmtime", "isolated call, one core", "onecore.call", "onecore.wasmtime"),
)


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
    """This thread, and what it starts, on one core. Raises Unmeasurable where cores cannot be chosen."""
    if not hasattr(os, "sched_setaffinity"):
        raise Unmeasurable("this system does not bind a process to a core")
    cores = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {max(cores)})
    except OSError as exc:
        raise Unmeasurable(f"sched_setaffinity: {exc.strerror}") from exc
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


@contextlib.contextmanager
def _open() -> Iterator[Sequence[Contender]]:
    with (
        _one_core(),
        Supervisor() as host,
        host.instantiate(host.compile(ADD)) as instance,
        Echo("block") as echo,
    ):
        plain, func = plain_add(), instance.func("add")
        store, plain_call = plain.store, plain.add
        assert instance.call("add", [I32(1), I32(2)]) == [I32(3)]
        assert func(1, 2) == plain_call(store, 1, 2) == 3
        yield (
            echo.block("onecore.pipe", calls=_CALLS, lead_in=_LEAD_IN),
            block("onecore.call", lambda: instance.call("add", [I32(1), I32(2)]), calls=_CALLS, lead_in=_LEAD_IN),
            block("onecore.wasmtime", lambda: plain_call(store, 1, 2), calls=_CALLS, lead_in=_LEAD_IN),
            block("onecore.func", lambda: func(1, 2), calls=_CALLS, lead_in=_LEAD_IN),
        )


GROUP = Group(
    "onecore",
    "warm calls on one core",
    SERIES,
    ROWS,
    _open,
    rounds=300,
    quick_rounds=60,
    caption="Both ends on one core, where nobody can spin.",
)
