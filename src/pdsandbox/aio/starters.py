"""What has no descriptor to wait for, in a few threads: compiling, starting, closing, streams that block.

No call goes through here. Threads come when there is work and go when there is none; they are daemons, so that they
hold up nobody's exit. A result that nobody waits for any more is given to who undoes it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeVar

__all__ = ["Starters", "held"]

_T = TypeVar("_T")


def _nothing(_result: object) -> None:
    pass


class _Job:
    """An action, the future that its outcome is for, and what undoes a result that comes too late."""

    __slots__ = ("action", "future", "loop", "undo")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, action: Callable[[], Any], undo: Callable[[Any], object]
    ) -> None:
        self.action = action
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.undo = undo


class Starters:
    """At most `most` threads."""

    def __init__(self, most: int) -> None:
        self._most: Final = most
        self._lock = threading.Lock()
        self._jobs: deque[_Job | Callable[[], object]] = deque()
        self._threads = 0
        self._waiting: set[asyncio.Future[None]] = set()

    async def run(self, action: Callable[[], _T], undo: Callable[[_T], object] = _nothing) -> _T:
        """What `action` returns or raises. Cancelled, it goes on to its end; then `undo(result)`, in a thread."""
        job = self.start(action, undo)
        try:
            result: _T = await job
        except asyncio.CancelledError:
            if job.done() and not job.cancelled() and job.exception() is None:
                done = job.result()  # it came, and nobody will take it
                self._put(lambda: undo(done))
            raise
        return result

    def start(self, action: Callable[[], Any], undo: Callable[[Any], object] = _nothing) -> asyncio.Future[Any]:
        """The future of it."""
        job = _Job(asyncio.get_running_loop(), action, undo)
        self._put(job)
        return job.future

    async def one_ends(self, timeout_s: float | None) -> None:
        """Until any of what runs now has ended, or `timeout_s` has passed."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            await asyncio.wait([waiter], timeout=timeout_s)
        finally:
            self._waiting.discard(waiter)

    def _put(self, job: _Job | Callable[[], object]) -> None:
        with self._lock:
            self._jobs.append(job)
            if self._threads >= self._most:
                return
            self._threads += 1
        try:
            threading.Thread(target=self._work, name="pdsandbox-start", daemon=True).start()
        except BaseException:
            with self._lock:
                self._threads -= 1
                if not self._threads and job in self._jobs:
                    self._jobs.remove(job)
                    raise  # nobody would do it

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._jobs:
                    self._threads -= 1
                    return
                job = self._jobs.popleft()
            if isinstance(job, _Job):
                self._do(job)
            else:
                job()

    def _do(self, job: _Job) -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = job.action()
        except BaseException as exc:
            error = exc
        try:
            job.loop.call_soon_threadsafe(self._deliver, job, result, error)
        except RuntimeError:  # the loop is closed: nobody will ever ask
            if error is None:
                job.undo(result)

    def _deliver(self, job: _Job, result: Any, error: BaseException | None) -> None:
        """In the loop's thread."""
        if job.future.done():  # cancelled
            if error is None:
                self._put(lambda: job.undo(result))
        elif error is None:
            job.future.set_result(result)
        else:
            job.future.set_exception(error)
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)


async def held(future: asyncio.Future[Any], on_cancel: Callable[[], object]) -> None:
    """Until `future` is done, even when cancelled: then `on_cancel` hurries it, and CancelledError follows. For what
    uses things that must not be let go of before."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as exc:
            if cancelled is None:
                cancelled = exc
                on_cancel()
    if cancelled is not None:
        if not future.cancelled():
            future.exception()  # looked at, so that nobody reports it as lost
        raise cancelled
