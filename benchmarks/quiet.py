"""When has a supervisor's family come to rest? Asked between samples, off the clock, so that none pays for another.

A process is at rest when it sleeps at two looks and has not been scheduled in between (its count of context switches
stands): whatever it was asked for, it has done. That is a fact about the process, not a guess about time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import psutil

# Coming to rest takes milliseconds; only a failing run waits this long.
_PATIENCE_S = 30.0
# Between two looks: long enough for anything runnable to have been scheduled on an idle core.
_LOOK_S = 0.002


class Family:
    """A fork server and its workers, found through one worker."""

    def __init__(self, worker_pid: int) -> None:
        parent = psutil.Process(worker_pid).parent()
        if parent is None or parent.pid == psutil.Process().pid:
            raise RuntimeError(f"worker {worker_pid} is not the child of a fork server")
        self._server = parent

    @property
    def server_pid(self) -> int:
        """The fork server's process id."""
        pid: int = self._server.pid
        return pid

    def wait_quiet(self, workers: int) -> frozenset[int]:
        """Until exactly `workers` workers are left and all rest; their pids. RuntimeError if that never comes."""
        deadline = time.monotonic() + _PATIENCE_S
        before: Mapping[int, int] = {}
        while time.monotonic() < deadline:
            now = self._resting()
            if now and len(now) == workers + 1 and now == before:
                return frozenset(now) - {self._server.pid}
            before = now
            time.sleep(_LOOK_S)
        raise RuntimeError(f"the fork server and {workers} workers did not come to rest within {_PATIENCE_S:g} s")

    def _resting(self) -> dict[int, int]:
        """Context switches by pid; nothing unless all of them sleep."""
        switches = {}
        try:
            for process in (self._server, *self._server.children()):
                with process.oneshot():
                    if process.status() != psutil.STATUS_SLEEPING:
                        return {}
                    count = process.num_ctx_switches()
                switches[process.pid] = count.voluntary + count.involuntary
        except psutil.NoSuchProcess:  # one has just been reaped
            return {}
        return switches
