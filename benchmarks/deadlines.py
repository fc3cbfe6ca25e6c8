"""How late is a deadline? A guest that never returns gets 100 ms, and fuel that outlasts them.

Two figures a sample: when the caller has the error, and when the worker's process has ended. The baseline is how late
the kernel itself wakes a thread of this process that asked for the same 100 ms.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Iterator, Mapping, Sequence

from pdsandbox import I32, Supervisor, WallClockExceeded

from .guests import ADD, FUEL_FOREVER
from .measure import Bar, Contender, Group, Row, Series

_WALL_S = 0.1
# SIGKILL to the end of a small process takes about a millisecond.
_END_MS = 10_000

SERIES = (
    Series("deadline.raised", "endless loop, wall_s=0.1: WallClockExceeded raised, after the deadline"),
    Series("deadline.ended", "the same: the worker's process ended, after the deadline"),
    Series("deadline.poll", "select.poll of 100 ms: returned, after that time", short="poll(100 ms)"),
)
ROWS = (
    Row(
        "deadline.p99",
        "100 ms deadline overshot, p99",
        "deadline.raised",
        "deadline.poll",
        statistic="p99",
        bar=Bar(0.010, "issue 2", of="value"),
    ),
    Row("deadline.p50", "100 ms deadline overshot, median", "deadline.raised", "deadline.poll"),
    Row("deadline.max", "100 ms deadline overshot, maximum", "deadline.raised", "deadline.poll", statistic="max"),
    Row(
        "deadline.ended.p99",
        "… until the worker is gone, p99",
        "deadline.ended",
        "deadline.poll",
        statistic="p99",
    ),
)


def _poll() -> Mapping[str, float]:
    poll = select.poll()
    started = time.perf_counter()
    poll.poll(_WALL_S * 1000)
    return {"deadline.poll": time.perf_counter() - started - _WALL_S}


@contextlib.contextmanager
def _open() -> Iterator[Sequence[Contender]]:
    with Supervisor() as host:
        module = host.compile(ADD)

        def overrun() -> Mapping[str, float]:
            with host.instantiate(module) as instance:
                instance.call("add", [I32(1), I32(2)])
                pidfd = os.pidfd_open(instance.pid)
                try:
                    ended = select.poll()
                    ended.register(pidfd, select.POLLIN)
                    started = time.perf_counter()
                    try:
                        instance.call("forever", fuel=FUEL_FOREVER, wall_s=_WALL_S)
                    except WallClockExceeded:
                        raised = time.perf_counter() - started
                    else:
                        raise RuntimeError("an endless loop returned")
                    if not ended.poll(_END_MS):
                        raise RuntimeError(f"worker {instance.pid} outlived its deadline by {_END_MS / 1000:g} s")
                    gone = time.perf_counter() - started
                finally:
                    os.close(pidfd)
            return {"deadline.raised": raised - _WALL_S, "deadline.ended": gone - _WALL_S}

        yield (_poll, overrun)


# 50 samples is the least that deserves the name of a distribution, also in a hurry.
GROUP = Group("deadlines", "deadline overshoot", SERIES, ROWS, _open, rounds=200, quick_rounds=50, warmup=1)
