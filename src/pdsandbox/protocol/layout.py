"""Kinds, byte layouts, caps and enumerations of the messages, and what all messages have in common."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from .codec import ProtocolError, Reader
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
STREAM_REPLY: Final = 9
STREAM_TAKEN: Final = 10
DROP: Final = 11
MEM_GROW: Final = 12
# Supervisor to compiler.
COMPILE: Final = 16
# Worker to supervisor.
READY: Final = 32
LOADED: Final = 33
RESULT: Final = 35
RESULTS: Final = 36
ERROR: Final = 37
HOST_CALL: Final = 38
MEM_DATA: Final = 39
MEM_DONE: Final = 40
HOST_LOG: Final = 41
STREAM_OUT: Final = 42
STREAM_WRITE: Final = 43
STREAM_READ: Final = 44
STREAM_POLL: Final = 45
LINK_TIMES: Final = 46
MEM_GROWN: Final = 47
# Compiler to supervisor.
COMPILED: Final = 48
ARTIFACT: Final = 49

# Payload layouts. Together with the 8-byte frame header, slots start 16-byte aligned, so that a worker can read
# a frame straight into the buffer that the engine works on.
CALL_LAYOUT: Final = struct.Struct("<IIQQ")  # export id, flags, fuel, wall_us; then parameter slots
CALL_MANY_LAYOUT: Final = struct.Struct("<IIQQII8x")  # …, rows, slots a row; then rows of slots
# A reply's slots are where its request's were, so that it is written in place. Where the guest's memory is and how
# large travels with every reply, for whoever copies from it while the worker waits.
RESULT_LAYOUT: Final = struct.Struct("<QQQ")  # fuel consumed, memory base, memory bytes; then result slots
RESULTS_LAYOUT: Final = struct.Struct("<QQQIII4x")  # …, rows done, slots a row, failed; then rows of slots
HOST_CALL_LAYOUT: Final = struct.Struct("<IIIIQQ")  # index, bytes of slots, of two blobs, memory; then slots, blobs

# HOST_LOG is a HOST_CALL that waits for no answer.

#: What a guest's WASI says that the worker cannot do by itself.
OF_WASI: Final = frozenset((STREAM_OUT, STREAM_WRITE, STREAM_READ, STREAM_POLL, LINK_TIMES))
#: What a worker may say in the middle of an operation, before the reply.
ASIDES: Final = OF_WASI | {HOST_CALL, HOST_LOG}

#: CALL flag: calls follow closely and a core is free, so the worker may spin briefly for the next one.
SPIN: Final = 1
#: CALL_MANY flag: one more message of the same batch, so the limits of a call go on counting.
CONTINUED: Final = 2
#: CALL flag: say in RESULT and HOST_CALL where the guest's memory is; without it they may say zeros.
WHERE: Final = 4
#: CALL flag: a core is free, so the worker may spin briefly for the answers to its host calls.
FREE: Final = 8

#: What a worker or compiler may send beside data: names, an error, a type. Data is capped by what was asked for.
SMALL_CAP: Final = 1 << 20
#: The most that one ARTIFACT or MEM_DATA frame carries; larger transfers take several.
CHUNK_BYTES: Final = 1 << 20
#: Native code is 2 to 10 times its source; metering, many small functions and precomputed tables make it more.
ARTIFACT_LEAST: Final = 64 << 20
ARTIFACT_FACTOR: Final = 64
MAX_FRAMES: Final = 64
MAX_OFFERS: Final = 100_000
#: Exports that a LOAD numbers: a plugin's entry points are few, and the first are as good a guess as any.
MAX_AHEAD: Final = 8


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
    START_HOST: Final = 15  # this machine refused what loading needs, or a layer of the lock-down
    COUNT: Final = 16

    #: Which of them may be told where: one that cannot happen there would give its caller an error of the wrong class.
    OF_LOAD: Final = frozenset((FUEL, CALL, REMOTE, LINK, GUEST_EXIT, COMPILE, ENGINE, START_TRAP)) | {
        START_HOST_FUNCTION,
        START_MEMORY,
        START_REMOTE,
        START_HOST,
    }
    OF_CALL: Final = frozenset({TRAP, FUEL, MEMORY, CALL, HOST_FUNCTION, HOST_LIMIT, REMOTE, GUEST_EXIT, ENGINE})
    OF_MEMORY: Final = frozenset({MEMORY})
    OF_COMPILE: Final = frozenset({COMPILE, ENGINE})


class Where:
    """Where an offer's function runs."""

    STUB: Final = 0
    SUPERVISOR: Final = 1
    WORKER: Final = 2
    COUNT: Final = 3


_NUMBER: Final = struct.Struct("<I")

PD_NAMES: Final = ("", "pd_send", "pd_now_micros", "pd_log")


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


class Empty(Message):
    __slots__ = ()

    def payload(self) -> bytes:
        return b""

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        Reader(payload).end()
        return cls()


@dataclass(frozen=True, slots=True)
class OfInstance(Message):
    """What is said of one instance, and is no more than that."""

    instance: int = 0

    def payload(self) -> bytes:
        return _NUMBER.pack(self.instance)

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        if len(payload) != _NUMBER.size:
            raise ProtocolError("the number of an instance has a fixed size")
        return cls(*_NUMBER.unpack(payload))


def artifact_cap(source_bytes: int) -> int:
    """The most bytes of compiled code that a module's source may turn into."""
    return max(ARTIFACT_LEAST, ARTIFACT_FACTOR * source_bytes)


def at_least(payload: bytes | memoryview, size: int) -> int:
    if len(payload) < size:
        raise ProtocolError(f"{len(payload)} bytes are too few")
    return len(payload)
