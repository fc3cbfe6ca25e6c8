"""Threads that call pools without a pause, and one that kills workers meanwhile."""

from __future__ import annotations

import faulthandler
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from .ledger import Kind, Ledger

# A call waits a minute for an instance, and runs for as long as its host's limits say: whatever lasts longer hangs.
HANG_S: Final = 120.0
# Not a multiple of anything: a kill comes at any moment of a call, or of a start.
_LOOK_S: Final = 0.00137


class Load:
    """`threads` threads, each of which makes one call after the other. A context manager: they run within.

    `seed` decides which calls each of them makes. `on_right` is called with the kind, and when a call that came to its
    right end began, by the monotonic clock.
    """

    def __init__(
        self,
        ledger: Ledger,
        kinds: Sequence[Kind],
        *,
        threads: int,
        seed: int,
        on_right: Callable[[Kind, float], None] = lambda _kind, _began: None,
    ) -> None:
        self._ledger = ledger
        self._kinds = kinds
        self._weights = [kind.weight for kind in kinds]
        self._on_right = on_right
        self._stop = False
        # As daemons: a service that hangs is told of, and left.
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(seed * 1000 + n),), name=f"caller {n}", daemon=True)
            for n in range(threads)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, _cls: type[BaseException] | None, _exc: BaseException | None, _tb: TracebackType | None) -> None:
        self._stop = True
        deadline = time.monotonic() + HANG_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        hanging = [thread.name for thread in self._threads if thread.is_alive()]
        if hanging:
            faulthandler.dump_traceback(sys.__stderr__ or sys.stderr)
            self._ledger.fault(f"no end after {HANG_S:g} s: {', '.join(hanging)}")

    def _run(self, rng: random.Random) -> None:
        while not self._stop:
            (kind,) = rng.choices(self._kinds, self._weights)
            self._one(kind)

    def _one(self, kind: Kind) -> None:
        number = self._ledger.begin()
        answer, error = None, None
        began = time.monotonic()
        try:
            answer = kind.make(number)
        except Exception as exc:
            error = exc
        if self._ledger.end(kind, number, answer, error, time.monotonic() - began):
            self._on_right(kind, began)


class Killer:
    """Kills a child of the process `parent`, whichever, after every `every` calls on average. A context manager.

    It goes by what the kernel lists, so that spares die as well, and workers in which an instance is about to stand. By
    calls and not by time, so that a slow machine gets as far between two kills as a fast one.
    """

    def __init__(self, parent: int, ledger: Ledger, *, every: int, seed: int) -> None:
        self._parent = parent
        self._ledger = ledger
        self._every = every
        self._rng = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="killer", daemon=True)
        self.kills = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, _cls: type[BaseException] | None, _exc: BaseException | None, _tb: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        due = self._next()
        while not self._stop.wait(_LOOK_S):
            if self._ledger.calls >= due:
                due = self._next()
                victims = children(self._parent)
                if victims and kill_child(self._rng.choice(victims), self._parent):
                    self.kills += 1

    def _next(self) -> int:
        return self._ledger.calls + self._rng.randint(1, 2 * self._every)


def children(pid: int) -> list[int]:
    """The children of a process of one thread, zombies included."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:  # it has ended
        return []


def kill_child(pid: int, parent: int) -> bool:
    """Kill this child of `parent`; whether it was one still, and not some other process by now."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if pid not in children(parent):
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True
