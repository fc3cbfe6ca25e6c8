"""How many compilers may run at once. Waiting is bounded by those that run: each has its own limits.

What runs is known by tokens that live in the frames that compile: one whose frame was torn away by an exception from a
signal handler, wherever that was, gives its place back by being collected.
"""

from __future__ import annotations

import queue
import threading
import weakref
from typing import Final

from ..errors import Cause, CompileError

# A place is announced through the queue; only one that was lost to an interrupt has to be found by looking again.
_SLICE_S: Final = 0.1


class Place:
    """One compilation's place, as long as it is referred to."""

    __slots__ = ("__weakref__",)


class CompilerSlots:
    """A semaphore that can be closed."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._closed = False
        self._lock = threading.Lock()
        self._taken: set[weakref.ref[Place]] = set()
        self._freed: queue.SimpleQueue[None] = queue.SimpleQueue()

    def take(self) -> Place:
        """A place, when there is one. CompileError, CLOSED, once closed."""
        while True:
            with self._lock:
                if self._closed:
                    raise CompileError("the supervisor is closed", cause=Cause.CLOSED)
                self._taken = {place for place in self._taken if place() is not None}
                if len(self._taken) < self._most:
                    place = Place()
                    self._taken.add(weakref.ref(place))
                    return place
            try:
                self._freed.get(timeout=_SLICE_S)
            except queue.Empty:
                pass

    def give(self, place: Place) -> None:
        """Done."""
        with self._lock:
            self._taken.discard(weakref.ref(place))
        self._freed.put(None)

    def close(self) -> None:
        """Nobody starts any more; who waits is told."""
        with self._lock:
            self._closed = True
        self._freed.put(None)
