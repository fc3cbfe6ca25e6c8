"""How late is a deadline? A guest that never returns gets 100 ms, and fuel that outlasts them.

Two figures a sample: when the caller has the error, and when the worker's process has ended. The baseline is how late
the kernel itself wakes a thread of this process that asked for the same 100 ms. And the same again beside a process
that never sleeps, as on a machine that has other things to do.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

from pdsandbox import I32, Supervisor, WallClockExceeded, WasmModule

from .guests import ADD, FUEL_FOREVER
from .measure import Bar, Contender, Group, Row, Series

_WALL_S = 0.1
# SIGKILL to the end of a small process takes about a millisecond.
_END_MS = 10_000

SERIES = (
    Series("deadline.raised", "endless loop, wall_s=0.1: WallClockExceeded raised, after the deadline"),
    Series("deadline.ended", "the same: the worker's process ended, after the deadline"),
    Series("deadline.loaded", "WallClockExceeded raised, while another process keeps a core busy"),
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
    Row("deadline.loaded.p50", "… beside a busy process, median", "deadline.loaded", "deadline.poll"),
    Row("deadline.loaded.p99", "… beside a busy process, p99", "deadline.loaded", "deadline.poll", statistic="p99"),
    Row("deadline.loaded.max", "… beside a busy process, maximum", "deadline.loaded", "deadline.poll", statistic="max"),
)


def _poll() -> Mapping[str, float]:
    poll = select.poll()
    started = time.perf_counter()
    poll.poll(_WALL_S * 1000)
    return {"deadline.poll": time.perf_counter() - started - _WALL_S}


class _Busy:
    """A process that computes, but only while it is asked to; it ends with us, however we end."""

    _PROGRAM = "import os; us = os.getppid()\nwhile os.getppid() == us:\n for _ in range(1_000_000): pass"

    def __init__(self) -> None:
        self._child = subprocess.Popen([sys.executable, "-I", "-S", "-c", self._PROGRAM], start_new_session=True)
        self._child.send_signal(signal.SIGSTOP)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """It runs within."""
        self._child.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._child.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        """End it and reap it."""
        self._child.kill()
        self._child.wait()


def _overrun(host: Supervisor, module: WasmModule) -> tuple[float, float]:
    """How long after the deadline of a call that never returns (the caller knows, the worker's process is gone)."""
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
    return raised - _WALL_S, gone - _WALL_S


@contextlib.contextmanager
def _open() -> Iterator[Sequence[Contender]]:
    with Supervisor() as host, contextlib.closing(_Busy()) as busy:
        module = host.compile(ADD)

        def overrun() -> Mapping[str, float]:
            raised, ended = _overrun(host, module)
            return {"deadline.raised": raised, "deadline.ended": ended}

        def loaded() -> Mapping[str, float]:
            with busy.running():
                raised, _ = _overrun(host, module)
            return {"deadline.loaded": raised}

        yield (_poll, overrun, loaded)


# p99 of 100 samples is their second largest. A hurry has time for 20 only: their p99 is their maximum.
GROUP = Group(
    "deadlines",
    "deadline overshoot",
    SERIES,
    ROWS,
    _open,
    rounds=100,
    quick_rounds=20,
    warmup=1,
    chart="distribution",
    weight=2.0,
    caption="How much later than its deadline an endless loop ends.",
)
