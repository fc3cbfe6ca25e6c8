"""What the supervisor says: to a worker, and to a compiler."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from ..externs import FuncType
from ..slots import SLOT_BYTES
from . import metadata
from .codec import ProtocolError, Reader, Writer
from .layout import (
    CALL,
    CALL_LAYOUT,
    CALL_MANY,
    CALL_MANY_LAYOUT,
    COMPILE,
    DROP,
    HOST_FAIL,
    HOST_RETURN,
    LOAD,
    MAX_AHEAD,
    MAX_OFFERS,
    MEM_GROW,
    MEM_READ,
    MEM_WRITE,
    PD_NAMES,
    RESOLVE,
    Empty,
    Message,
    OfInstance,
    Where,
    at_least,
)
from .wasi import WasiSpec, read_wasi, write_wasi


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
    """Instantiate the artifact whose memfd was sent over the socket before; once more, if this is not the first LOAD.
    Fuel None: unlimited; wall_us 0: none.

    `resolve`: exports to number at once, in this order from `first`, while the supervisor takes in LOADED.
    `wasi`: what the guest is granted; the descriptors of its directories were sent over the socket, too.
    `instance`: what it is called from now on.
    """

    KIND: ClassVar[int] = LOAD
    fuel: int | None
    wall_us: int
    offers: tuple[OfferSpec, ...] = ()
    sys_path: tuple[str, ...] = ()
    resolve: tuple[Resolve, ...] = ()
    wasi: WasiSpec | None = None
    instance: int = 0
    first: int = 0

    def payload(self) -> bytes:
        w = Writer()
        w.optional(self.fuel)
        w.u64(self.wall_us)

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

        def export(item: Resolve) -> None:
            metadata.write_func_type(w, item.type)
            w.data(item.name)

        w.many(self.resolve, export)
        w.u8(self.wasi is not None)
        if self.wasi is not None:
            write_wasi(w, self.wasi)
        w.u32(self.instance)
        w.u32(self.first)
        return w.payload()

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        r = Reader(payload)
        fuel, wall_us = r.optional(), r.u64()

        def offer() -> OfferSpec:
            module, name, type_ = r.text(), r.text(), metadata.read_func_type(r)
            return OfferSpec(module, name, type_, r.choice(Where.COUNT), r.choice(len(PD_NAMES)), r.u32(), r.data())

        offers = tuple(r.many(offer, 26, MAX_OFFERS))
        sys_path = tuple(r.many(r.path, 4, MAX_OFFERS))
        resolve = tuple(r.many(lambda: Resolve(metadata.read_func_type(r), r.data()), 12, MAX_AHEAD))
        wasi = read_wasi(r) if r.flag() else None
        instance, first = r.u32(), r.u32()
        r.end()
        return cls(fuel, wall_us, offers, sys_path, resolve, wasi, instance, first)


@dataclass(frozen=True, slots=True)
class Resolve(Message):
    """Give the export `name` of an instance a number, which no other export in this worker has: with it a call says
    whose it is. Its first call follows at once; there is no answer of its own, because a worker whose export has
    another type than the compiler found leaves."""

    KIND: ClassVar[int] = RESOLVE
    type: FuncType
    name: bytes
    number: int = 0
    instance: int = 0

    def payload(self) -> bytes:
        w = Writer()
        w.u32(self.number)
        w.u32(self.instance)
        metadata.write_func_type(w, self.type)
        return w.payload() + self.name

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        r = Reader(payload)
        number, instance = r.u32(), r.u32()
        return cls(metadata.read_func_type(r), r.rest(), number, instance)


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
        size = at_least(payload, CALL_LAYOUT.size)
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
        size = at_least(payload, CALL_MANY_LAYOUT.size)
        export, flags, fuel, wall_us, rows, width = CALL_MANY_LAYOUT.unpack_from(payload, 0)
        if rows * width * SLOT_BYTES != size - CALL_MANY_LAYOUT.size:
            raise ProtocolError("rows and slots do not match")
        return cls(export, flags, fuel, wall_us, rows, width, bytes(payload[CALL_MANY_LAYOUT.size :]))


@dataclass(frozen=True, slots=True)
class MemRead(Message):
    """Read `length` bytes of an instance's memory at `offset`; `total` from there on must be in bounds. Answered by
    MEM_DATA or ERROR."""

    KIND: ClassVar[int] = MEM_READ
    offset: int
    length: int
    total: int
    instance: int = 0

    def payload(self) -> bytes:
        return _MEM_READ.pack(self.offset, self.length, self.total, self.instance)

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        if len(payload) != _MEM_READ.size:
            raise ProtocolError("MEM_READ has a fixed size")
        return cls(*_MEM_READ.unpack(payload))


@dataclass(frozen=True, slots=True)
class MemWrite(Message):
    """Write `data` to an instance's memory at `offset`, if `total` bytes from there on are in bounds. Answered by
    MEM_DONE or ERROR."""

    KIND: ClassVar[int] = MEM_WRITE
    offset: int
    total: int
    data: bytes
    instance: int = 0

    def payload(self) -> bytes:
        return _MEM_WRITE.pack(self.offset, self.total, self.instance) + self.data

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        at_least(payload, _MEM_WRITE.size)
        offset, total, instance = _MEM_WRITE.unpack_from(payload, 0)
        return cls(offset, total, bytes(payload[_MEM_WRITE.size :]), instance)


@dataclass(frozen=True, slots=True)
class MemGrow(Message):
    """Grow an instance's memory by `pages` of its own size. Answered by MEM_GROWN or ERROR."""

    KIND: ClassVar[int] = MEM_GROW
    pages: int
    instance: int = 0

    def payload(self) -> bytes:
        return _MEM_GROW.pack(self.pages, self.instance)

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        if len(payload) != _MEM_GROW.size:
            raise ProtocolError("MEM_GROW has a fixed size")
        return cls(*_MEM_GROW.unpack(payload))


_MEM_GROW = struct.Struct("<QI")
_MEM_READ = struct.Struct("<QQQI")
_MEM_WRITE = struct.Struct("<QQI")
#: Where the data of a MEM_WRITE begins.
MEM_WRITE_HEAD: Final = _MEM_WRITE.size


class Drop(OfInstance):
    """Nobody will use the instance any more: it can go. There is no answer."""

    __slots__ = ()
    KIND: ClassVar[int] = DROP


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
class HostFail(Empty):
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
