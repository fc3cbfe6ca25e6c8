"""An event that a signal handler's exception cannot break.

`threading.Event` and `Condition` are Python code: a KeyboardInterrupt inside them can leave their lock taken for ever,
and whoever sets the event next, here the housekeeper, would hang. This is a flag and one C lock; a waiter that is torn
away in the worst moment delays the others by a slice, no more.
"""

from __future__ import annotations

import time
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable
from typing import Final

# How long a waiter sleeps before it looks at the flag itself. Only ever waited for after such an interrupt.
_SLICE_S: Final = 0.1


class Latch:
    """Set once, by any thread, any number of times."""

    __slots__ = ("_lock", "_then", "on")

    def __init__(self) -> None:
        self.on = False
        self._lock = allocate_lock()
        self._lock.acquire()
        self._then: deque[Callable[[], object]] = deque()

    def set(self) -> None:
        """Wake everybody, now and later."""
        self.on = True
        try:
            self._lock.release()
        except RuntimeError:
            pass  # it is free already
        self._tell()

    def then(self, action: Callable[[], object]) -> None:
        """Call `action` once it is set, in whichever thread sets it; now if it is. It must neither wait nor raise."""
        self._then.append(action)
        if self.on:
            self._tell()

    def forget(self, action: Callable[[], object]) -> None:
        """Not any more; it may be too late."""
        try:
            self._then.remove(action)
        except ValueError:
            pass

    def _tell(self) -> None:
        while True:
            try:
                action = self._then.popleft()
            except IndexError:
                return
            action()

    def wait(self, timeout_s: float) -> bool:
        """Until it is set; False when `timeout_s` passed first."""
        deadline = time.monotonic() + timeout_s
        while not self.on:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            if self._lock.acquire(timeout=min(left, _SLICE_S)):
                self._lock.release()  # the next one's turn
        return True
