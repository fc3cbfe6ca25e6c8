"""A closed binary codec: fixed-width little-endian numbers, and byte strings and lists with a length before them.

Nothing is ever evaluated, and nothing is allocated before the bytes for it are there: a length is checked
against what is left before it is used. Whatever does not fit raises `ProtocolError`, nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, TypeVar

__all__ = ["ProtocolError", "Reader", "Writer"]

T = TypeVar("T")

_u8: Final = struct.Struct("<B")
_u32: Final = struct.Struct("<I")
_u64: Final = struct.Struct("<Q")
_i64: Final = struct.Struct("<q")


class ProtocolError(Exception):
    """What was received is not a legal message. Never recovered from: the peer is killed and replaced."""


class Writer:
    """Collects one payload. Values come from this program, so they are range-checked by struct alone."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def u8(self, value: int) -> None:
        self._parts.append(_u8.pack(value))

    def u32(self, value: int) -> None:
        self._parts.append(_u32.pack(value))

    def u64(self, value: int) -> None:
        self._parts.append(_u64.pack(value))

    def i64(self, value: int) -> None:
        self._parts.append(_i64.pack(value))

    def data(self, value: bytes) -> None:
        """A byte string: u32 length, then the bytes."""
        self._parts.append(_u32.pack(len(value)))
        self._parts.append(value)

    def text(self, value: str) -> None:
        """A byte string holding UTF-8."""
        self.data(value.encode("utf-8"))

    def path(self, value: str) -> None:
        """A path as Python has it from the system: bytes that are no UTF-8 are surrogates in it (PEP 383)."""
        self.data(value.encode("utf-8", "surrogateescape"))

    def many(self, values: list[T] | tuple[T, ...], write: Callable[[T], None]) -> None:
        """A list: u32 count, then each item."""
        self.u32(len(values))
        for value in values:
            write(value)

    def optional(self, value: int | None) -> None:
        """A non-negative integer below 2**63, or nothing (as -1)."""
        self.i64(-1 if value is None else value)

    def payload(self) -> bytes:
        return b"".join(self._parts)


class Reader:
    """Reads one payload from front to back; `end` makes sure that nothing is left over."""

    __slots__ = ("_at", "_buffer", "_size")

    def __init__(self, payload: bytes | bytearray | memoryview) -> None:
        self._buffer = memoryview(payload)
        self._size = len(self._buffer)
        self._at = 0

    def _take(self, count: int) -> int:
        at = self._at
        if count > self._size - at:
            raise ProtocolError(f"{count} bytes expected at offset {at}, {self._size - at} left")
        self._at = at + count
        return at

    def u8(self) -> int:
        return self._buffer[self._take(1)]

    def u32(self) -> int:
        return int(_u32.unpack_from(self._buffer, self._take(4))[0])

    def u64(self) -> int:
        return int(_u64.unpack_from(self._buffer, self._take(8))[0])

    def i64(self) -> int:
        return int(_i64.unpack_from(self._buffer, self._take(8))[0])

    def flag(self) -> bool:
        return bool(self.choice(2))

    def choice(self, count: int) -> int:
        """A u8 below `count`."""
        value = self.u8()
        if value >= count:
            raise ProtocolError(f"{value} is not one of {count} choices")
        return value

    def data(self) -> bytes:
        length = self.u32()
        at = self._take(length)
        return bytes(self._buffer[at : at + length])

    def text(self) -> str:
        raw = self.data()
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise ProtocolError("text is not UTF-8") from None

    def path(self) -> str:
        """Any bytes are a path."""
        return self.data().decode("utf-8", "surrogateescape")

    def many(self, read: Callable[[], T], least_bytes: int, most: int) -> list[T]:
        """A list of at most `most` items, each taking at least `least_bytes` bytes."""
        count = self.u32()
        if count > most or count * least_bytes > self._size - self._at:
            raise ProtocolError(f"a list of {count} items does not fit")
        return [read() for _ in range(count)]

    def optional(self) -> int | None:
        value = self.i64()
        if value < -1:
            raise ProtocolError(f"{value} is neither a count nor -1")
        return None if value == -1 else value

    def rest(self) -> bytes:
        """Everything that is left."""
        at = self._take(self._size - self._at)
        return bytes(self._buffer[at:])

    def end(self) -> None:
        if self._at != self._size:
            raise ProtocolError(f"{self._size - self._at} bytes too many")
