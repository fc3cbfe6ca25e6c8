"""Whose turn it is on one worker, among the tasks of one event loop: first come, first served.

Knows nothing of workers. What a cancelled waiter was given a moment before goes on to the next.
"""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["Line"]


class Line:
    """A lock whose waiters give up after a while."""

    __slots__ = ("_taken", "_waiting")

    def __init__(self) -> None:
        self._taken = False
        self._waiting: deque[asyncio.Future[bool]] = deque()

    async def take(self, timeout_s: float | None) -> bool:
        """Until it is ours; False when `timeout_s` passed first."""
        if not self._taken:
            self._taken = True
            return True
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiting.append(waiter)
        timer = None if timeout_s is None else loop.call_later(timeout_s, _expire, waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.result():
                self.give()
            raise
        finally:
            if timer is not None:
                timer.cancel()
            try:
                self._waiting.remove(waiter)
            except ValueError:
                pass  # `give` took it out

    def give(self) -> None:
        """It is the next one's."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(True)
                return
        self._taken = False


def _expire(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)
