"""What waiting costs: the CPU time of a supervisor's process, its fork server and 50 workers that nobody calls.

Each worker has had a call before, so whatever lingers after one is in it. CPU time is the kernel's own account of each
process, to the nanosecond (`utime` and `stime` in /proc count whole ticks of 10 ms, which is too coarse here).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

import psutil

from .child import Child
from .measure import Bar, Contender, Group, Row, Series, Unmeasurable
from .quiet import Family

_COUNT = 50
# The supervisor keeps one worker in reserve.
_SPARES = 1
# Five of them are the ten seconds that the bar is about.
_WINDOW_S = 2.0
_BUSY_S = 0.1

SERIES = (
    Series(
        "idle.cpu",
        f"CPU time of supervisor, fork server and {_COUNT} idle workers, as a share of {_WINDOW_S:g} s",
        unit="share",
    ),
    Series("idle.core", "CPU time of a loop that does nothing, as a share of its time", unit="share", short="one core"),
)
ROWS = (
    Row(
        "idle.cpu",
        f"{_COUNT} idle workers and all that belongs to them, CPU, mean",
        "idle.cpu",
        "idle.core",
        statistic="mean",
        bar=Bar(0.01, "issue 4", of="value"),
    ),
)


def cpu_time(pid: int) -> float:
    """Seconds of CPU that all threads of a process have had. Raises Unmeasurable where that cannot be asked."""
    # See clock_getcpuclockid(3): on Linux the clock's id is the pid's complement, shifted, and 2 for the scheduler's.
    clock = (~pid << 3) | 2
    try:
        return time.clock_gettime(clock)
    except OSError as exc:
        raise Unmeasurable(f"the CPU-time clock of process {pid}: {exc.strerror}") from exc


def _busy() -> Mapping[str, float]:
    started, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - started < _BUSY_S:
        pass
    return {"idle.core": (time.process_time() - cpu) / (time.perf_counter() - started)}


def _spent(pids: Iterable[int]) -> float:
    return sum(map(cpu_time, pids))


@contextlib.contextmanager
def _open() -> Iterator[Sequence[Contender]]:
    with Child("idler", str(_COUNT)) as idler:
        family = Family(int(idler.read()))
        workers = family.wait_quiet(_COUNT + _SPARES)
        pids = (idler.pid, family.server_pid, *sorted(workers))

        def idle() -> Mapping[str, float]:
            spent, started = _spent(pids), time.perf_counter()
            time.sleep(_WINDOW_S)
            share = (_spent(pids) - spent) / (time.perf_counter() - started)
            now = {process.pid for process in psutil.Process(family.server_pid).children()}
            if now != workers:
                raise RuntimeError("workers came or went while nobody called")
            return {"idle.cpu": share}

        yield (_busy, idle)


GROUP = Group(
    "idle",
    "idle workers",
    SERIES,
    ROWS,
    _open,
    rounds=5,
    quick_rounds=1,
    warmup=0,
    caption="What a supervisor, its fork server and fifty workers do while nobody calls.",
)
