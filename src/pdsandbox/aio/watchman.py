"""Looks at the workers that tasks of one event loop wait for, from that loop: their deadlines and their memory.

One timer for all of them, which stands only while somebody waits. Decides nothing: `Port.judge` does.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .port import Port

__all__ = ["Watchman"]

# What an event loop's timers can do: epoll and uvloop count in milliseconds, and less than one would be a spin.
_LEAST_S: Final = 0.001


class Watchman:
    """See the module's text."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ports: dict[Port, float] = {}
        self._at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def enter(self, port: Port, due: float) -> None:
        """Look at it at that time (`time.monotonic`), and then whenever `judge` says, until it leaves."""
        self._ports[port] = due
        if due < self._at:
            self._schedule(due)

    def leave(self, port: Port) -> None:
        """It waits no more."""
        self._ports.pop(port, None)

    def _schedule(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        now = time.monotonic()
        delay = max(_LEAST_S, due - now)
        self._at = now + delay
        self._timer = self._loop.call_later(delay, self._look)

    def _look(self) -> None:
        self._timer, self._at = None, math.inf
        now = time.monotonic()
        for port, due in list(self._ports.items()):
            if due <= now:
                self._ports[port] = port.judge(now)
        if self._ports:
            self._schedule(min(self._ports.values()))
