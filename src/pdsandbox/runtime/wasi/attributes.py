"""Types, times and other attributes of files, between the kernel's way to tell them and the guest's."""

from __future__ import annotations

import os
import stat
from typing import Final

from ...platform.files import UTIME_NOW, UTIME_OMIT
from . import abi
from .memory import Errno
from .system import System

__all__ = ["check_bits", "filestat", "filetype", "times_of"]

_NS: Final = 1_000_000_000
_U64: Final = 2**64 - 1
# There is no code for a FIFO.
_TYPES: Final = {
    stat.S_IFREG: abi.REGULAR_FILE,
    stat.S_IFDIR: abi.DIRECTORY,
    stat.S_IFLNK: abi.SYMBOLIC_LINK,
    stat.S_IFCHR: abi.CHARACTER_DEVICE,
    stat.S_IFBLK: abi.BLOCK_DEVICE,
    stat.S_IFSOCK: abi.SOCKET_STREAM,
}


def check_bits(given: int, known: int) -> None:
    """`Errno`, INVAL, for a flag that does not exist."""
    if given & ~known:
        raise Errno(abi.INVAL)


def filetype(mode: int) -> int:
    """Of `st_mode`."""
    return _TYPES.get(stat.S_IFMT(mode), abi.UNKNOWN)


def filestat(system: System, found: os.stat_result) -> bytes:
    """The guest's `filestat`. Device and inode are its own: they only tell whether two files are one."""
    return abi.filestat.pack(
        1,
        system.inode(found.st_dev, found.st_ino),
        filetype(found.st_mode),
        found.st_nlink,
        found.st_size,
        *[min(max(0, ns), _U64) for ns in (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns)],
    )


def times_of(system: System, atim: int, mtim: int, flags: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """What `utimensat` takes, for times of the guest's and its `fstflags`."""
    check_bits(flags, abi.FSTFLAGS)
    return (
        _time(system, atim, flags & abi.ATIM, flags & abi.ATIM_NOW),
        _time(system, mtim, flags & abi.MTIM, flags & abi.MTIM_NOW),
    )


def _time(system: System, given: int, explicit: int, now: int) -> tuple[int, int]:
    if explicit and now:
        raise Errno(abi.INVAL)
    if now and system.clocks.real:
        return 0, UTIME_NOW
    if now:
        given = system.clocks.peek(abi.REALTIME)
    return divmod(given, _NS) if explicit or now else (0, UTIME_OMIT)
