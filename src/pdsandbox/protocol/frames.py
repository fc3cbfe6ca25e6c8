"""Frames: an 8-byte header (u32 payload length, u8 kind, three zero bytes), then the payload.

`FrameReader` turns a byte stream into frames whatever the boundaries of reads are; it never holds more than the
cap it was given, and refuses a header over the cap before the payload arrives. Pure: bytes in, frames out.
"""

from __future__ import annotations

import struct
from typing import Final

from .codec import ProtocolError

__all__ = ["HEADER", "HEADER_BYTES", "FrameReader", "frame", "parse_header"]

HEADER: Final = struct.Struct("<IB3x")
HEADER_BYTES: Final = 8
_STRICT: Final = struct.Struct("<II")


def frame(kind: int, payload: bytes) -> bytes:
    """One frame."""
    return HEADER.pack(len(payload), kind) + payload


def parse_header(buffer: bytes | bytearray | memoryview, offset: int, cap: int) -> tuple[int, int]:
    """(kind, payload length) of the header at `offset`; ProtocolError when it cannot be one."""
    length, word = _STRICT.unpack_from(buffer, offset)
    if word > 0xFF:
        raise ProtocolError("a frame header's reserved bytes are not zero")
    if length > cap:
        raise ProtocolError(f"a frame of {length} bytes is over the cap of {cap}")
    return word, length


class FrameReader:
    """Reassembles frames from a stream. `cap` is the largest payload, in bytes."""

    __slots__ = ("_buffer", "cap")

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Add what was read; take the frames out with `next` before feeding more."""
        self._buffer += data

    @property
    def buffered(self) -> int:
        """Bytes held."""
        return len(self._buffer)

    def drain(self) -> bytes:
        """All that is held, as it came; nothing is held afterwards."""
        held = bytes(self._buffer)
        self._buffer.clear()
        return held

    def wanted(self) -> int:
        """How many more bytes the frame at the front needs (0: it is whole)."""
        have = len(self._buffer)
        if have < HEADER_BYTES:
            return HEADER_BYTES - have
        _, length = parse_header(self._buffer, 0, self.cap)
        return max(0, HEADER_BYTES + length - have)

    def take_begun(self) -> tuple[int, int, bytes]:
        """The frame at the front, of which a header is here, to be read on elsewhere: (kind, payload length, what is
        here of the payload). Nothing is held any more."""
        kind, length = parse_header(self._buffer, 0, self.cap)
        begun = bytes(memoryview(self._buffer)[HEADER_BYTES:])
        self._buffer.clear()
        return kind, length, begun

    def next(self) -> tuple[int, bytes] | None:
        """The next whole frame as (kind, payload), or None."""
        if len(self._buffer) < HEADER_BYTES:
            return None
        kind, length = parse_header(self._buffer, 0, self.cap)
        end = HEADER_BYTES + length
        if len(self._buffer) < end:
            return None
        payload = bytes(memoryview(self._buffer)[HEADER_BYTES:end])
        del self._buffer[:end]
        return kind, payload
