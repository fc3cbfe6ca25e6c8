"""A worker's process, looked at and touched from outside: memory, CPU time, where it runs. Knows no verdicts.

Whoever names it by its pid does so under `_lock` while its pidfd is there and it is not reaped: only then the pid is
its own, because its end is acknowledged after the pidfd was taken away.
"""

from __future__ import annotations

import contextlib
import errno
import math
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from ..platform import os_
from . import cputime
from .configuring import CORES

# How long a pair is left where it is: looking and moving takes 20 us.
PART_S: Final = 0.001

_T = TypeVar("_T")


class Body:
    """See the module's text. `cpu_s`: the RLIMIT_CPU that it starts with; None: none."""

    def __init__(self, cpu_s: int | None) -> None:
        self.born = time.monotonic()
        self.pid: int | None = None
        self.pidfd = -1
        self._memory = -1  # descriptor for the platform's memory_file
        self._samples: os_.SmallFile | None = None
        self._sample = b"0 0 0 0 0 0 0"  # the last that it gave
        self._ceiling: int | None = None  # RLIMIT_DATA
        self._peak = 0
        self._parts_at = -math.inf  # when `part` may try again
        self._lock = threading.Lock()
        #: Nothing that ends before this can reach RLIMIT_CPU.
        self.cpu_until = cputime.cpu_until(cpu_s, self.born, CORES)

    def read_resident(self) -> int:
        """Bytes resident; 0 when that cannot be known (not spawned yet, or gone). Any thread."""
        with self._lock:
            if self._memory < 0:
                return 0
            if self._samples is None:
                self._samples = os_.memory_file(self._memory)
            try:
                sample = self._samples.read()
            except OSError:
                return 0
        resident = os_.resident_of(sample)
        if resident:  # a process on its way out has none left: what counts is what it had
            self._sample = sample
        return resident

    def cpu_s(self) -> float | None:
        """Seconds of CPU time that it has used so far; None when there is no process. Any thread."""
        return self._ask(os_.process_cpu_s)

    def peak_rss(self) -> int:
        """The most bytes that it ever had resident, as far as that was seen before it ended. Any thread."""
        self._peak = max(self._peak, os_.resident_of(self._sample), self._ask(os_.process_peak) or 0)
        return self._peak

    def _ask(self, question: Callable[[int], _T]) -> _T | None:
        with self._lock:
            try:
                if self.pid is not None and self.pidfd >= 0 and not os_.pidfd_reaped(self.pidfd):
                    return question(self.pid)
            except OSError:
                pass  # gone this very moment
        return None

    def half_empty(self, rss_bytes: int | None) -> bool:
        """Whether it has less than half of the memory that it may have; as far as that is limited. Any thread."""
        resident, data = self.read_resident(), os_.data_of(self._sample)
        return all(limit is None or 2 * used < limit for used, limit in ((resident, rss_bytes), (data, self._ceiling)))

    def part(self) -> None:
        """We and the worker spin on one core: if there is an idle one, that is for the worker.

        Who is woken up through a pipe wakes up where the waker runs, and the scheduler seldom moves two that go on
        running; such a pair takes 20 us for a call, instead of 6.
        """
        now = time.monotonic()
        if now >= self._parts_at:
            self._parts_at = now + PART_S
            try:
                if os_.idle_core():
                    with self._lock:
                        if self.pid is not None and self.pidfd >= 0 and not os_.pidfd_reaped(self.pidfd):
                            os_.part_from(self.pid)
            except OSError:
                self._parts_at = math.inf  # this machine does not let us

    def copy_memory(self, local: int, remote: int, size: int, *, write: bool = False) -> int:
        """`copy_process` of this worker, which must have been told to wait; OSError, ESRCH once it has ended."""
        # Under the lock its end cannot be acknowledged, so that the pid stays its own.
        with self._lock:
            if self.pid is None or self.pidfd < 0 or os_.pidfd_reaped(self.pidfd):
                raise ProcessLookupError(errno.ESRCH, "the worker has ended")
            return os_.copy_process(self.pid, local, remote, size, write=write)

    def allow_cpu(self, now: float, wall_s: float | None) -> None:
        """Raise RLIMIT_CPU so that an operation of `wall_s` seconds that begins now cannot reach it."""
        with self._lock:
            if self.pid is None or self.pidfd < 0:
                return  # just started, with what is enough for its start function; or its pid may be another's by now
            cpu_s = cputime.cpu_s(now - self.born, wall_s, CORES)
            self.cpu_until = cputime.cpu_until(cpu_s, self.born, CORES)
            with contextlib.suppress(OSError):  # this machine refuses, and then none was set
                os_.limit_cpu(self.pid, cpu_s)
