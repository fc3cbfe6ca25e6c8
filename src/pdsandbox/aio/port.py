"""One worker as the tasks of an event loop see it: who is next, and its pipes, waited for on the loop.

The asynchronous half of `Channel`, over its buffers and its states: what is read and judged is the same, only the
waiting is not. Whoever waits always gives way to the loop, and nobody spins. While somebody waits the housekeeper
knows the deadline as well, for a loop that has no time.
"""

from __future__ import annotations

import asyncio
import os
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, TypeVar

from .. import cargs
from ..errors import RssExceeded, WasmError
from ..platform import os_
from ..protocol import messages as m
from ..protocol.codec import ProtocolError
from ..protocol.frames import HEADER_BYTES, parse_header
from ..supervisor import monitor
from ..supervisor.channel import (
    BUFFER_BYTES,
    COMPUTES_S,
    END_GRACE_S,
    INTERRUPT_GRACE_S,
    LATE_S,
    LEAST_GRACE_S,
    SOON_S,
    failed_batch,
)
from ..supervisor.handle import REPORT_S
from ..supervisor.housekeeper import Housekeeper
from ..supervisor.sharing import Worker
from .line import Line
from .watchman import Watchman

__all__ = ["Operation", "Port", "telling"]

_T = TypeVar("_T")
_read: Final = os_.read_raw


class Operation:
    """One use of a worker: what a host function's context knows it was called from."""

    __slots__ = ("handle", "running")

    def __init__(self, port: Port) -> None:
        self.handle = port.handle
        self.running = True


class Port:
    """See the module's text.

    line         whose turn it is
    operation    the one under way
    in_callback  whether code of the user's runs in this very moment, inside the operation
    sending      whether a request is half written
    """

    def __init__(
        self, worker: Worker, loop: asyncio.AbstractEventLoop, watchman: Watchman, housekeeper: Housekeeper
    ) -> None:
        self.worker = worker
        self.channel = worker.channel
        self.handle = worker.handle
        self.loop = loop
        self.line = Line()
        self.operation: Operation | None = None
        self.in_callback = False
        self.sending = False
        self._watchman = watchman
        self._housekeeper = housekeeper
        self._replies = self.handle.ends.replies
        self._requests = self.handle.ends.requests
        self._waiter: asyncio.Future[None] | None = None
        self._watch = monitor.Watch(None, 0.0, None)
        self._begun = 0.0
        self._verdict: WasmError | None = None
        self._reads = True
        self.handle.on_look = _looking(weakref.ref(self))

    def abandon(self) -> None:
        """Its tasks were thrown away, perhaps with their loop, and will never go on: end the worker, and give back in
        their stead what they have. Any thread but the loop's."""
        handle, operation = self.handle, self.operation
        handle.condemn(monitor.abandoned())
        if operation is not None:
            operation.running, self.operation = False, None
            self._housekeeper.unwatch_host_calls(handle)
            torn, handle.busy = handle.busy, None
            if torn is not None:
                torn.serving.harvest()
            handle.renew_turn()
        handle.release_when_idle()

    # --- waiting and judging ---

    async def wait(self, watch: monitor.Watch, *, writing: bool = False) -> None:
        """Until the worker has said something (`writing`: reads on), or may have ended. Raises the verdict on an
        overrun."""
        loop, handle, housekeeper = self.loop, self.handle, self._housekeeper
        self._waiter = waiter = loop.create_future()
        self._watch, self._verdict, self._reads = watch, None, not writing
        self._begun = now = time.monotonic()
        patience = INTERRUPT_GRACE_S if watch.interruptible else 0.0
        handle.awaited = not writing
        handle.host_deadline = until = watch.deadline + patience
        housekeeper.watch_host_calls(handle)
        if until < housekeeper.next_wake:
            housekeeper.wake()
        if writing:
            loop.add_writer(self._requests, _wake, waiter)
        else:
            loop.add_reader(self._replies, _wake, waiter)
        self._watchman.enter(self, min(now + SOON_S, watch.deadline))
        try:
            await waiter
        finally:
            if not loop.is_closed():
                if writing:
                    loop.remove_writer(self._requests)
                else:
                    loop.remove_reader(self._replies)
            self._watchman.leave(self)
            housekeeper.unwatch_host_calls(handle)
            handle.awaited = False
            self.channel.computing.discard(handle)
            self._waiter = None
        if self._verdict is not None:
            raise self._verdict

    def judge(self, now: float) -> float:
        """Somebody waits: look at the worker; when to look again."""
        handle, watch, waiter = self.handle, self._watch, self._waiter
        if waiter is None or waiter.done():
            return now + 3600.0
        resident = 0 if watch.rss_bytes is None else handle.read_resident()
        verdict = monitor.over(now, resident, watch)
        if isinstance(verdict, RssExceeded):
            self._verdict = handle.condemn(verdict)
        elif verdict is not None and not (self._reads and handle.has_answered()):
            # A reply that is there counts, even one that came at the very deadline.
            if watch.interruptible and self.channel.interrupt(watch):
                self._watch = watch = replace(watch, deadline=now + INTERRUPT_GRACE_S, interruptible=False)
            else:
                self._verdict = handle.condemn(verdict)
        if self._verdict is not None or handle.ended:
            _wake(waiter)
        handle.drain_stderr()
        if now - self._begun > COMPUTES_S:
            self.channel.computing.add(handle)
        return min(now + monitor.next_sample_s(resident, watch.rss_bytes), max(watch.deadline, now + SOON_S))

    async def wait_ended(self, timeout_s: float) -> bool:
        """Until the worker is known to have ended."""
        loop, handle = asyncio.get_running_loop(), self.handle
        waiter: asyncio.Future[None] = loop.create_future()
        on_end = telling(waiter, _wake)
        timer = loop.call_later(timeout_s, _wake, waiter)
        handle.when_ended(on_end)
        try:
            await waiter
        finally:
            timer.cancel()
            handle.forget(on_end)
        return handle.ended

    async def ended(self, watch: monitor.Watch) -> WasmError:
        """The worker has closed its pipes, or ended: the verdict."""
        handle, now = self.handle, time.monotonic()
        if handle.alive:
            grace_s = min(END_GRACE_S, max(LEAST_GRACE_S, watch.deadline - now))
            if not await self.wait_ended(grace_s) and (handle.running() or not await self.wait_ended(REPORT_S)):
                return handle.condemn(monitor.broke_protocol("closed its pipes without ending"))
        return handle.post_mortem(now, 0.0)

    # --- sending ---

    async def send(self, kind: int, frame: bytes, watch: monitor.Watch) -> None:
        """As `Channel.send`."""
        channel = self.channel
        channel.orders.advance(kind)
        if channel.held and kind != m.HOST_FAIL:
            raise channel.broke("it said more than it was asked")
        done = os_.write_nowait(self._requests, frame, len(frame))
        if done != len(frame):
            await self.send_rest(memoryview(frame)[max(done, 0) :], watch)

    async def send_rest(self, rest: memoryview, watch: monitor.Watch) -> None:
        """What the worker was too slow to read at once."""
        self.sending = True
        while rest:
            await self.wait(watch, writing=True)
            if self.handle.ended:
                raise await self.ended(watch)
            try:
                rest = rest[os.write(self._requests, rest[: 1 << 20]) :]
            except BlockingIOError:
                pass
        self.sending = False

    # --- receiving ---

    async def receive(self, watch: monitor.Watch) -> tuple[int, memoryview | bytes]:
        """As `Channel.receive`."""
        channel = self.channel
        try:
            kind, payload = await self._receive(watch)
            if kind < m.READY:
                raise ProtocolError(f"message kind {kind} is not a worker's to send")
            channel.orders.advance(kind, failed=kind == m.RESULTS and failed_batch(payload))
        except ProtocolError as exc:
            raise self.handle.condemn(monitor.broke_protocol(str(exc))) from exc
        return kind, payload

    async def _receive(self, watch: monitor.Watch) -> tuple[int, memoryview | bytes]:
        channel = self.channel
        if not channel.held and not channel.frames.buffered:
            got = await self._read_some(channel.reading, watch)
            if got >= HEADER_BYTES:
                kind, length = parse_header(channel.view, 0, channel.cap)
                if got == HEADER_BYTES + length:
                    return kind, channel.view[HEADER_BYTES:got]
            channel.frames.feed(channel.view[:got])
        frames = channel.frames
        frames.cap = channel.cap
        while True:
            found = frames.next()
            if found is not None:
                channel.held = frames.buffered > 0
                return found
            want = min(frames.wanted(), BUFFER_BYTES)
            got = await self._read_some((*channel.reading[:2], cargs.size(want)), watch)
            frames.feed(channel.view[:got])
            verdict = monitor.over(time.monotonic() - LATE_S, 0, watch)
            if verdict is not None:
                raise self.handle.condemn(verdict)

    async def _read_some(self, reading: Any, watch: monitor.Watch) -> int:
        """How many bytes, at least one, came into the channel's buffer."""
        while True:
            await self.wait(watch)
            got: int = _read(*reading)
            if got > 0:
                return got
            if got == 0 or self.handle.ended:
                raise await self.ended(watch)


def telling(future: asyncio.Future[_T], action: Callable[[asyncio.Future[_T]], object]) -> Callable[[], None]:
    """For another thread to call: has the loop do `action(future)`, if anybody still waits for that. It does not keep
    it: what belongs to a loop that is closed must go, while whoever calls this waits for a worker that does not."""
    loop, kept = future.get_loop(), weakref.ref(future)

    def tell() -> None:
        waited_for = kept()
        if waited_for is None:
            return
        try:
            loop.call_soon_threadsafe(action, waited_for)
        except RuntimeError:
            pass  # the loop is closed, and nobody waits any more

    return tell


def _looking(kept: weakref.ref[Port]) -> Callable[[], None]:
    """For the housekeeper. Whoever is referred to by a host function of a guest that runs would else stay for ever, and
    the guest with it, when the loop that they are of is closed."""

    def look() -> None:
        port = kept()
        if port is not None and port.loop.is_closed():
            port.abandon()

    return look


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
