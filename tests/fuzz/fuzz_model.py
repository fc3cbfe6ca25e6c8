"""What the supervisor must say to a stream of bytes, worked out afterwards and simply: the whole stream is there,
nothing waits, nothing is sent. It shares the codec with the supervisor, which has a fuzzer of its own, and nothing
else.

One freedom: what the peer said too early may be noticed when the supervisor speaks next, or be taken for the reply that
is due then; that depends on how reads fell. Both are allowed (`may_break`).
"""

from __future__ import annotations

import struct
from typing import Any, NoReturn

import fuzz_scenes as scenes
from fuzz_mutations import MEMORY_AT, MEMORY_BYTES
from fuzz_peer import MEMORY as BYTES
from fuzz_peer import PIPE_BYTES

from pdsandbox import Output
from pdsandbox import errors as e
from pdsandbox.errors import Cause, WasmError
from pdsandbox.protocol import messages as m
from pdsandbox.protocol.codec import ProtocolError
from pdsandbox.slots import Slots

Verdict = tuple[type[WasmError], Cause]

PROTOCOL: Verdict = (e.WorkerCrashed, Cause.PROTOCOL)
WALL: Verdict = (e.WallClockExceeded, Cause.WALL)
NOT_STARTED: Verdict = (e.InstantiationError, Cause.HOST)
RAISED: Verdict = (e.CallError, Cause.HOST_FUNCTION)
MEMORY: Verdict = (e.MemoryAccessError, Cause.MEMORY)

F = m.Failure
#: What a call's ERROR means.
IN_CALL: dict[int, Verdict] = {
    F.TRAP: (e.Trap, Cause.GUEST_TRAP),
    F.FUEL: (e.FuelExhausted, Cause.FUEL),
    F.MEMORY: MEMORY,
    F.CALL: (e.CallError, Cause.USAGE),
    F.HOST_FUNCTION: RAISED,
    F.HOST_LIMIT: RAISED,
    F.GUEST_EXIT: (e.GuestExit, Cause.GUEST_EXIT),
    F.ENGINE: (e.CallError, Cause.EXIT),
}
#: And a LOAD's.
IN_LOAD: dict[int, Verdict] = {
    F.FUEL: (e.FuelExhausted, Cause.FUEL),
    F.GUEST_EXIT: (e.GuestExit, Cause.GUEST_EXIT),
    F.LINK: (e.InstantiationError, Cause.LINK),
    F.START_HOST: NOT_STARTED,
    F.COMPILE: NOT_STARTED,  # the artifact could not be loaded
    F.START_TRAP: (e.InstantiationError, Cause.GUEST_TRAP),
    F.START_MEMORY: (e.InstantiationError, Cause.MEMORY),
    F.START_HOST_FUNCTION: (e.InstantiationError, Cause.HOST_FUNCTION),
    F.CALL: (e.InstantiationError, Cause.USAGE),
    F.ENGINE: (e.InstantiationError, Cause.EXIT),
}
CALL_CAP = m.SMALL_CAP + (64 << 10)


class Told(Exception):
    """The operation ends with this; `fatal`: and the worker with it."""

    def __init__(self, verdict: Verdict, *, fatal: bool = True) -> None:
        self.verdict = verdict
        self.fatal = fatal


class Model:
    """Reads what `peer` has said, from where the last operation stopped."""

    def __init__(self, peer: Any, *, wasi: bool = False) -> None:
        self._peer = peer
        self._wasi = wasi
        self._told = 0  # bytes of standard output since it was last taken
        self.kept = b""  # what is kept of them
        self._interrupted = False
        self._at = 0
        self._where = (0, 0)  # of the guest's memory, as it said last
        self._sent = 0
        self._log_failed = False
        self.may_break = False
        self.look()

    def look(self, *, interrupted: bool = False) -> None:
        """The peer may have said more since; `interrupted`: the operation was."""
        self._data = self._peer.stream()
        self._interrupted = interrupted
        self.may_break = False

    # --- the stream ---

    def _broke(self) -> NoReturn:
        raise Told(PROTOCOL)

    def _take(self, cap: int, legal: set[int], silence: Verdict = WALL) -> tuple[int, bytes]:
        left = self._data[self._at :]
        if len(left) >= 8:
            length, kind, reserved = struct.unpack_from("<IB3s", left)
            if reserved != b"\0\0\0" or length > cap:
                self._broke()
            if len(left) >= 8 + length:
                self._at += 8 + length
                if kind not in legal:
                    self._broke()
                return kind, left[8 : 8 + length]
        if self._peer.end is None:
            raise Told(silence)
        if self._peer.end[0] == "close":
            self._broke()
        raise Told((e.WorkerCrashed, Cause.EXIT if self._peer.end[1] is None else Cause.SIGNAL))

    def _decode(self, cls: Any, payload: bytes) -> Any:
        try:
            return cls.decode(payload)
        except ProtocolError:
            self._broke()

    def _sends(self, size: int = 0) -> None:
        self._sent += 1
        self.may_break |= self._sent > 1 and self._peer.early(self._at, self._sent)
        if self._peer.deaf and self._peer.heard < self._sent and size > PIPE_BYTES:
            raise Told(WALL)

    # --- the operations ---

    def load(self) -> None:
        """READY and LOADED, or why not."""
        self._sends()
        self._take(CALL_CAP, {m.READY}, NOT_STARTED)
        kind, payload, failed = self._converse(m.LOADED)
        if kind == m.LOADED:
            loaded = self._decode(m.Loaded, payload)
            self._settle(loaded.fuel, scenes.FUEL)
            self._where = loaded.base, loaded.size
            return
        message = self._decode(m.Error, payload)
        self._settle(message.fuel, scenes.FUEL)
        if (message.failure in (F.REMOTE, F.START_REMOTE)) != (failed is not None):
            self._broke()
        if failed is not None:
            raise Told((e.InstantiationError, failed[1]))
        if message.failure not in IN_LOAD:
            self._broke()
        raise Told(IN_LOAD[message.failure])

    def call(self, name: str, _args: Any, budget: int) -> Any:
        """The results as (type, raw value), with the fuel used."""
        results = Slots(scenes.EXPORTS[name].results)
        self._sends()
        kind, payload, failed = self._converse(m.RESULT)
        if self._interrupted:
            self._stopped(kind, payload, budget, failed)
        if kind == m.RESULT and len(payload) == 24 + results.nbytes:
            used, *where = struct.unpack_from("<QQQ", payload)
            self._settle(used, budget)
            self._where = tuple(where)
            if failed is not None:
                raise Told(failed, fatal=False)
            return results.make(results.raw_values(payload, 24))
        if kind == m.RESULT:
            self._broke()
        raise self._failure(payload, budget, failed)

    def call_many(self, name: str, rows: Any, budget: int) -> Any:
        type_ = scenes.EXPORTS[name]
        width = max(len(type_.params), len(type_.results))
        most = scenes.LIMITS.message_bytes // (16 * width)
        done: list[Any] = []
        for at in range(0, len(rows), most):
            count = min(most, len(rows) - at)
            self._sends()
            _, payload, failed = self._converse(m.RESULTS)
            reply = self._decode(m.Results, payload)
            if reply.width != width or reply.done > count or reply.failed != (reply.done < count):
                self._broke()
            if failed is not None and not reply.failed:
                self._broke()
            self._settle(reply.fuel, budget)
            self._where = reply.base, reply.size
            budget -= reply.fuel
            slots = Slots(type_.results)
            done += [slots.make(slots.raw_values(reply.slots, row * width * 16)) for row in range(reply.done)]
            if reply.failed:
                _, payload = self._take(CALL_CAP, {m.ERROR})
                raise self._failure(payload, 0, failed)
        return done

    def _copied(self, offset: int, length: int) -> bool:
        """Whether the kernel copies that; else the peer is asked."""
        base, size = self._where
        if not base:
            return False
        assert scenes.LIMITS.memory_bytes is not None
        if size > scenes.LIMITS.memory_bytes:
            self._broke()
        if offset + length > size:
            raise Told(MEMORY, fatal=False)
        if length and not self._peer.copies:
            return False
        if length and not 0 <= base + offset - MEMORY_AT <= MEMORY_BYTES - length:
            self._broke()
        return True

    def memory_read(self, offset: int, length: int) -> bytes:
        if self._copied(offset, length):
            at = self._where[0] + offset - MEMORY_AT
            return BYTES[at : at + length] if length else b""
        parts = b""
        while True:
            want = min(m.CHUNK_BYTES, length - len(parts))
            self._sends()
            kind, payload = self._memory_reply(first=not parts)
            if kind != m.MEM_DATA or len(payload) != want:
                self._broke()
            parts += payload
            if len(parts) == length:
                return parts

    def memory_write(self, offset: int, data: bytes) -> None:
        if self._copied(offset, len(data)):
            return
        done = 0
        while True:
            piece = min(m.CHUNK_BYTES, len(data) - done)
            self._sends(piece)
            kind, payload = self._memory_reply(first=not done)
            if kind != m.MEM_DONE or payload:
                self._broke()
            done += piece
            if done == len(data):
                return

    def memory_grow(self, _pages: int) -> int:
        self._sends()
        kind, payload = self._take(m.CHUNK_BYTES, {m.MEM_GROWN, m.ERROR})
        if kind == m.ERROR:
            if self._decode(m.Error, payload).failure != F.MEMORY:
                self._broke()
            raise Told(MEMORY, fatal=False)
        grown = self._decode(m.MemGrown, payload)
        self._where = grown.base, grown.size
        return int(grown.before)

    def _memory_reply(self, *, first: bool) -> tuple[int, bytes]:
        kind, payload = self._take(m.CHUNK_BYTES, {m.MEM_DATA, m.MEM_DONE, m.ERROR})
        if kind == m.ERROR:
            # The first message asked about the whole range.
            if self._decode(m.Error, payload).failure != F.MEMORY or not first:
                self._broke()
            raise Told(MEMORY, fatal=False)
        return kind, payload

    # --- host calls ---

    def _converse(self, due: int) -> tuple[int, bytes, Verdict | None]:
        """Serve host calls until something else comes; how the host function failed, if it did."""
        count = size = 0
        failed: Verdict | None = None
        self._log_failed = False
        legal = {due, m.HOST_CALL, *m.OF_WASI} | (set() if due == m.RESULTS else {m.ERROR})
        if due == m.RESULT:
            legal.add(m.HOST_LOG)
        while True:
            kind, payload = self._take(CALL_CAP, legal)
            # Whoever waits for a host function has heard that it failed; whoever logs may not have.
            ends = failed is not None and not self._log_failed
            if kind not in m.ASIDES:
                if ends and kind == due != m.RESULTS:
                    self._broke()  # the call was to end
                return kind, payload, failed
            if ends:
                self._broke()
            if kind in m.OF_WASI:
                failed = self._stream(kind, payload, failed)
                continue
            request = self._decode(m.HostCall, payload)
            if request.index >= len(scenes.HOST_TYPES):
                self._broke()
            if len(request.slots) != 16 * len(scenes.HOST_TYPES[request.index].params):
                self._broke()
            self._where = request.base, request.size
            blobs = len(request.first) + len(request.second)
            if blobs > (0, blobs, len(request.first), 0)[request.index]:
                self._broke()  # bytes that the function does not take
            if kind == m.HOST_LOG and request.index != 2:
                self._broke()  # only pd_log needs no answer
            count, size = count + 1, size + blobs + len(request.slots)
            limits = scenes.LIMITS
            assert limits.host_calls is not None
            assert limits.host_call_bytes is not None
            if count > limits.host_calls or size > limits.host_call_bytes or blobs > limits.message_bytes:
                self._broke()
            if failed is not None:
                continue  # it is not carried out
            failed = self._run(request)
            if failed is not None or kind == m.HOST_CALL:
                self._sends()
            self._log_failed = failed is not None and kind == m.HOST_LOG

    def _stream(self, kind: int, payload: bytes, failed: Verdict | None) -> Verdict | None:
        """What becomes of the guest's standard streams; how one failed, if one did."""
        if not self._wasi:
            self._broke()
        if failed is not None:
            return failed  # it is not carried out
        if not 4 <= len(payload) <= 4 + m.STREAM_BYTES or kind in (m.STREAM_POLL, m.LINK_TIMES):
            self._broke()
        number, data = int.from_bytes(payload[:4], "little"), payload[4:]
        if kind == m.STREAM_OUT:
            self._told += len(data)
            if number != 1 or not data or self._told > scenes.CAPTURED + 1:
                self._broke()
            self.kept = (self.kept + data)[: scenes.CAPTURED]
            return None
        if kind == m.STREAM_WRITE:
            if number != 2:
                self._broke()
            failed = RAISED if data.startswith(b"\0") else None
        else:
            if data or not number:
                self._broke()
            failed = RAISED if number == scenes.UNREADABLE else None
        self._sends()
        return failed

    def output(self) -> Output:
        """What was captured since the last time."""
        if self._told:
            self._sends()
        written = Output(self.kept, b"", self._told > scenes.CAPTURED)
        self._told, self.kept = 0, b""
        return written

    def _run(self, request: Any) -> Verdict | None:
        """What the scenes' host functions do."""
        if request.first.startswith(b"\0"):
            return RAISED
        if request.index:
            return None
        what = struct.unpack_from("<i", request.slots)[0] % 16
        for errand, offset, size in scenes.ERRANDS.get(what, []):
            try:
                if errand == "read":
                    self.memory_read(offset, size)
                else:
                    self.memory_write(offset, bytes(size))
            except Told as told:
                if told.fatal:
                    raise
                if what not in scenes.SWALLOWS:
                    return MEMORY
        return RAISED if what in (scenes.RAISES, scenes.RETURNS_NONSENSE) else None

    # --- replies ---

    def _settle(self, used: int, budget: int) -> None:
        if used > budget:
            self._broke()

    def _failure(self, payload: bytes, budget: int, failed: Verdict | None) -> Told:
        message = self._decode(m.Error, payload)
        self._settle(message.fuel, budget)
        self._where = message.base, message.size
        remote = message.failure == F.REMOTE
        if remote != (failed is not None) and (remote or not self._log_failed):
            self._broke()
        if message.failure not in IN_CALL and not remote:
            self._broke()
        if failed is not None:
            return Told(failed, fatal=False)
        return Told(IN_CALL[message.failure], fatal=False)

    def _stopped(self, kind: int, payload: bytes, budget: int, failed: Verdict | None) -> NoReturn:
        if kind == m.ERROR:
            message = self._decode(m.Error, payload)
            trapped = (message.failure, message.trap_code) == (F.TRAP, e.TrapCode.INTERRUPT.value)
            if trapped and (failed is None or self._log_failed):
                self._settle(message.fuel, budget)
                self._where = message.base, message.size
                raise Told(failed or WALL, fatal=False)
        raise Told(WALL)
