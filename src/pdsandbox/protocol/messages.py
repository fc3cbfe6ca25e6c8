"""Every message between supervisor and worker or compiler: its kind, its fields, and how they lie in bytes.

`decode` takes what a hostile peer may have written and gives a message or raises `ProtocolError`. The layouts
that the hot path packs and unpacks in place are the structs at the top; the classes below use the same ones.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import ClassVar, Final, Self

from ..errors import Frame
from ..externs import ExportType, FuncType, ImportType
from ..slots import SLOT_BYTES
from . import metadata
from .codec import ProtocolError, Reader, Writer
from .frames import frame

# Supervisor to worker.
LOAD: Final = 1
RESOLVE: Final = 2
CALL: Final = 3
CALL_MANY: Final = 4
MEM_READ: Final = 5
MEM_WRITE: Final = 6
HOST_RETURN: Final = 7
HOST_FAIL: Final = 8
# Supervisor to compiler.
COMPILE: Final = 16
# Worker to supervisor.
READY: Final = 32
LOADED: Final = 33
RESOLVED: Final = 34
RESULT: Final = 35
RESULTS: Final = 36
ERROR: Final = 37
HOST_CALL: Final = 38
MEM_DATA: Final = 39
MEM_DONE: Final = 40
# Compiler to supervisor.
COMPILED: Final = 48
ARTIFACT: Final = 49

# Payload layouts. Together with the 8-byte frame header, slots start 16-byte aligned, so that a worker can read
# a frame straight into the buffer that the engine works on.
CALL_LAYOUT: Final = struct.Struct("<IIQQ")  # export id, flags, fuel, wall_us; then parameter slots
CALL_MANY_LAYOUT: Final = struct.Struct("<IIQQII8x")  # …, rows, slots a row; then rows of slots
RESULT_LAYOUT: Final = struct.Struct("<Q")  # fuel consumed; then result slots
RESULTS_LAYOUT: Final = struct.Struct("<QIII4x")  # fuel consumed, rows done, slots a row, failed; then rows of slots
HOST_CALL_LAYOUT: Final = struct.Struct("<IIII")  # index, bytes of slots, of first and second blob; then these

#: CALL flag: the supervisor will answer quickly, so the worker may spin briefly for the next message.
SPIN: Final = 1

#: What a worker or compiler may send beside data: names, an error, a type. Data is capped by what was asked for.
SMALL_CAP: Final = 1 << 20
#: The most that one ARTIFACT or MEM_DATA frame carries; larger transfers take several.
CHUNK_BYTES: Final = 1 << 20
MAX_FRAMES: Final = 64
MAX_OFFERS: Final = 100_000


class Failure:
    """Kinds of an ERROR."""

    TRAP: Final = 0
    FUEL: Final = 1
    MEMORY: Final = 2
    CALL: Final = 3  # text tells what; cause USAGE
    HOST_FUNCTION: Final = 4  # a host function in the worker raised, or returned what does not fit
    HOST_LIMIT: Final = 5  # host_calls, host_call_bytes or message_bytes: `limit`
    REMOTE: Final = 6  # the host function in the supervisor failed, as HOST_FAIL said
    LINK: Final = 7
    GUEST_EXIT: Final = 8
    COMPILE: Final = 9
    ENGINE: Final = 10  # anything else that the engine said
    START_TRAP: Final = 11
    START_HOST_FUNCTION: Final = 12
    START_MEMORY: Final = 13
    START_REMOTE: Final = 14
    COUNT: Final = 15


class Message:
    """A message: `KIND`, `payload()` and `decode(payload)`."""

    __slots__ = ()
    KIND: ClassVar[int]

    def payload(self) -> bytes:
        raise NotImplementedError

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        raise NotImplementedError

    def frame(self) -> bytes:
        return frame(self.KIND, self.payload())


class _Empty(Message):
    __slots__ = ()

    def payload(self) -> bytes:
        return b""

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        Reader(payload).end()
        return cls()


class Where:
    """Where an offer's function runs."""

    STUB: Final = 0
    SUPERVISOR: Final = 1
    WORKER: Final = 2
    COUNT: Final = 3


PD_NAMES: Final = ("", "pd_send", "pd_now_micros", "pd_log")


@dataclass(frozen=True, slots=True)
class OfferSpec:
    """One import that the host answers. `pd` is an index into PD_NAMES; `index` numbers the supervisor's functions."""

    module: str
    name: str
    type: FuncType
    where: int
    pd: int = 0
    index: int = 0
    pickled: bytes = b""


@dataclass(frozen=True, slots=True)
class Load(Message):
    """Instantiate the artifact whose memfd was sent over the socket before. Fuel None: unlimited; wall_us 0: none."""

    KIND: ClassVar[int] = LOAD
    fuel: int | None
    wall_us: int
    memory_bytes: int | None
    memories: int
    table_elements: int | None
    host_calls: int | None
    host_call_bytes: int | None
    message_bytes: int
    offers: tuple[OfferSpec, ...] = ()
    sys_path: tuple[str, ...] = ()

    def payload(self) -> bytes:
        w = Writer()
        w.optional(self.fuel)
        w.u64(self.wall_us)
        w.optional(self.memory_bytes)
        w.u32(self.memories)
        w.optional(self.table_elements)
        w.optional(self.host_calls)
        w.optional(self.host_call_bytes)
        w.u64(self.message_bytes)

        def offer(spec: OfferSpec) -> None:
            w.text(spec.module)
            w.text(spec.name)
            metadata.write_func_type(w, spec.type)
            w.u8(spec.where)
            w.u8(spec.pd)
            w.u32(spec.index)
            w.data(spec.pickled)

        w.many(self.offers, offer)
        w.many(self.sys_path, w.path)
        return w.payload()

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        r = Reader(payload)
        fuel, wall_us, memory_bytes, memories = r.optional(), r.u64(), r.optional(), r.u32()
        table_elements, host_calls, host_call_bytes, message_bytes = r.optional(), r.optional(), r.optional(), r.u64()

        def offer() -> OfferSpec:
            module, name, type_ = r.text(), r.text(), metadata.read_func_type(r)
            return OfferSpec(module, name, type_, r.choice(Where.COUNT), r.choice(len(PD_NAMES)), r.u32(), r.data())

        offers = tuple(r.many(offer, 26, MAX_OFFERS))
        sys_path = tuple(r.many(r.path, 4, MAX_OFFERS))
        r.end()
        return cls(
            fuel,
            wall_us,
            memory_bytes,
            memories,
            table_elements,
            host_calls,
            host_call_bytes,
            message_bytes,
            offers,
            sys_path,
        )


@dataclass(frozen=True, slots=True)
class Resolve(Message):
    """Look up the export `name`; answered by RESOLVED or ERROR."""

    KIND: ClassVar[int] = RESOLVE
    name: bytes

    def payload(self) -> bytes:
        return self.name

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        return cls(bytes(payload))


@dataclass(frozen=True, slots=True)
class Call(Message):
    """Call an export that was resolved. `slots` are the parameters."""

    KIND: ClassVar[int] = CALL
    export: int
    flags: int
    fuel: int
    wall_us: int
    slots: bytes

    def payload(self) -> bytes:
        return CALL_LAYOUT.pack(self.export, self.flags, self.fuel, self.wall_us) + self.slots

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        size = _least(payload, CALL_LAYOUT.size)
        if (size - CALL_LAYOUT.size) % SLOT_BYTES:
            raise ProtocolError("slots are cut short")
        export, flags, fuel, wall_us = CALL_LAYOUT.unpack_from(payload, 0)
        return cls(export, flags, fuel, wall_us, bytes(payload[CALL_LAYOUT.size :]))


@dataclass(frozen=True, slots=True)
class CallMany(Message):
    """Call an export once a row; `width` slots a row (the larger of its parameters and results)."""

    KIND: ClassVar[int] = CALL_MANY
    export: int
    flags: int
    fuel: int
    wall_us: int
    rows: int
    width: int
    slots: bytes

    def payload(self) -> bytes:
        head = (self.export, self.flags, self.fuel, self.wall_us, self.rows, self.width)
        return CALL_MANY_LAYOUT.pack(*head) + self.slots

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        size = _least(payload, CALL_MANY_LAYOUT.size)
        export, flags, fuel, wall_us, rows, width = CALL_MANY_LAYOUT.unpack_from(payload, 0)
        if rows * width * SLOT_BYTES != size - CALL_MANY_LAYOUT.size:
            raise ProtocolError("rows and slots do not match")
        return cls(export, flags, fuel, wall_us, rows, width, bytes(payload[CALL_MANY_LAYOUT.size :]))


@dataclass(frozen=True, slots=True)
class MemRead(Message):
    """Read `length` bytes at `offset`; `total` from there on must be in bounds. Answered by MEM_DATA or ERROR."""

    KIND: ClassVar[int] = MEM_READ
    offset: int
    length: int
    total: int

    def payload(self) -> bytes:
        return _MEM_READ.pack(self.offset, self.length, self.total)

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        if len(payload) != _MEM_READ.size:
            raise ProtocolError("MEM_READ has a fixed size")
        return cls(*_MEM_READ.unpack(payload))


@dataclass(frozen=True, slots=True)
class MemWrite(Message):
    """Write `data` at `offset` if `total` bytes from there on are in bounds. Answered by MEM_DONE or ERROR."""

    KIND: ClassVar[int] = MEM_WRITE
    offset: int
    total: int
    data: bytes

    def payload(self) -> bytes:
        return _MEM_WRITE.pack(self.offset, self.total) + self.data

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        _least(payload, _MEM_WRITE.size)
        offset, total = _MEM_WRITE.unpack_from(payload, 0)
        return cls(offset, total, bytes(payload[_MEM_WRITE.size :]))


_MEM_READ = struct.Struct("<QQQ")
_MEM_WRITE = struct.Struct("<QQ")


@dataclass(frozen=True, slots=True)
class HostReturn(Message):
    """The result slots of the host function that the worker called."""

    KIND: ClassVar[int] = HOST_RETURN
    slots: bytes

    def payload(self) -> bytes:
        return self.slots

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        if len(payload) % SLOT_BYTES:
            raise ProtocolError("slots are cut short")
        return cls(bytes(payload))


@dataclass(frozen=True, slots=True)
class HostFail(_Empty):
    """The host function failed: end the call. Why stays in the supervisor; nothing of it reaches the guest."""

    KIND: ClassVar[int] = HOST_FAIL


@dataclass(frozen=True, slots=True)
class Compile(Message):
    """Compile `source`."""

    KIND: ClassVar[int] = COMPILE
    text: bool
    source: bytes

    def payload(self) -> bytes:
        return bytes([self.text]) + self.source

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        r = Reader(payload)
        return cls(r.flag(), r.rest())


@dataclass(frozen=True, slots=True)
class Ready(_Empty):
    """The worker or compiler has warmed itself and waits."""

    KIND: ClassVar[int] = READY


@dataclass(frozen=True, slots=True)
class Loaded(Message):
    """The instance stands; instantiating took `fuel`."""

    KIND: ClassVar[int] = LOADED
    fuel: int

    def payload(self) -> bytes:
        return RESULT_LAYOUT.pack(self.fuel)

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        if len(payload) != RESULT_LAYOUT.size:
            raise ProtocolError("LOADED has a fixed size")
        return cls(*RESULT_LAYOUT.unpack(payload))


@dataclass(frozen=True, slots=True)
class Resolved(Message):
    """An export's number for CALL, and its real type."""

    KIND: ClassVar[int] = RESOLVED
    export: int
    type: FuncType

    def payload(self) -> bytes:
        w = Writer()
        w.u32(self.export)
        metadata.write_func_type(w, self.type)
        return w.payload()

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        r = Reader(payload)
        message = cls(r.u32(), metadata.read_func_type(r))
        r.end()
        return message


@dataclass(frozen=True, slots=True)
class Result(Message):
    """A call's results."""

    KIND: ClassVar[int] = RESULT
    fuel: int
    slots: bytes

    def payload(self) -> bytes:
        return RESULT_LAYOUT.pack(self.fuel) + self.slots

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        size = _least(payload, RESULT_LAYOUT.size)
        if (size - RESULT_LAYOUT.size) % SLOT_BYTES:
            raise ProtocolError("slots are cut short")
        (fuel,) = RESULT_LAYOUT.unpack_from(payload, 0)
        return cls(fuel, bytes(payload[RESULT_LAYOUT.size :]))


@dataclass(frozen=True, slots=True)
class Results(Message):
    """A batch's results, `width` slots a row. `failed`: the row after these failed, and an ERROR follows."""

    KIND: ClassVar[int] = RESULTS
    fuel: int
    done: int
    width: int
    failed: bool
    slots: bytes

    def payload(self) -> bytes:
        return RESULTS_LAYOUT.pack(self.fuel, self.done, self.width, self.failed) + self.slots

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        size = _least(payload, RESULTS_LAYOUT.size)
        fuel, done, width, failed = RESULTS_LAYOUT.unpack_from(payload, 0)
        if failed > 1 or done * width * SLOT_BYTES != size - RESULTS_LAYOUT.size:
            raise ProtocolError("rows and slots do not match")
        return cls(fuel, done, width, bool(failed), bytes(payload[RESULTS_LAYOUT.size :]))


@dataclass(frozen=True, slots=True)
class Error(Message):
    """Why an operation failed. `text` and `frames` may hold what a guest chose."""

    KIND: ClassVar[int] = ERROR
    failure: int
    fuel: int = 0
    trap_code: int | None = None
    limit: int | None = None
    exit_code: int = 0
    text: str = ""
    frames: tuple[Frame, ...] = field(default=())

    def payload(self) -> bytes:
        w = Writer()
        w.u8(self.failure)
        w.u64(self.fuel)
        w.optional(self.trap_code)
        w.optional(self.limit)
        w.u32(self.exit_code)
        w.text(self.text)
        w.many(self.frames, lambda f: metadata.write_frame(w, f))
        return w.payload()

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        r = Reader(payload)
        message = cls(
            r.choice(Failure.COUNT),
            r.u64(),
            r.optional(),
            r.optional(),
            r.u32(),
            r.text(),
            tuple(r.many(lambda: metadata.read_frame(r), 21, MAX_FRAMES)),
        )
        r.end()
        return message


@dataclass(frozen=True, slots=True)
class HostCall(Message):
    """The guest calls the supervisor's function `index`: its parameter slots, and for pd_* the bytes it points to."""

    KIND: ClassVar[int] = HOST_CALL
    index: int
    slots: bytes
    first: bytes = b""
    second: bytes = b""

    def payload(self) -> bytes:
        head = HOST_CALL_LAYOUT.pack(self.index, len(self.slots), len(self.first), len(self.second))
        return b"".join((head, self.slots, self.first, self.second))

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        size = _least(payload, HOST_CALL_LAYOUT.size)
        index, slots, first, second = HOST_CALL_LAYOUT.unpack_from(payload, 0)
        at = HOST_CALL_LAYOUT.size
        if slots % SLOT_BYTES or at + slots + first + second != size:
            raise ProtocolError("a host call's lengths do not add up")
        a, b = at + slots, at + slots + first
        return cls(index, bytes(payload[at:a]), bytes(payload[a:b]), bytes(payload[b:]))


@dataclass(frozen=True, slots=True)
class MemData(Message):
    """Exactly the bytes that were asked for."""

    KIND: ClassVar[int] = MEM_DATA
    data: bytes

    def payload(self) -> bytes:
        return self.data

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        return cls(bytes(payload))


@dataclass(frozen=True, slots=True)
class MemDone(_Empty):
    """The bytes are written."""

    KIND: ClassVar[int] = MEM_DONE


@dataclass(frozen=True, slots=True)
class Compiled(Message):
    """A module's imports and exports; `artifact_bytes` follow in ARTIFACT frames."""

    KIND: ClassVar[int] = COMPILED
    artifact_bytes: int
    imports: tuple[ImportType, ...]
    exports: tuple[ExportType, ...]

    def payload(self) -> bytes:
        w = Writer()
        w.u64(self.artifact_bytes)
        metadata.write_imports(w, self.imports)
        metadata.write_exports(w, self.exports)
        return w.payload()

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        r = Reader(payload)
        message = cls(r.u64(), metadata.read_imports(r), metadata.read_exports(r))
        r.end()
        return message


@dataclass(frozen=True, slots=True)
class Artifact(Message):
    """A piece of the compiled artifact, at most CHUNK_BYTES."""

    KIND: ClassVar[int] = ARTIFACT
    data: bytes

    def payload(self) -> bytes:
        return self.data

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        return cls(bytes(payload))


def _least(payload: bytes | memoryview, size: int) -> int:
    if len(payload) < size:
        raise ProtocolError(f"{len(payload)} bytes are too few")
    return len(payload)


#: Every message by its kind.
MESSAGES: Final[dict[int, type[Message]]] = {
    cls.KIND: cls
    for cls in (
        Load, Resolve, Call, CallMany, MemRead, MemWrite, HostReturn, HostFail, Compile,
        Ready, Loaded, Resolved, Result, Results, Error, HostCall, MemData, MemDone, Compiled, Artifact,
    )
}  # fmt: skip


def decode(kind: int, payload: bytes | memoryview) -> Message:
    """The message of `kind`; ProtocolError for an unknown kind or a payload that is not one."""
    cls = MESSAGES.get(kind)
    if cls is None:
        raise ProtocolError(f"unknown message kind {kind}")
    return cls.decode(payload)
