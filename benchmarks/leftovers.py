"""What a supervisor's process holds of this machine: descriptors, threads, children and memory, its fork server's too.

Counted when nothing comes or goes, so that two counts can be compared. From /proc: Linux only.
"""

from __future__ import annotations

import collections
import ctypes
import gc
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pdsandbox import Supervisor

from .load import children
from .memory import proportional

# Replacing workers takes milliseconds for each; only a failing run waits so long.
_PATIENCE_S: Final = 60.0
# Twice the same at such a distance is at rest: whoever was about to do something has had time for it.
_LOOK_S: Final = 0.05
_PR_SET_CHILD_SUBREAPER: Final = 36


@dataclass(frozen=True, slots=True)
class Count:
    """What there was at one moment.

    things   how many of each: descriptors by process and kind, threads, processes by state
    service  bytes of the supervisor's process: (resident, proportional)
    server   the same of its fork server
    """

    things: collections.Counter[str]
    service: tuple[int, int]
    server: tuple[int, int]

    def against(self, before: Count) -> Iterator[str]:
        """One line for each thing of which there was another number."""
        for name in sorted(self.things.keys() | before.things.keys()):
            now, then = self.things[name], before.things[name]
            if now != then:
                yield f"{name}: {then} before, {now} after"


def adopt_orphans() -> None:
    """Make this process the parent of workers whose fork server died, so that they are counted until they end."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def take(host: Supervisor, workers: int, *, killed: Collection[int] = ()) -> Count:
    """Once there are exactly `workers` workers, spares included, and all rest. RuntimeError if that never comes.

    `killed`: fork servers. They are the supervisor's to reap; any other child of ours that has ended is an orphan that
    was adopted, and reaped here.
    """
    gc.collect()
    last: list[collections.Counter[str]] = [collections.Counter()]

    def at_rest() -> bool:
        _reap(killed)
        try:
            things = _things(host)
        except FileNotFoundError:  # the fork server has just died
            return False
        same = things == last[0]
        last[0] = things
        # The thread that tells events comes with one, and goes when there was none for a second.
        telling = any(thread.name == "pdsandbox-events" for thread in threading.enumerate())
        return same and things["workers"] == workers and not (things["zombies"] or telling)

    if not _wait_until(at_rest):
        raise RuntimeError(f"{workers} workers did not come to rest within {_PATIENCE_S:g} s: {dict(last[0])}")
    server = host.stats().fork_server
    assert server is not None  # whose workers were counted
    return Count(last[0], _memory(os.getpid()), _memory(server))


def _wait_until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_S)
    return True


def _things(host: Supervisor) -> collections.Counter[str]:
    server = host.stats().fork_server
    found: collections.Counter[str] = collections.Counter()
    if server is None:
        return found
    for who, pid in (("service", os.getpid()), ("fork server", server)):
        for kind in _descriptors(pid):
            found[f"{who}: {kind}"] += 1
    for child in children(server):
        found["zombies" if _state(child) in "ZX" else "workers"] += 1
    for child in _own_children():
        found["zombies" if _state(child) in "ZX" else "children"] += 1
    found["threads"] = threading.active_count()
    found["kernel threads"] = len(os.listdir("/proc/self/task"))
    return found


def _descriptors(pid: int) -> Iterator[str]:
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        try:
            target = os.readlink(f"{folder}/{name}")
        except OSError:  # the listing's own, or one that has gone
            continue
        if target.startswith(("pipe:", "socket:")):
            target = target.partition("[")[0]
        yield "/proc/…" if target.startswith("/proc/") else target


def _own_children() -> Iterator[int]:
    """Each is a child of the thread that started it."""
    for task in os.listdir("/proc/self/task"):
        try:
            listed = Path(f"/proc/self/task/{task}/children").read_text(encoding="ascii")
        except OSError:  # a thread that has ended
            continue
        yield from map(int, listed.split())


def _reap(killed: Collection[int]) -> None:
    for pid in _own_children():
        if pid not in killed and _state(pid) == "Z":
            os.waitpid(pid, os.WNOHANG)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def _memory(pid: int) -> tuple[int, int]:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), proportional(pid)[0]
