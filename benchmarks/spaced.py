"""The call that comes alone: calls 5 ms apart, so that nobody spins and each pays its wake-ups."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from pdsandbox import I32, Supervisor

from .guests import ADD
from .measure import Contender, Group, Row, Series
from .pipes import Echo

# Far longer than either end spins (50 us), short enough for many samples.
_APART_S = 0.005

SERIES = (
    Series("spaced.call", 'Supervisor: instance.call("add", [I32(1), I32(2)]), after 5 ms of silence'),
    Series("spaced.pipe", "bare blocking pipe round trip, after 5 ms of silence", short="bare pipe, blocking"),
)
ROWS = (Row("spaced_call.pipe", "isolated call, 5 ms apart", "spaced.call", "spaced.pipe"),)


def _alone(key: str, call: Callable[[], object]) -> Contender:
    def sample() -> Mapping[str, float]:
        time.sleep(_APART_S)
        started = time.perf_counter()
        call()
        return {key: time.perf_counter() - started}

    return sample


@contextlib.contextmanager
def _open() -> Iterator[Sequence[Contender]]:
    with Supervisor() as host, host.instantiate(host.compile(ADD)) as instance, Echo("block") as echo:
        yield (
            _alone("spaced.pipe", echo.round_trip),
            _alone("spaced.call", lambda: instance.call("add", [I32(1), I32(2)])),
        )


GROUP = Group("spaced", "calls 5 ms apart", SERIES, ROWS, _open, rounds=300, quick_rounds=60)
