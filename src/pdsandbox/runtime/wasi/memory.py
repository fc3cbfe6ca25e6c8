"""The guest's memory as WASI calls see it: every pointer is checked before it is used, whatever it was given for.

A pointer outside the memory, or a misaligned one, ends the guest's call, as the specification has it: it is the
guest's doing, and no errno could be trusted to reach it. Knows layouts of nothing but the plain numbers.
"""

from __future__ import annotations

from ctypes import memmove, string_at
from typing import Final

from ...errors import TRAP_SENTENCES, Trap, TrapCode
from ..guest import Guest
from . import abi

__all__ = ["Errno", "Memory", "Range"]

# Linux's IOV_MAX: `preadv` and `pwritev` take no more at once. What is beyond it is left to the guest's next call.
MAX_RANGES: Final = 1024
# Linux refuses a longer path, too; said before it is copied.
MAX_PATH: Final = 4095

#: (address in this process, length) of bytes in the guest's memory.
Range = tuple[int, int]


class Errno(Exception):
    """A WASI call's answer other than success."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Memory:
    """See the module's text. Addresses hold until the guest runs on: its memory may move when it grows."""

    __slots__ = ("_address",)

    def __init__(self, guest: Guest) -> None:
        self._address = guest.address

    def address(self, offset: int, length: int, align: int = 1) -> int:
        """Where these bytes are in this process. MemoryAccessError outside the memory; Trap when misaligned."""
        if offset % align:
            code = TrapCode.HEAP_MISALIGNED
            raise Trap(TRAP_SENTENCES[code], trap_code=code)
        return self._address(offset, length)

    def read(self, offset: int, length: int, align: int = 1) -> bytes:
        """A copy."""
        return string_at(self.address(offset, length, align), length)

    def write(self, offset: int, data: bytes, align: int = 1) -> None:
        """All of `data`. Nothing is asked of the pointer when there is nothing to write."""
        if data:
            memmove(self.address(offset, len(data), align), data, len(data))

    def write_u32(self, offset: int, value: int) -> None:
        """An aligned u32."""
        memmove(self.address(offset, 4, 4), abi.u32.pack(value), 4)

    def write_u64(self, offset: int, value: int) -> None:
        """An aligned u64."""
        memmove(self.address(offset, 8, 8), abi.u64.pack(value), 8)

    def path(self, offset: int, length: int) -> bytes:
        """A path, or a symbolic link's target: UTF-8 without NUL, of a length that Linux takes."""
        address = self.address(offset, length)
        if length > MAX_PATH:
            raise Errno(abi.NAMETOOLONG)
        path = string_at(address, length)
        try:
            path.decode()
        except UnicodeDecodeError:
            raise Errno(abi.ILSEQ) from None
        if 0 in path:
            raise Errno(abi.INVAL)
        return path

    def ranges(self, offset: int, count: int) -> list[Range]:
        """What an array of iovecs names, empty ones left out."""
        if not count:
            return []
        address = self.address(offset, abi.iovec.size * count, 4)
        array = string_at(address, abi.iovec.size * min(count, MAX_RANGES))
        return [(self.address(at, length), length) for at, length in abi.iovec.iter_unpack(array) if length]

    def scatter(self, ranges: list[Range], data: bytes) -> None:
        """Put `data`, which is no longer than they are, into these ranges, one after the other."""
        at = 0
        for address, length in ranges:
            piece = data[at : at + length]
            memmove(address, piece, len(piece))
            at += length
