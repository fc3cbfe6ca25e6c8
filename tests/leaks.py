"""What this process holds from the outside world: descendants and file descriptors, listed and compared.

Used by the autouse fixture in conftest.py and by tests that count for themselves. Cheap enough to run around each
test: on Linux the kernel lists a task's children, elsewhere psutil walks all processes.
"""

from __future__ import annotations

import ctypes
import gc
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

# Bounds a wait for something that takes milliseconds, on a machine as busy as it gets; only a failing test waits.
PATIENCE_S = 10.0

_PR_SET_CHILD_SUBREAPER = 36
_FD_DIR = Path("/proc/self/fd") if sys.platform == "linux" else Path("/dev/fd")
_KERNEL_LISTS_CHILDREN = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists()


def adopt_orphans() -> bool:
    """Make re-parented descendants our children instead of init's, so that none can get away from the count."""
    if sys.platform != "linux":
        return False
    return ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def _children(pid: int) -> Iterator[int]:
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return
    for task in tasks:
        try:
            with open(f"/proc/{pid}/task/{task}/children", "rb", buffering=0) as listing:
                yield from map(int, listing.read(65536).split())
        except OSError:
            continue


def descendants(pid: int | None = None) -> set[int]:
    """Process ids of all descendants, zombies included."""
    pid = os.getpid() if pid is None else pid
    if not _KERNEL_LISTS_CHILDREN:
        return {child.pid for child in psutil.Process(pid).children(recursive=True)}
    found: set[int] = set()
    todo = [pid]
    while todo:
        new = set(_children(todo.pop())) - found
        found |= new
        todo += new
    return found


def fds() -> dict[int, str]:
    """Open file descriptors of this process and what they refer to, but for the standard ones, which pytest moves, and
    the fonts, which matplotlib keeps open once the harness's charts have used them."""
    found = {}
    for name in os.listdir(_FD_DIR):
        try:
            found[int(name)] = os.readlink(_FD_DIR / name) if sys.platform == "linux" else "open"
        except OSError:
            continue  # the listing's own descriptor
    return {fd: target for fd, target in found.items() if fd > 2 and not target.endswith(".ttf")}


def describe(pid: int) -> str:
    """One line about a process, for a failure's message."""
    try:
        process = psutil.Process(pid)
        facts = f"{pid} ({process.status()}, parent {process.ppid()}) {process.name()}"
    except psutil.Error:
        return f"{pid} (gone)"
    try:
        return f"{facts}: {' '.join(process.cmdline())}"
    except psutil.Error:  # a zombie has no command line any more
        return facts


def wait_until(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> bool:
    """Poll `condition` until it holds or patience ends; whether it holds."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        select.select([], [], [], 0.002)
    return True


def reap_zombies(pids: set[int]) -> None:
    """Reap those of `pids` that are zombies and children of ours."""
    for pid in pids:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue


class Holdings:
    """A snapshot, and what has come on top of it since."""

    def __init__(self) -> None:
        self.pids = descendants()
        self.fds = fds()

    def extra(
        self,
        *,
        reap: bool = False,
        ignore: Callable[[str], bool] = lambda _target: False,
        patience_s: float = PATIENCE_S,
    ) -> list[str]:
        """One line for each process and descriptor that was not there before, once patience has ended.

        `reap` reaps what are zombies and children of ours; `ignore` tells by its target which descriptor is fine.
        """

        def pids() -> set[int]:
            new = descendants() - self.pids
            if reap and new:
                reap_zombies(new)
                new = descendants() - self.pids
            return new

        def new_fds() -> dict[int, str]:
            before = self.fds.items()
            return {fd: target for fd, target in fds().items() if (fd, target) not in before and not ignore(target)}

        if wait_until(lambda: not pids() and not new_fds(), patience_s / 20):
            return []
        gc.collect()  # an object in a traceback's cycle still has its finaliser to come
        wait_until(lambda: not pids() and not new_fds(), patience_s)
        left = [f"process {describe(pid)}" for pid in sorted(pids())]
        return left + [f"fd {fd} -> {target}" for fd, target in sorted(new_fds().items())]
