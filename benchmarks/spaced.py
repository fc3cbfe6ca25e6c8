"""The call that comes alone: calls 5 ms apart, so that nobody spins and each pays its wake-ups.

The rivals have rested as long: in-process code finds cold caches, too.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from pdsandbox import I32, Supervisor

from .guests import ADD, plain_add
from .measure import Bar, Contender, Group, Row, Series
from .pipes import Echo
from .pools import NaivePipe

# Far longer than either end spins (50 us), short enough for many samples.
_APART_S = 0.005

SERIES = (
    Series("spaced.call", 'Supervisor: instance.call("add", [I32(1), I32(2)]), after 5 ms of silence'),
    Series("spaced.func", 'Supervisor: add = instance.func("add"); add(1, 2), after 5 ms of silence'),
    Series("spaced.pipe", "bare blocking pipe round trip, after 5 ms of silence", short="bare pipe, blocking"),
    Series(
        "spaced.naive",
        "multiprocessing.Pipe to a process that calls wasmtime-py, after 5 ms of silence",
        short="multiprocessing.Pipe worker",
    ),
    Series(
        "spaced.wasmtime",
        "wasmtime-py in-process: add(store, 1, 2), after 5 ms of silence",
        short="wasmtime-py in-process",
    ),
)
ROWS = (
    Row("spaced_call.pipe", "isolated call, 5 ms apart", "spaced.call", "spaced.pipe", bar=Bar(3.0, "issue 4")),
    Row("spaced_func.pipe", "isolated func, 5 ms apart", "spaced.func", "spaced.pipe"),
    Row("spaced_call.naive", "isolated call, 5 ms apart", "spaced.call", "spaced.naive"),
    Row("spaced_call.wasmtime", "isolated call, 5 ms apart", "spaced.call", "spaced.wasmtime"),
)


def _alone(key: str, call: Callable[[], object]) -> Contender:
    def sample() -> Mapping[str, float]:
        time.sleep(_APART_S)
        started = time.perf_counter()
        call()
        return {key: time.perf_counter() - started}

    return sample


@contextlib.contextmanager
def _open() -> Iterator[Sequence[Contender]]:
    with (
        Supervisor() as host,
        host.instantiate(host.compile(ADD)) as instance,
        Echo("block") as echo,
        NaivePipe("spawn") as naive,
    ):
        plain, func = plain_add(), instance.func("add")
        store, plain_call = plain.store, plain.add
        assert instance.call("add", [I32(1), I32(2)]) == [I32(3)]
        assert func(1, 2) == naive.call(1, 2) == plain_call(store, 1, 2) == 3
        yield (
            _alone("spaced.pipe", echo.round_trip),
            _alone("spaced.call", lambda: instance.call("add", [I32(1), I32(2)])),
            _alone("spaced.naive", lambda: naive.call(1, 2)),
            _alone("spaced.func", lambda: func(1, 2)),
            _alone("spaced.wasmtime", lambda: plain_call(store, 1, 2)),
        )


GROUP = Group(
    "spaced",
    "calls 5 ms apart",
    SERIES,
    ROWS,
    _open,
    rounds=300,
    quick_rounds=60,
    caption="A call that comes alone: nobody spins, and each side pays its wake-ups.",
)
