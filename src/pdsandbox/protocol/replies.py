"""What a worker or a compiler says. Decoded as what a hostile process may have written."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import ClassVar, Self

from ..errors import Frame
from ..externs import ExportType, ImportType
from ..slots import SLOT_BYTES
from . import metadata
from .codec import ProtocolError, Reader, Writer
from .layout import (
    ARTIFACT,
    COMPILED,
    ERROR,
    HOST_CALL,
    HOST_CALL_LAYOUT,
    HOST_LOG,
    LOADED,
    MAX_FRAMES,
    MEM_DATA,
    MEM_DONE,
    MEM_GROWN,
    READY,
    RESULT,
    RESULT_LAYOUT,
    RESULTS,
    RESULTS_LAYOUT,
    Empty,
    Failure,
    Message,
    at_least,
)


@dataclass(frozen=True, slots=True)
class Ready(Empty):
    """The worker or compiler has warmed itself and waits."""

    KIND: ClassVar[int] = READY


@dataclass(frozen=True, slots=True)
class Loaded(Message):
    """The instance stands; instantiating took `fuel`. Its memory: `size` bytes at `base` of the worker's addresses."""

    KIND: ClassVar[int] = LOADED
    fuel: int
    base: int = 0
    size: int = 0

    def payload(self) -> bytes:
        return RESULT_LAYOUT.pack(self.fuel, self.base, self.size)

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        if len(payload) != RESULT_LAYOUT.size:
            raise ProtocolError("LOADED has a fixed size")
        return cls(*RESULT_LAYOUT.unpack(payload))


@dataclass(frozen=True, slots=True)
class Result(Message):
    """A call's results."""

    KIND: ClassVar[int] = RESULT
    fuel: int
    slots: bytes
    base: int = 0
    size: int = 0

    def payload(self) -> bytes:
        return RESULT_LAYOUT.pack(self.fuel, self.base, self.size) + self.slots

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        size = at_least(payload, RESULT_LAYOUT.size)
        if (size - RESULT_LAYOUT.size) % SLOT_BYTES:
            raise ProtocolError("slots are cut short")
        fuel, base, memory = RESULT_LAYOUT.unpack_from(payload, 0)
        return cls(fuel, bytes(payload[RESULT_LAYOUT.size :]), base, memory)


@dataclass(frozen=True, slots=True)
class Results(Message):
    """A batch's results, `width` slots a row. `failed`: the row after these failed, and an ERROR follows."""

    KIND: ClassVar[int] = RESULTS
    fuel: int
    done: int
    width: int
    failed: bool
    slots: bytes
    base: int = 0
    size: int = 0

    def payload(self) -> bytes:
        head = (self.fuel, self.base, self.size, self.done, self.width, self.failed)
        return RESULTS_LAYOUT.pack(*head) + self.slots

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        size = at_least(payload, RESULTS_LAYOUT.size)
        fuel, base, memory, done, width, failed = RESULTS_LAYOUT.unpack_from(payload, 0)
        if failed > 1 or done * width * SLOT_BYTES != size - RESULTS_LAYOUT.size:
            raise ProtocolError("rows and slots do not match")
        return cls(fuel, done, width, bool(failed), bytes(payload[RESULTS_LAYOUT.size :]), base, memory)


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
    base: int = 0
    size: int = 0

    def payload(self) -> bytes:
        w = Writer()
        w.u8(self.failure)
        w.u64(self.fuel)
        w.optional(self.trap_code)
        w.optional(self.limit)
        w.u32(self.exit_code)
        w.text(self.text)
        w.many(self.frames, lambda f: metadata.write_frame(w, f))
        w.u64(self.base)
        w.u64(self.size)
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
            r.u64(),
            r.u64(),
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
    base: int = 0
    size: int = 0

    def payload(self) -> bytes:
        lengths = (len(self.slots), len(self.first), len(self.second))
        head = HOST_CALL_LAYOUT.pack(self.index, *lengths, self.base, self.size)
        return b"".join((head, self.slots, self.first, self.second))

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        size = at_least(payload, HOST_CALL_LAYOUT.size)
        index, slots, first, second, base, memory = HOST_CALL_LAYOUT.unpack_from(payload, 0)
        at = HOST_CALL_LAYOUT.size
        if slots % SLOT_BYTES or at + slots + first + second != size:
            raise ProtocolError("a host call's lengths do not add up")
        a, b = at + slots, at + slots + first
        return cls(index, bytes(payload[at:a]), bytes(payload[a:b]), bytes(payload[b:]), base, memory)


@dataclass(frozen=True, slots=True)
class HostLog(HostCall):
    """The same for `pd_log`, which has no result: the guest goes on without an answer."""

    KIND: ClassVar[int] = HOST_LOG


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
class MemDone(Empty):
    """The bytes are written."""

    KIND: ClassVar[int] = MEM_DONE


@dataclass(frozen=True, slots=True)
class MemGrown(Message):
    """How many pages the memory had, or -1 when it did not grow; where it is now, and how large in bytes."""

    KIND: ClassVar[int] = MEM_GROWN
    before: int
    base: int = 0
    size: int = 0

    def payload(self) -> bytes:
        return _MEM_GROWN.pack(self.before, self.base, self.size)

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        if len(payload) != _MEM_GROWN.size:
            raise ProtocolError("MEM_GROWN has a fixed size")
        message = cls(*_MEM_GROWN.unpack(payload))
        if message.before < -1:
            raise ProtocolError("a memory of less than no pages")
        return message


_MEM_GROWN = struct.Struct("<qQQ")


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
