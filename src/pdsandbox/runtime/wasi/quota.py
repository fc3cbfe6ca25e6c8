"""How much more a granted directory may hold: bytes, by the sizes of its files, and entries.

What grows is charged, what shrinks or goes is given back, so that a program may use up the same room again and again.
Holes are charged as if they were data: filling them later costs nothing. Pure arithmetic; who asks measures.
"""

from __future__ import annotations

from typing import Final

from . import abi
from .memory import Errno

__all__ = ["Quota"]

# An entry takes a name and perhaps an inode, which no file's size shows: at most about 4 KiB.
FREE_ENTRIES: Final = 1024
ENTRY_BYTES: Final = 4096


class Quota:
    """What is left of one grant. `Errno`, DQUOT, for what does not fit any more."""

    __slots__ = ("_bytes", "_entries")

    def __init__(self, max_bytes: int) -> None:
        self._bytes = max_bytes
        self._entries = FREE_ENTRIES + max_bytes // ENTRY_BYTES

    def grow(self, size: int, wanted: int) -> None:
        """A file of `size` bytes is to have `wanted`."""
        if wanted - size > self._bytes and wanted > size:
            raise Errno(abi.DQUOT)
        self._bytes -= wanted - size

    def fitting(self, size: int, offset: int, length: int) -> int:
        """How many of `length` bytes at `offset` may be written to a file of `size` bytes: at least one."""
        most = min(length, max(size, size + self._bytes) - offset)
        if most <= 0 < length:
            raise Errno(abi.DQUOT)
        return most

    def add_entry(self, nbytes: int = 0) -> None:
        """A new name, and for a symbolic link its length."""
        if self._entries <= 0 or nbytes > self._bytes:
            raise Errno(abi.DQUOT)
        self._entries -= 1
        self._bytes -= nbytes

    def drop_entry(self, nbytes: int = 0) -> None:
        """A name has gone, and `nbytes` with it."""
        self._entries += 1
        self._bytes += nbytes
