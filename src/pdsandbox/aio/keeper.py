"""Keeps the instances of an event loop's pool: starts those that the books want, ends those that they are done with,
and finds out which have died while they idled. What is to be done is `upkeep`'s to say.

All of it happens in the loop: a look at the books is a callback, and what takes time a task. It does not know the pool
that its callers hold, so that one that is dropped ends.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Final

from ..errors import Cause, InstantiationError, WasmError
from ..restarts import RestartPolicy
from ..roster import Lease, Slot
from ..sizes import Sizes
from ..supervisor import monitor
from ..upkeep import Recipe, Upkeep, again, closed_error, not_started
from .belonging import Kind, claims, while_it
from .ending import let_go, wait_gone, why_gone
from .hosted import Start

if TYPE_CHECKING:
    from ..wasi import Wasi
    from .host import AsyncSupervisor
    from .instance import AsyncInstance

__all__ = ["Keeper", "hand_over", "tell"]

# Starts under way at once: each is some 3 ms, most of it waiting. One that has yet to show that it can start gets one.
_AT_ONCE: Final = 4
# The least that the loops' timers can do.
_LEAST_S: Final = 0.001

log = logging.getLogger("pdsandbox")


class Keeper(Upkeep):
    """See the module's text."""

    def __init__(
        self,
        host: AsyncSupervisor,
        loop: asyncio.AbstractEventLoop,
        recipe: Recipe,
        wasi: Wasi | None,
        sizes: Sizes,
        policy: RestartPolicy,
    ) -> None:
        super().__init__(host, recipe, sizes, policy, time.monotonic())
        self.loop = loop
        self._host = host
        self._wasi = wasi
        self._context = contextvars.copy_context()  # of who made the pool, and not of whoever happens to call
        self._awake = False
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._under_way: set[Start] = set()
        self._watching: set[asyncio.Future[None]] = set()

    # --- for the pool ---

    def wake(self) -> None:
        """There is work: look at the books soon."""
        if not self._awake and not self.loop.is_closed():
            self._awake = True
            self.loop.call_soon(self._look, context=self._context)

    def abandon(self) -> None:
        """For finalisers, in any thread: end everything, at the next look."""
        self.stopping = True

    def stop(self) -> None:
        """End what may be ended, and start no more."""
        self.stopping = True
        self.wake()

    @property
    def over(self) -> bool:
        """Whether nothing is being started or ended."""
        return not self.roster.starting and not self.roster.ending

    @property
    def here(self) -> bool:
        """Whether a host function runs that an instance calls while it is started."""
        return claims(self, Kind.STARTS)

    async def until(self, condition: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait for something in the books, at most so long; whether it has come about."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not condition():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            waiter: asyncio.Future[None] = self.loop.create_future()
            self._watching.add(waiter)
            try:
                await asyncio.wait([waiter], timeout=left)
            finally:
                self._watching.discard(waiter)
        return True

    def changed(self) -> None:
        """The books are not what they were."""
        for waiter in self._watching:
            if not waiter.done():
                waiter.set_result(None)

    def spawn(
        self, coroutine: Coroutine[Any, Any, Any], then: Callable[[asyncio.Task[Any]], None] | None = None
    ) -> asyncio.Task[Any]:
        """A task in the context of the pool; `then` is called whatever becomes of it."""
        task = self.loop.create_task(coroutine, context=self._context.copy())
        self._tasks.add(task)
        if then is not None:
            task.add_done_callback(then, context=self._context)
        task.add_done_callback(self._tasks.discard, context=self._context)
        return task

    async def make(self, recipe: Recipe, kind: Kind) -> AsyncInstance:
        """An instance. CallError, CLOSED, when all is to end meanwhile."""
        if self.stopping:
            raise closed_error()
        with while_it(self, kind):
            start = Start(self.loop)
            self._under_way.add(start)
            try:
                return await self._host._begin(*recipe, self._wasi, start)
            except WasmError as exc:
                if self.roster.closed and exc.cause is Cause.CLOSED:
                    raise closed_error() from None
                raise
            finally:
                self._under_way.discard(start)

    # --- looking after it ---

    def _look(self) -> None:
        self._awake = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = time.monotonic()
        try:
            self._do(now)
        except Exception:  # one failing duty must not end the others
            log.exception("pdsandbox: a pool failed at one of its duties")
        if not self.stopping:  # else nothing is to be done until something happens
            self._timer = self.loop.call_later(max(_LEAST_S, self.pause_s(now)), self._look, context=self._context)
        self.changed()

    def _do(self, now: float) -> None:
        roster = self.roster
        if self.stopping:
            tell(roster.close(), closed_error)
            for start in self._under_way:
                start.stop(monitor.closed())
        for slot in self.take_out_dead(now):
            self.lost(why_gone(slot.instance), now)
        error = self.refused(now) if roster.waiting else None
        if error is not None:
            tell(roster.refuse(), lambda: again(error))
        while True:
            most = _AT_ONCE if self.starts and self.last_error is None else 1
            action = self.next_action(now, start=roster.starting < most)
            if action is True:
                made = self.make(self.recipe, Kind.STARTS)
                self.spawn(made, functools.partial(self._started, roster.version))
            elif isinstance(action, Slot):
                if let_go(action.instance):
                    self.spawn(wait_gone(action.instance), self._ended)
                else:
                    roster.ended()
            else:
                break

    def _started(self, version: int, task: asyncio.Task[AsyncInstance]) -> None:
        """A start came to something, or to nothing."""
        now = time.monotonic()
        error: WasmError
        if task.cancelled():  # by whoever cancels all tasks there are
            error = InstantiationError("the start of an instance was cancelled", cause=Cause.CANCELLED)
        else:
            exc = task.exception()
            if exc is None:
                hand_over(self.came(task.result(), version, now))
                self.wake()
                return
            error = exc if isinstance(exc, WasmError) else not_started(exc)
        tell(self.came_to_nothing(error, version, now), lambda: again(error))
        self.wake()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        """An instance has ended."""
        if not task.cancelled() and task.exception() is not None:
            log.error("pdsandbox: an instance of a pool could not be ended", exc_info=task.exception())
        self.roster.ended()
        self.wake()


def hand_over(granted: Iterable[Lease]) -> None:
    """Wake those who have got an instance."""
    for lease in granted:
        if not lease.wake.done():  # else it has just given up, and will give back
            lease.wake.set_result(None)


def tell(refused: Iterable[Lease], error: Callable[[], WasmError]) -> None:
    """Wake those who will not get one, each with an error of its own."""
    for lease in refused:
        lease.error = error()
    hand_over(refused)
