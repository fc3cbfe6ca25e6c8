"""The guest's calls to host functions, served by the task of its call; see `supervisor.serving`, whose rules these are.

A plain function runs in the loop's thread, and everybody waits for it. A coroutine function runs as a task of its own:
others go on meanwhile. It is cancelled when its worker ends first (the housekeeper sees to the deadline), and the
caller then hears why it ended. Streams that have to wait for a descriptor do so in a thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable
from typing import Any, Final

from ..callbacks import Callback, LiveCaller
from ..errors import CallError, Cause, MemoryAccessError, WasmError
from ..imports import Offer
from ..protocol import messages as m
from ..protocol.codec import ProtocolError
from ..protocol.frames import HEADER, HEADER_BYTES
from ..slots import Slots
from ..supervisor import monitor
from ..supervisor.conversation import Conversation
from ..supervisor.housekeeper import Housekeeper
from ..supervisor.memory import HostMemory
from ..supervisor.serving import HOST_FAIL, SLOTS_AT
from .hosted import Hosted, Raised, guarded, inside
from .port import Port, telling
from .starters import Starters, held

__all__ = ["Serving"]

_RETURN: Final = m.HOST_RETURN


class Serving:
    """See the module's text."""

    def __init__(self, talk: Conversation, port: Port, housekeeper: Housekeeper, streaming: Starters) -> None:
        self._talk = talk
        self._state = talk.serving
        self._port = port
        self._channel = port.channel
        self._handle = port.handle
        self._housekeeper = housekeeper
        self._streaming = streaming

    async def converse(
        self, kind: int, payload: memoryview | bytes, watch: monitor.Watch
    ) -> tuple[int, memoryview | bytes]:
        """As `supervisor.serving.Serving.converse`."""
        state = self._state
        memory = HostMemory(self._talk.memory, self._talk.turn, watch, self._talk.look)
        try:
            while kind in m.ASIDES:
                if kind == m.STREAM_OUT:
                    state.keep(payload)  # whatever comes of the look
                self._talk.look(time.monotonic(), watch)
                if kind in m.OF_WASI:
                    await self._stream(kind, payload, watch)
                else:
                    await self._serve(kind, payload, memory, watch)
                kind, payload = await self._port.receive(watch)
                if state.must_end and kind not in (m.ERROR, m.RESULTS):
                    raise self._channel.broke("it went on after its host function had failed")
        except WasmError as exc:
            state.after_all(exc)
            raise
        return kind, payload

    async def _serve(self, kind: int, payload: memoryview | bytes, memory: HostMemory, watch: monitor.Watch) -> None:
        """Run the function asked for, and answer."""
        channel, handle, state, port = self._channel, self._handle, self._state, self._port
        callback, blobs = state.request(payload)
        if kind == m.HOST_LOG and callback.offer.pd != "pd_log":
            raise channel.broke("only pd_log needs no answer")
        if state.error is not None:
            return  # the answer is on its way
        failure: WasmError | None = None
        self._bound(watch)
        try:
            if isinstance(callback.fn, Hosted) and callback.fn.coroutine:
                await self._await(callback, callback.fn, payload, blobs, memory)
            else:
                port.in_callback = True
                callback.run(memory, payload, SLOTS_AT, blobs, channel.out, HEADER_BYTES)
        except (CallError, MemoryAccessError) as exc:  # all that a callback's failure can be
            failure = exc
        finally:
            port.in_callback = False
            self._housekeeper.unwatch_host_calls(handle)
        try:
            verdict = handle.verdict if handle.attention else None
            if verdict is not None:
                raise verdict  # the housekeeper's, at the deadline; or close, or kill
            if memory.torn:
                raise handle.condemn(monitor.abandoned()) from failure
            failed = failure is not None
            if failure is not None:
                state.fail(failure, of_log=kind == m.HOST_LOG)
        finally:
            failure = None  # as in `Slots.encode`
        if failed:
            await port.send(m.HOST_FAIL, HOST_FAIL, watch)
        elif kind == m.HOST_CALL:
            HEADER.pack_into(channel.out, 0, callback.nresults, _RETURN)
            await port.send(_RETURN, bytes(channel.out[: HEADER_BYTES + callback.nresults]), watch)

    def _bound(self, watch: monitor.Watch) -> None:
        """The user's code runs: from here on it is the housekeeper who keeps the deadline."""
        self._handle.host_deadline = watch.deadline
        self._housekeeper.watch_host_calls(self._handle)
        if watch.deadline < self._housekeeper.next_wake:
            self._housekeeper.wake()

    async def _await(
        self,
        callback: Callback,
        hosted: Hosted,
        payload: memoryview | bytes,
        blobs: tuple[bytes, ...],
        memory: HostMemory,
    ) -> None:
        """Run a coroutine function, and put what it returns where a plain one would."""
        offer, loop, handle = callback.offer, self._port.loop, self._handle
        caller = LiveCaller(memory)
        if offer.pd is None:
            args: tuple[Any, ...] = (caller, *Slots(offer.type.params).decode_plain(payload, SLOTS_AT))
        elif offer.pd == "pd_log":
            args = (Slots(("i32",)).decode_plain(payload, SLOTS_AT)[0], *blobs)
        else:
            args = blobs
        context = contextvars.copy_context()
        context.run(inside.set, (*inside.get(), self._port.operation))
        task = loop.create_task(guarded(hosted.fn, args), context=context)
        on_end = telling(task, lambda each: each.cancel())
        handle.when_ended(on_end)
        try:
            await held(task, lambda: (handle.condemn(monitor.abandoned()), task.cancel()))
        finally:
            caller.end()
            handle.forget(on_end)
        # Cancelled: the function's own doing, or for its worker's end.
        value = Raised(asyncio.CancelledError()) if task.cancelled() else task.result()
        fault, caller.fault = caller.fault, None
        faulty = isinstance(value, Raised) and value.error is fault
        del fault  # as in `Raised.again`
        if isinstance(value, Raised) and faulty:
            value.again()
        replay = Callback(Offer(offer.type, _replay(value), offer.pd))
        replay.run(memory, payload, SLOTS_AT, blobs, self._channel.out, HEADER_BYTES)

    async def _stream(self, kind: int, payload: memoryview | bytes, watch: monitor.Watch) -> None:
        """Do what the guest asks of its streams, and answer."""
        if kind == m.STREAM_OUT:
            return
        channel, handle, state, port = self._channel, self._handle, self._state, self._port
        streams = state.streams
        if streams is None:
            raise channel.broke("a guest that has no streams")
        state.served += 1
        if state.error is not None:
            return  # the answer is on its way
        reply: m.StreamReply | None = None
        self._bound(watch)
        try:
            if streams.may_wait(kind, payload):
                job = self._streaming.start(lambda: streams.serve(kind, payload, watch))
                await held(job, lambda: handle.condemn(monitor.abandoned()))
                reply = job.result()
            else:
                port.in_callback = True
                reply = streams.serve(kind, payload, watch)
        except ProtocolError as exc:
            raise channel.broke(str(exc)) from exc
        except CallError as exc:
            if exc.cause is not Cause.HOST_FUNCTION:
                raise
            state.fail(exc, of_log=False)
        finally:
            port.in_callback = False
            self._housekeeper.unwatch_host_calls(handle)
        verdict = handle.verdict if handle.attention else None
        if verdict is not None:
            raise verdict
        if reply is None:
            await port.send(m.HOST_FAIL, HOST_FAIL, watch)
        else:
            await port.send(m.STREAM_REPLY, reply.frame(), watch)


def _replay(value: Any) -> Callable[..., Any]:
    """A function that does what a coroutine has done."""

    def function(*_args: Any) -> Any:
        if isinstance(value, Raised):
            value.again()
        return value

    return function
