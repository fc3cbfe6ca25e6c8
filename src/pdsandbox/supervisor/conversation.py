"""What the supervisor says to one worker, and what it makes of the answers. Used by the holder of the turn only.

Every operation marks the worker busy before its first byte is written and idle after a whole valid reply; whoever
gives the turn back kills a worker that is still busy. A reply that is not legal, not whole, or makes no sense is a
verdict. Host functions run here, in the thread of the call; what they raise stays here.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Final

from ..callbacks import Callback
from ..calls import FuelMeter
from ..errors import CallError, Cause, CompileError, InstantiationError, MemoryAccessError, TrapCode, WasmError
from ..externs import FuncType
from ..limits import Limits
from ..platform import os_
from ..protocol import messages as m
from ..protocol.frames import HEADER
from ..slots import SLOT_BYTES
from ..values import WasmVal
from . import monitor
from .calling import Export, Spin
from .channel import Channel
from .housekeeper import Housekeeper
from .memory import HostMemory, RemoteMemory

_FRAME_SLACK: Final = 64 << 10  # headers, and the slots of one host call (at most 1,000 of 16 bytes)
# Calls further apart than this are not worth a core between them.
CLOSE_S: Final = 1e-3
# A sample of resident memory takes 4 us: at most 0.4 % of the time.
LOOK_S: Final = 1e-3
_HOST_FAIL: Final = m.HostFail().frame()


class Conversation:
    """See the module's text."""

    def __init__(
        self,
        channel: Channel,
        callbacks: list[Callback],
        *,
        limits: Limits,
        fuel: FuelMeter,
        housekeeper: Housekeeper,
        spin: Spin,
        interruptible: bool,
        first: Mapping[str, Export] = {},
    ) -> None:
        self.handle = channel.handle
        self._interruptible = interruptible
        self.fuel = fuel
        self.busy = False
        self._ended_at = -math.inf  # when the last call was answered
        self._looked_at = -math.inf
        self._close = False  # whether this one follows closely
        self.exports = dict(first)  # those that the worker has numbered
        self.served = 0  # host calls over the worker's life: whether guest code may have been seen outside
        self.turn = channel.handle.turn
        self.memory = RemoteMemory(channel)
        self._channel = channel
        self._callbacks = callbacks
        self._limits = limits
        self._housekeeper = housekeeper
        self._spin = spin
        self._host_error: BaseException | None = None
        self._host_calls = 0
        self._host_bytes = 0
        channel.cap = max(m.SMALL_CAP, limits.message_bytes) + _FRAME_SLACK

    def begin(self, started: float, wall_s: float | None, *, call: bool = False) -> monitor.Watch:
        """An operation starts (its time counts from `started`): from here on, leaving means killing.

        `call`: it is one that runs guest code in an instance that stands, so that it can be interrupted.
        """
        self._close = started - self._ended_at < CLOSE_S
        if wall_s is None or started + 1.5 * wall_s > self.handle.cpu_until:
            self.handle.allow_cpu(started, wall_s)
        deadline = math.inf if wall_s is None else started + wall_s
        watch = monitor.Watch(wall_s, deadline, self._limits.rss_bytes, call and self._interruptible)
        if started - self._looked_at > LOOK_S:
            self._look(started, watch)
        self._channel.interrupted = False
        self.handle.watch = watch
        self._host_calls = self._host_bytes = 0
        self.busy = True
        return watch

    def _look(self, now: float, watch: monitor.Watch) -> None:
        """Judge the worker between two messages: calls, and host calls, that follow closely are answered before anybody
        waits, and it is waiting that judges. A guest that can be interrupted at its deadline is left to that."""
        self._looked_at = now
        resident = 0 if watch.rss_bytes is None else self.handle.read_resident()
        verdict = monitor.over(now, resident, watch)
        if verdict is not None and not (watch.interruptible and verdict.cause is Cause.WALL):
            raise self.handle.condemn(verdict)

    # --- loading ---

    def send_load(self, load: m.Load, artifact: int | None, start: monitor.Watch) -> None:
        """LOAD, ahead of READY. To a spare, over the socket, the artifact (a descriptor, which stays the caller's)."""
        self.busy = True
        ends = self.handle.ends
        if artifact is not None:
            sock = socket.socket(fileno=ends.socket)
            try:
                os_.send_fds(sock, b"\0", [artifact], socket.MSG_DONTWAIT)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it has died: the answer to LOAD will tell how
            finally:
                sock.detach()
        if self._interruptible:
            os.set_blocking(ends.socket, False)
        else:
            os.close(ends.take_socket())
        self._channel.send(m.LOAD, load.frame(), start)

    def await_loaded(self, watch: monitor.Watch) -> None:
        """LOADED, with whatever the start function asks for in between."""
        budget = self.fuel.begin()
        kind, payload = self._converse(*self._channel.receive(watch), watch, spin=False)
        if kind == m.LOADED:
            self._settle(self._channel.decode(m.Loaded, payload).fuel, budget)
            self.busy = False
            self._ended_at = time.monotonic()
            return
        error = self._failure(kind, payload, budget, m.Failure.OF_LOAD)
        if isinstance(error, CompileError):  # our own artifact cannot be loaded, here and now
            raise InstantiationError(error.message, cause=Cause.HOST)
        if isinstance(error, CallError | MemoryAccessError):
            wrapped = InstantiationError(f"start function: {error.message}", cause=error.cause, limit=error.limit)
            raise wrapped from (error.__cause__ or error)
        raise error

    # --- operations ---

    def export(self, name: str, type_: FuncType) -> Export:
        """An export that the worker does not know yet: its first call says RESOLVE, and calls without waiting."""
        return Export(len(self.exports), type_, name)

    def _resolve_and_send(self, export: Export, kind: int, frame: bytes, watch: monitor.Watch) -> None:
        """RESOLVE and `frame` in one write."""
        assert export.unresolved is not None
        name = export.unresolved
        self._channel.send_two(m.RESOLVE, m.Resolve(export.type, name.encode("utf-8")).frame(), kind, frame, watch)
        self.exports[name] = export
        export.unresolved = None

    def call(self, export: Export, data: bytes, budget: int, watch: monitor.Watch) -> bytes:
        """One CALL; the payload of its RESULT."""
        spin, channel = self._spin, self._channel
        spin.running.add(self.handle)
        try:
            spinning = self._close and len(spin.running) <= spin.most
            head = m.CALL_LAYOUT.pack(export.number, spinning, budget, _micros(watch.wall_s))
            frame = b"".join((export.call_head, head, data))
            if export.unresolved is None:
                channel.send(m.CALL, frame, watch)
            else:
                self._resolve_and_send(export, m.CALL, frame, watch)
            kind, payload = channel.receive(watch, spin=spinning)
            if kind == m.HOST_CALL:
                kind, payload = self._converse(kind, payload, watch, spin=spinning)
        finally:
            spin.running.discard(self.handle)
        if channel.interrupted:
            raise self._stopped(kind, payload, budget, watch)
        if kind == m.RESULT and len(payload) == m.RESULT_LAYOUT.size + export.results.nbytes:
            self._settle(m.RESULT_LAYOUT.unpack_from(payload)[0], budget)
            self.busy = False
            self._ended_at = time.monotonic()
            return bytes(payload)
        raise self._failure(kind, payload, budget)

    def batch(
        self, export: Export, rows: list[bytes], results: list[list[WasmVal]], budget: int, watch: monitor.Watch
    ) -> int:
        """One CALL_MANY; appends its rows' results and returns the fuel used."""
        spin, channel = self._spin, self._channel
        stride, width = export.stride, export.stride // SLOT_BYTES
        padding = bytes(stride - export.params.nbytes)
        data = padding.join(rows) + padding
        spin.running.add(self.handle)
        try:
            spinning = self._close and len(spin.running) <= spin.most
            flags = spinning | (m.CONTINUED if results else 0)
            head = m.CALL_MANY_LAYOUT.pack(export.number, flags, budget, _micros(watch.wall_s), len(rows), width)
            frame = b"".join((HEADER.pack(len(head) + len(data), m.CALL_MANY), head, data))
            if export.unresolved is None:
                channel.send(m.CALL_MANY, frame, watch)
            else:
                self._resolve_and_send(export, m.CALL_MANY, frame, watch)
            kind, payload = self._converse(*channel.receive(watch, spin=spinning), watch, spin=spinning)
        finally:
            spin.running.discard(self.handle)
        if kind != m.RESULTS:
            raise self._channel.broke("RESULTS was due")
        reply = self._channel.decode(m.Results, payload)
        if reply.width != width or reply.done > len(rows) or reply.failed != (reply.done < len(rows)):
            raise self._channel.broke("a batch's reply does not match its rows")
        if self._host_error is not None and not reply.failed:
            raise self._channel.broke("it went on after its host function had failed")
        self._settle(reply.fuel, budget)
        decode = export.results.decode
        results += [decode(reply.slots, row * stride) for row in range(reply.done)]
        if channel.interrupted or reply.failed:
            if not reply.failed:
                raise self.handle.condemn(monitor.wall_exceeded(watch.wall_s))
            kind, payload = channel.receive(watch)
            error = self._stopped(kind, payload, 0, watch) if channel.interrupted else self._failure(kind, payload, 0)
            error.row, error.results = len(results), results
            raise error
        return int(reply.fuel)

    # --- host functions: the guest asks, in the thread of the call ---

    def _converse(
        self, kind: int, payload: memoryview | bytes, watch: monitor.Watch, *, spin: bool
    ) -> tuple[int, memoryview | bytes]:
        """Serve host calls until something else comes. One that failed ends the call: only that may be said then."""
        while kind == m.HOST_CALL:
            now = time.monotonic()
            if now - self._looked_at > LOOK_S:
                self._look(now, watch)
            self._serve(self._channel.decode(m.HostCall, payload), watch)
            kind, payload = self._channel.receive(watch, spin=spin)
            if self._host_error is not None and kind not in (m.ERROR, m.RESULTS):
                raise self._channel.broke("it went on after its host function had failed")
        return kind, payload

    def _serve(self, request: m.HostCall, watch: monitor.Watch) -> None:
        handle, housekeeper = self.handle, self._housekeeper
        callback = self._callback(request)
        blobs = _BLOBS.get(callback.offer.pd, _no_blobs)(request)
        answer: bytes | None = None
        housekeeper.watch_host_call(handle, watch.deadline)
        try:
            answer = callback.run(HostMemory(self.memory, self.turn, watch), request.slots, blobs)
        except (CallError, MemoryAccessError) as exc:  # all that a callback's failure can be
            self._host_error = exc
        finally:
            housekeeper.unwatch_host_call(handle)
        verdict = handle.verdict
        if verdict is not None:
            raise verdict  # the housekeeper's, at the deadline; or close, or kill
        if answer is None:
            self._channel.send(m.HOST_FAIL, _HOST_FAIL, watch)
        else:
            self._channel.send(m.HOST_RETURN, m.HostReturn(answer).frame(), watch)

    def _callback(self, request: m.HostCall) -> Callback:
        """The function asked for. The worker keeps the same limits: a request that passes one breaks the protocol."""
        if request.index >= len(self._callbacks):
            raise self._channel.broke(f"there is no host function {request.index}")
        callback, limits = self._callbacks[request.index], self._limits
        if len(request.slots) != len(callback.offer.type.params) * SLOT_BYTES:
            raise self._channel.broke("a host call's slots do not match the function's type")
        blob_bytes = len(request.first) + len(request.second)
        self.served += 1
        self._host_calls += 1
        self._host_bytes += blob_bytes + len(request.slots)
        most_calls, most_bytes = limits.host_calls, limits.host_call_bytes
        if (
            (most_calls is not None and self._host_calls > most_calls)
            or (most_bytes is not None and self._host_bytes > most_bytes)
            or blob_bytes > limits.message_bytes
        ):
            raise self._channel.broke("a host call over the limits that the worker itself keeps")
        return callback

    # --- replies ---

    def _failure(
        self, kind: int, payload: memoryview | bytes, budget: int, legal: frozenset[int] = m.Failure.OF_CALL
    ) -> WasmError:
        """The error that a reply other than the expected one stands for; the worker is idle again."""
        if kind != m.ERROR:
            raise self._channel.broke("a reply of the wrong size")
        message = self._channel.decode(m.Error, payload)
        if message.failure not in legal:
            raise self._channel.broke(f"an error of kind {message.failure}, which this cannot end in")
        self._settle(message.fuel, budget)
        original, self._host_error = self._host_error, None
        remote = message.failure in (m.Failure.REMOTE, m.Failure.START_REMOTE)
        if remote != (original is not None):
            raise self._channel.broke("it tells of a failure that cannot have happened")
        starved = self.handle.starved(message)
        if starved is not None:
            return starved
        self.busy = False
        if original is None:
            return monitor.failure(message)
        if isinstance(original, WasmError):
            return original
        return CallError("host function failed", cause=Cause.HOST_FUNCTION)

    def _stopped(self, kind: int, payload: memoryview | bytes, budget: int, watch: monitor.Watch) -> WasmError:
        """The deadline's verdict after an interrupt; only the interrupt's own trap proves that none is under way."""
        verdict = monitor.wall_exceeded(watch.wall_s)
        if kind == m.ERROR:
            message = self._channel.decode(m.Error, payload)
            trapped = message.failure == m.Failure.TRAP and message.trap_code == TrapCode.INTERRUPT.value
            if trapped and self._host_error is None:
                self._settle(message.fuel, budget)
                self.busy = False
                return verdict
        return self.handle.condemn(verdict)

    def _settle(self, used: int, budget: int) -> None:
        """Book the fuel that the worker reports, after checking it for sense."""
        if used > budget:
            raise self._channel.broke("more fuel used than there was")
        self.fuel.settle(used)


def _no_blobs(_request: m.HostCall) -> tuple[bytes, ...]:
    return ()


_BLOBS: Final[dict[str | None, Callable[[m.HostCall], tuple[bytes, ...]]]] = {
    "pd_send": lambda request: (request.first, request.second),
    "pd_log": lambda request: (request.first,),
}


def _micros(wall_s: float | None) -> int:
    """For the worker's own timer; 0: none."""
    return 0 if wall_s is None else max(1, int(wall_s * 1e6))
