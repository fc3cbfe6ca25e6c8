"""How many compilers may run at once. Waiting is bounded by those that run: each has its own limits."""

from __future__ import annotations

import threading

from ..errors import Cause, CompileError


class CompilerSlots:
    """A semaphore that can be closed: a context manager around one compilation. CompileError, CLOSED, once closed."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._closed = False
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._free > 0 or self._closed)
            if self._closed:
                raise CompileError("the supervisor is closed", cause=Cause.CLOSED)
            self._free -= 1

    def __exit__(self, *_exc: object) -> None:
        with self._changed:
            self._free += 1
            self._changed.notify()

    def close(self) -> None:
        """Nobody starts any more; who waits is told."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
