"""What WASI adds to the wire: grants that go along with LOAD, and the messages of the guest's standard streams.

A stream that is captured is told of and not answered, like a log. One that leads somewhere is asked about: the guest
waits, and learns what became of it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple, Self

from .codec import Reader, Writer
from .layout import (
    LINK_TIMES,
    STREAM_OUT,
    STREAM_POLL,
    STREAM_READ,
    STREAM_REPLY,
    STREAM_TAKEN,
    STREAM_WRITE,
    Message,
    OfInstance,
    at_least,
)

#: The most that one message of a stream carries: as much as a pipe holds.
STREAM_BYTES: Final = 64 << 10
#: Patience of a STREAM_POLL that waits as long as it takes.
FOREVER: Final = 2**32 - 1
#: The guest's standard streams, by its own numbers.
STREAMS: Final = 3
#: What comes before the data.
STREAM_LAYOUT: Final = struct.Struct("<I")
#: Data of a LINK_TIMES: device, inode; seconds and nanoseconds, as utimensat(2) has them, of access and of change. Then
#: comes the path.
LINK_LAYOUT: Final = struct.Struct("<QQQIQI")

# Arguments and environment take 2 MiB together, and each at least one byte and a pointer.
_MAX_STRINGS: Final = 1 << 20
_MAX_DIRS: Final = 64


class StreamSpec(NamedTuple):
    """One of the guest's standard streams.

    relayed  whether it leads somewhere, so that the supervisor is asked; else it is captured, or `data` is all of it
    tty      whether it is a terminal
    waits    whether it can be waited for
    most     bytes to capture until the supervisor says STREAM_TAKEN
    """

    relayed: bool = False
    tty: bool = False
    waits: bool = False
    most: int = 0
    data: bytes = b""


class DirSpec(NamedTuple):
    """One directory, whose descriptor comes over the socket; `name`: its guest path."""

    name: bytes
    writable: bool
    max_bytes: int | None


class WasiSpec(NamedTuple):
    """A guest's WASI. `clock`: (start, step) in nanoseconds, None for the real one. `seed`: None for the kernel's."""

    args: tuple[bytes, ...] = ()
    env: tuple[bytes, ...] = ()
    clock: tuple[int, int] | None = None
    seed: int | None = None
    streams: tuple[StreamSpec, ...] = (StreamSpec(),) * STREAMS
    dirs: tuple[DirSpec, ...] = ()


def write_wasi(w: Writer, spec: WasiSpec) -> None:
    w.many(spec.args, w.data)
    w.many(spec.env, w.data)
    w.u8(spec.clock is not None)
    for number in spec.clock or ():
        w.u64(number)
    w.u8(spec.seed is not None)
    if spec.seed is not None:
        w.u64(spec.seed)
    for stream in spec.streams:
        w.u8(stream.relayed)
        w.u8(stream.tty)
        w.u8(stream.waits)
        w.u64(stream.most)
        w.data(stream.data)

    def directory(item: DirSpec) -> None:
        w.data(item.name)
        w.u8(item.writable)
        w.optional(item.max_bytes)

    w.many(spec.dirs, directory)


def read_wasi(r: Reader) -> WasiSpec:
    args = tuple(r.many(r.data, 4, _MAX_STRINGS))
    env = tuple(r.many(r.data, 4, _MAX_STRINGS))
    clock = (r.u64(), r.u64()) if r.flag() else None
    seed = r.u64() if r.flag() else None
    streams = tuple([StreamSpec(r.flag(), r.flag(), r.flag(), r.u64(), r.data()) for _ in range(STREAMS)])
    dirs = tuple(r.many(lambda: DirSpec(r.data(), r.flag(), r.optional()), 13, _MAX_DIRS))
    return WasiSpec(args, env, clock, seed, streams, dirs)


@dataclass(frozen=True, slots=True)
class _Piece(Message):
    """A number, and data to the end."""

    number: int
    data: bytes = b""

    def payload(self) -> bytes:
        return STREAM_LAYOUT.pack(self.number) + self.data

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        at_least(payload, STREAM_LAYOUT.size)
        (number,) = STREAM_LAYOUT.unpack_from(payload)
        return cls(number, bytes(payload[STREAM_LAYOUT.size :]))


class StreamOut(_Piece):
    """The guest has written `data` to its captured stream `number`. There is no answer."""

    __slots__ = ()
    KIND: ClassVar[int] = STREAM_OUT


class StreamWrite(_Piece):
    """The guest writes `data` to its stream `number`. Answered by STREAM_REPLY, or HOST_FAIL."""

    __slots__ = ()
    KIND: ClassVar[int] = STREAM_WRITE


class StreamRead(_Piece):
    """The guest reads at most `number` bytes, and at least one unless it is the end. Answered as STREAM_WRITE."""

    __slots__ = ()
    KIND: ClassVar[int] = STREAM_READ


class StreamPoll(_Piece):
    """The guest waits for its streams, at most `number` milliseconds (`FOREVER`: for as long as it takes). `data`: for
    each of the three the events of poll(2). Answered as STREAM_WRITE, with what has come as `data`."""

    __slots__ = ()
    KIND: ClassVar[int] = STREAM_POLL


class LinkTimes(_Piece):
    """The guest sets the times of a symbolic link itself, in its directory `number`. Answered by STREAM_REPLY."""

    __slots__ = ()
    KIND: ClassVar[int] = LINK_TIMES


class StreamReply(_Piece):
    """What became of it: the `errno` of this machine as `number`, 0 for success, and what was read."""

    __slots__ = ()
    KIND: ClassVar[int] = STREAM_REPLY


class StreamTaken(OfInstance):
    """What was captured of it has been taken: the caps begin anew. There is no answer."""

    __slots__ = ()
    KIND: ClassVar[int] = STREAM_TAKEN
