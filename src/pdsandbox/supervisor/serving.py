"""The guest's calls to host functions, served in the thread of its call. Used by the holder of the turn only.

What a function raises stays here (`error`); the worker is told that it failed, no more. `pd_log` waits for no answer:
when one fails, HOST_FAIL goes out at once and the worker finds it at its next host call, or has finished by then;
what it asked for in between is not carried out, and the call ends with that failure either way. A worker that does
not live to end the call is told of as what it died of, with that failure chained: whoever asks must know that it is
gone.
"""

from __future__ import annotations

import functools
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from .. import cargs
from ..callbacks import Callback
from ..errors import CallError, Cause, MemoryAccessError, WasmError
from ..limits import Limits
from ..platform import os_
from ..protocol import messages as m
from ..protocol.codec import ProtocolError
from ..protocol.frames import HEADER, HEADER_BYTES
from . import monitor
from .channel import SPIN_S, Channel
from .housekeeper import Housekeeper
from .memory import HostMemory, RemoteMemory

if TYPE_CHECKING:
    from .streams import Streams

_read: Final = os_.read_raw
_write: Final = os_.write_raw
_HEADER: Final = struct.Struct("<II")
# A whole frame up to its slots. The header's three zero bytes make its kind a number of 32 bits.
_HOST_CALL: Final = struct.Struct("<II" + m.HOST_CALL_LAYOUT.format[1:])
_SLOTS_IN_VIEW: Final = _HOST_CALL.size
_LEAST: Final = _HOST_CALL.size
# Between two looks at a worker whose host calls follow each other closely; reading the clock is cheaper than asking.
_LOOK_S: Final = 500e-6


@functools.cache
def _size(nbytes: int) -> Any:
    """At most as many as there are numbers of results."""
    return cargs.size(nbytes)


HOST_FAIL: Final = m.HostFail().frame()
_ASIDES: Final = m.ASIDES
_OF_WASI: Final = m.OF_WASI


class Serving:
    """See the module's text.

    error   what a host function of this operation raised
    served  host calls over the worker's life: whether guest code may have been seen outside
    look    judges the worker, now and then: (time, watch)
    streams the guest's standard streams; None where there are none
    """

    def __init__(
        self,
        channel: Channel,
        callbacks: list[Callback],
        memory: RemoteMemory,
        turn: Any,
        limits: Limits,
        housekeeper: Housekeeper,
        look: Callable[[float, monitor.Watch], None],
    ) -> None:
        self.error: WasmError | None = None
        self.served = 0
        self._channel = channel
        channel.reserve(max((HEADER_BYTES + callback.nresults for callback in callbacks), default=0))
        self._handle = channel.handle
        self._callbacks = callbacks
        self._sizes = [_size(HEADER_BYTES + callback.nresults) for callback in callbacks]  # of their answers
        self._memory = memory
        self._turn = turn
        self._limits = limits
        self._housekeeper = housekeeper
        self._look = look
        self.streams: Streams | None = None
        self._log_failed = False
        self._calls_left: float = 0
        self._bytes_left: float = 0

    def begin(self) -> None:
        """A new operation."""
        limits = self._limits
        self._calls_left = _NEVER if limits.host_calls is None else limits.host_calls
        self._bytes_left = _NEVER if limits.host_call_bytes is None else limits.host_call_bytes
        self.error = None
        self._log_failed = False

    def converse(
        self, kind: int, payload: memoryview | bytes, watch: monitor.Watch, *, spin: bool
    ) -> tuple[int, memoryview | bytes]:
        """Serve host calls until something else comes. One that failed ends the call: only that may be said then."""
        handle, housekeeper = self._handle, self._housekeeper
        memory = HostMemory(self._memory, self._turn, watch, self._look)
        housekeeper.watch_host_calls(handle)
        try:
            while kind in _ASIDES:
                if kind in _OF_WASI:
                    answered = None
                    if kind == m.STREAM_OUT:
                        self.keep(payload)  # whatever comes of the look
                    self._look(time.monotonic(), watch)
                    self._stream(kind, payload, watch)
                else:
                    self._look(time.monotonic(), watch)
                    answered = self._serve(kind, payload, memory, watch)
                if answered is not None:
                    kind, payload = self._answer(answered, watch, spin)
                    if spin and kind == m.HOST_CALL and isinstance(payload, memoryview):  # it stands in `view`
                        kind, payload = self._closely(HEADER_BYTES + len(payload), memory, watch)
                    continue
                kind, payload = self._receive(watch, spin=spin)
        except WasmError as exc:
            self.after_all(exc)
            raise
        finally:
            housekeeper.unwatch_host_calls(handle)
        return kind, payload

    def after_all(self, verdict: WasmError) -> WasmError:
        """The verdict on the worker, chained to what a host function had raised before."""
        if self.error is not None:
            verdict.__cause__ = self.error
        return verdict

    def cannot_be(self, *, remote: bool) -> bool:
        """Whether a reply's account of host functions contradicts ours. `remote`: it says that one failed."""
        return remote != (self.error is not None) and not (self._log_failed and not remote)

    @property
    def must_end(self) -> bool:
        """Whether a function has failed that the guest waits for: only the end of its call may be said then."""
        return self.error is not None and not self._log_failed

    def fail(self, failure: WasmError, *, of_log: bool) -> None:
        """A host function has failed. `of_log`: one that the guest does not wait for."""
        self.error, self._log_failed = failure, of_log

    def take_error(self) -> WasmError:
        """What a host function raised; it is told once."""
        error, self.error = self.error, None
        assert error is not None
        return error

    def _answer(self, callback: Callback, watch: monitor.Watch, spin: bool) -> tuple[int, memoryview | bytes]:
        """HOST_RETURN with the results that stand in `out`, and what comes next.

        For a guest that calls again and again this is one write and a few reads; `Orders` would end where it began.
        """
        channel, size = self._channel, HEADER_BYTES + callback.nresults
        self._check_silent()
        HEADER.pack_into(channel.out, 0, callback.nresults, m.HOST_RETURN)
        done = _write(channel.writing, channel.out_at, _size(size))
        got = _read(*channel.reading)
        if got < 0 and spin and done == size:
            got = channel.in_call.read(*channel.reading, time.monotonic() + SPIN_S)
        if got >= _LEAST and done == size:
            length, kind = _HEADER.unpack_from(channel.view)
            if kind == m.HOST_CALL and got == HEADER_BYTES + length:
                return kind, channel.view[HEADER_BYTES:got]
        channel.resume(m.HOST_RETURN, channel.out[:size], done, got, watch)
        return channel.receive(watch)

    def _closely(self, got: int, memory: HostMemory, watch: monitor.Watch) -> tuple[int, memoryview | bytes]:
        """A HOST_CALL of `got` bytes stands in `view`: serve it, and those that follow closely. What comes then.

        It is `_serve` and `_answer` written out for functions that take no bytes along. A request that anything is
        wrong with is left to those, who say what.
        """
        channel, handle, housekeeper, remote = self._channel, self._handle, self._housekeeper, self._memory
        callbacks, sizes, view, out, reading = self._callbacks, self._sizes, channel.view, channel.out, channel.reading
        deadline, clock, look_at, in_call = watch.deadline, time.monotonic, 0.0, channel.in_call
        kind, done, nbytes = m.HOST_CALL, 0, 0
        while done == nbytes and got >= _LEAST:
            length, kind, index, nslots, first, second, base, size = _HOST_CALL.unpack_from(view)
            if kind != m.HOST_CALL or got != HEADER_BYTES + length or index >= len(callbacks) or first or second:
                break
            callback = callbacks[index]
            if nslots != callback.nargs or got != _SLOTS_IN_VIEW + nslots or callback.blobs:
                break
            if self._calls_left < 1 or self._bytes_left < nslots:
                break
            now = clock()
            if now >= look_at:
                look_at = now + _LOOK_S
                self._look(now, watch)
            remote.where = base, size
            self.served += 1
            self._calls_left -= 1
            self._bytes_left -= nslots
            failure: WasmError | None = None
            handle.host_deadline = deadline
            try:
                if deadline < housekeeper.next_wake:
                    housekeeper.wake()
                callback.run(memory, view, _SLOTS_IN_VIEW, (), out, HEADER_BYTES)
            except (CallError, MemoryAccessError) as exc:
                failure = exc
            finally:
                handle.host_deadline = None
            if failure is not None or handle.attention or memory.torn or channel.held:
                failed = failure is not None
                try:
                    self._judge(kind, failure, memory, watch)
                finally:
                    failure = None  # as in `Slots.encode`
                if failed:
                    return self._receive(watch)
                self._check_silent()
            nbytes = HEADER_BYTES + callback.nresults
            _HEADER.pack_into(out, 0, callback.nresults, m.HOST_RETURN)
            done = _write(channel.writing, channel.out_at, sizes[index])
            for _ in in_call.quick:
                got = _read(*reading)
                if got >= 0:
                    break
            if got < 0 and done == nbytes:
                got = in_call.read(*reading, clock() + SPIN_S)
        if not nbytes:
            return kind, view[HEADER_BYTES:got]
        channel.resume(m.HOST_RETURN, out[:nbytes], done, got, watch)
        return channel.receive(watch)

    def _check_silent(self) -> None:
        """The verdict on a worker that talks while it waits for an answer."""
        if self._channel.held:
            raise self._channel.broke("it said more than it was asked")

    def _receive(self, watch: monitor.Watch, *, spin: bool = False) -> tuple[int, memoryview | bytes]:
        """What comes when no answer was due, or a failure was told."""
        kind, payload = self._channel.receive(watch, spin=spin)
        if self.must_end and kind not in (m.ERROR, m.RESULTS):
            raise self._channel.broke("it went on after its host function had failed")
        return kind, payload

    def _serve(
        self, kind: int, payload: memoryview | bytes, memory: HostMemory, watch: monitor.Watch
    ) -> Callback | None:
        """Run the function asked for; its callback, if an answer is due and stands in `out`."""
        channel, handle, housekeeper = self._channel, self._handle, self._housekeeper
        callback, blobs = self.request(payload)
        if kind == m.HOST_LOG and callback.offer.pd != "pd_log":
            raise channel.broke("only pd_log needs no answer")
        if self.error is not None:
            return None  # the answer is on its way
        failure: WasmError | None = None
        handle.host_deadline = watch.deadline
        try:
            if watch.deadline < housekeeper.next_wake:
                housekeeper.wake()
            callback.run(memory, payload, SLOTS_AT, blobs, channel.out, HEADER_BYTES)
        except (CallError, MemoryAccessError) as exc:  # all that a callback's failure can be
            failure = exc
        finally:
            handle.host_deadline = None
        done = failure is None
        try:
            self._judge(kind, failure, memory, watch)
        finally:
            failure = None  # as in `Slots.encode`
        return callback if done and kind == m.HOST_CALL else None

    def _judge(self, kind: int, failure: WasmError | None, memory: HostMemory, watch: monitor.Watch) -> None:
        """A host function has returned, or failed: then the worker is told. Raises the verdict on a worker that is not
        to hear anything any more."""
        handle = self._handle
        verdict = handle.verdict if handle.attention else None
        if verdict is not None:
            raise verdict  # the housekeeper's, at the deadline; or close, or kill
        if memory.torn:
            raise handle.condemn(monitor.abandoned()) from failure
        if failure is not None:
            self.fail(failure, of_log=kind == m.HOST_LOG)
            self._channel.send(m.HOST_FAIL, HOST_FAIL, watch)

    def harvest(self) -> None:
        """The operation is being left half-way: keep what the worker had said of output."""
        if self.streams is not None:
            self.streams.harvest()

    def keep(self, payload: memoryview | bytes) -> None:
        """Output to a stream that is captured. Raises the verdict on nonsense."""
        if self.streams is None:
            raise self._channel.broke("output of a guest that has no streams")
        if self.error is None:  # else the guest's call is over, and it does not know yet
            try:
                self.streams.keep(payload)
            except ProtocolError as exc:
                raise self._channel.broke(str(exc)) from exc

    def _stream(self, kind: int, payload: memoryview | bytes, watch: monitor.Watch) -> None:
        """Do what the guest asks of its streams, and answer."""
        if kind == m.STREAM_OUT:
            return
        channel, handle, housekeeper, streams = self._channel, self._handle, self._housekeeper, self.streams
        if streams is None:
            raise channel.broke("a guest that has no streams")
        self.served += 1
        if self.error is not None:
            return  # the answer is on its way
        reply: m.StreamReply | None = None
        handle.host_deadline = watch.deadline  # the user's own code may be behind it
        try:
            if watch.deadline < housekeeper.next_wake:
                housekeeper.wake()
            reply = streams.serve(kind, payload, watch)
        except ProtocolError as exc:
            raise channel.broke(str(exc)) from exc
        except CallError as exc:
            if exc.cause is not Cause.HOST_FUNCTION:
                raise
            self.error = exc
        finally:
            handle.host_deadline = None
        verdict = handle.verdict if handle.attention else None
        if verdict is not None:
            raise verdict
        if reply is None:
            channel.send(m.HOST_FAIL, HOST_FAIL, watch)
        else:
            channel.send(m.STREAM_REPLY, reply.frame(), watch)

    def request(self, payload: memoryview | bytes) -> tuple[Callback, tuple[bytes, ...]]:
        """The function asked for, and the bytes that came along. The worker keeps the same limits: a request that
        passes one breaks the protocol."""
        channel = self._channel
        try:
            index, nslots, first, second, base, size = _LAYOUT.unpack_from(payload)
        except struct.error:
            raise channel.broke("a host call is cut short") from None
        extra = first + second
        if SLOTS_AT + nslots + extra != len(payload):
            raise channel.broke("a host call's lengths do not add up")
        if index >= len(self._callbacks):
            raise channel.broke(f"there is no host function {index}")
        callback = self._callbacks[index]
        if nslots != callback.nargs:
            raise channel.broke("a host call's slots do not match the function's type")
        self._memory.where = base, size
        self.served += 1
        self._calls_left -= 1
        self._bytes_left -= extra + nslots
        if self._calls_left < 0 or self._bytes_left < 0 or extra > self._limits.message_bytes:
            raise channel.broke("a host call over the limits that the worker itself keeps")
        pd = callback.offer.pd
        if pd is None or pd == "pd_now_micros":
            if extra:
                raise channel.broke("a host call with bytes that its function does not take")
            return callback, ()
        at = SLOTS_AT + nslots
        middle = at + first
        if pd == "pd_log":
            if second:
                raise channel.broke("a host call with bytes that its function does not take")
            return callback, (bytes(payload[at:middle]),)
        return callback, (bytes(payload[at:middle]), bytes(payload[middle:]))


_LAYOUT: Final = m.HOST_CALL_LAYOUT
SLOTS_AT: Final = m.HOST_CALL_LAYOUT.size
_NEVER: Final = float("inf")
