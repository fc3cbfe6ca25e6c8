"""A process of ours that was not started by `subprocess`: how to end it, and wait until it has."""

from __future__ import annotations

import contextlib
import os
import subprocess

from ..platform import os_

__all__ = ["Spawned"]


class Spawned:
    """A process that was started ahead, with what of `Popen` is needed here."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._pidfd = os_.pidfd_open(pid)

    def kill(self) -> None:
        if self._pidfd >= 0:
            os_.pidfd_kill(self._pidfd)

    def wait(self, timeout_s: float) -> None:
        if self._pidfd < 0:
            return
        if not os_.pidfd_exited(self._pidfd, timeout_s):
            raise subprocess.TimeoutExpired("the fork server", timeout_s)
        with contextlib.suppress(ChildProcessError):  # somebody else's waitpid(-1), or SIGCHLD is ignored
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)

    def __del__(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
