"""The calls on open descriptors that read and write, and move positions and sizes.

Transfers of files go straight between the kernel and the guest's memory; those of streams in pieces that bound what is
kept here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from ctypes import string_at
from typing import Final

from ...platform import files
from . import abi
from .memory import Errno, Range
from .system import System
from .table import File, Stdin, Stdout

# As much as a pipe holds.
_PIECE: Final = 1 << 16
_MOST: Final = 2**63 - 1

_ADVICE: Final = (
    os.POSIX_FADV_NORMAL,
    os.POSIX_FADV_SEQUENTIAL,
    os.POSIX_FADV_RANDOM,
    os.POSIX_FADV_WILLNEED,
    os.POSIX_FADV_DONTNEED,
    os.POSIX_FADV_NOREUSE,
)


def fd_read(system: System, fd: int, iovs: int, count: int, out: int) -> None:
    ranges = system.memory.ranges(iovs, count)
    system.memory.address(out, 4, 4)
    found = system.table.any(fd)
    if isinstance(found, File):
        done = _read(found, ranges, found.position)
        found.position += done
    elif isinstance(found, Stdin):
        done = _read_stream(system, found, ranges)
    else:
        raise Errno(abi.BADF)
    system.memory.write_u32(out, done)


def fd_pread(system: System, fd: int, iovs: int, count: int, offset: int, out: int) -> None:
    ranges = system.memory.ranges(iovs, count)
    system.memory.address(out, 4, 4)
    found = system.table.any(fd)
    if isinstance(found, Stdin):
        raise Errno(abi.SPIPE)
    if not isinstance(found, File):
        raise Errno(abi.BADF)
    system.memory.write_u32(out, _read(found, ranges, offset))


def _read(file: File, ranges: list[Range], offset: int) -> int:
    _check_end(offset, 0)
    if not file.reads:
        raise Errno(abi.BADF)
    return files.pread(file.fd, _short(ranges), offset) if ranges else 0


def _short(ranges: list[Range]) -> list[Range]:
    """No more than what Linux transfers at once, which also fits the guest's u32."""
    return ranges if sum([length for _, length in ranges]) < 2**31 - _PIECE else _cut(ranges, 2**31 - _PIECE)


def _cut(ranges: list[Range], most: int) -> list[Range]:
    cut = []
    for address, length in ranges:
        if most <= 0:
            break
        cut.append((address, min(length, most)))
        most -= length
    return cut


def _read_stream(system: System, found: Stdin, ranges: list[Range]) -> int:
    """What is there at once: a program that wants more asks again."""
    if not ranges:
        return 0
    data = found.stream.read(min(_PIECE, sum([length for _, length in ranges])))
    system.memory.scatter(ranges, data)
    return len(data)


def fd_write(system: System, fd: int, iovs: int, count: int, out: int) -> None:
    ranges = system.memory.ranges(iovs, count)
    system.memory.address(out, 4, 4)
    found = system.table.any(fd)
    if isinstance(found, Stdout):
        done = _write_stream(found, ranges)
    elif isinstance(found, File):
        append = bool(found.flags & abi.APPEND)
        done = _write(found, ranges, found.position, append=append)
        found.position = os.fstat(found.fd).st_size if append else found.position + done
    else:
        raise Errno(abi.BADF)
    system.memory.write_u32(out, done)


def fd_pwrite(system: System, fd: int, iovs: int, count: int, offset: int, out: int) -> None:
    ranges = system.memory.ranges(iovs, count)
    system.memory.address(out, 4, 4)
    found = system.table.any(fd)
    if isinstance(found, Stdout):
        raise Errno(abi.SPIPE)
    if not isinstance(found, File):
        raise Errno(abi.BADF)
    # As Linux has it, a file that is open for appending is appended to wherever one asks to write.
    done = _write(found, ranges, offset, append=bool(found.flags & abi.APPEND))
    system.memory.write_u32(out, done)


def _write_stream(found: Stdout, ranges: list[Range]) -> int:
    """All of it, or what was written before an error; the error then comes with the next call."""
    done = 0
    for address, length in _short(ranges):
        for at in range(0, length, _PIECE):
            piece = string_at(address + at, min(_PIECE, length - at))
            try:
                found.stream.write(piece)
            except OSError:
                if not done:
                    raise
                return done
            done += len(piece)
    return done


def _write(file: File, ranges: list[Range], offset: int, *, append: bool) -> int:
    ranges = _short(ranges)
    length = sum([length for _, length in ranges])
    if append:
        offset = 0
    _check_end(offset, length)
    if not file.writes:
        raise Errno(abi.BADF)
    if not length:
        return 0
    quota = file.grant.quota
    if quota is None:
        return files.pwrite(file.fd, ranges, offset, append=append)
    size = os.fstat(file.fd).st_size
    start = size if append else offset
    ranges = _cut(ranges, quota.fitting(size, start, length))
    done = files.pwrite(file.fd, ranges, offset, append=append)
    quota.grow(size, max(size, start + done))
    return done


def _check_end(offset: int, length: int) -> None:
    """Linux's offsets are signed; what lies beyond is INVAL to it, and to wasmtime."""
    if offset + length > _MOST:
        raise Errno(abi.INVAL)


def fd_seek(system: System, fd: int, offset: int, whence: int, out: int) -> None:
    file = system.table.seekable(fd)
    if offset > _MOST:
        offset -= 1 << 64
    if whence == abi.SEEK_SET:
        start = 0
    elif whence == abi.SEEK_CUR:
        start = file.position
    elif whence == abi.SEEK_END:
        start = os.fstat(file.fd).st_size
    else:
        raise Errno(abi.INVAL)
    if not 0 <= start + offset <= _MOST:
        raise Errno(abi.INVAL)
    system.memory.write_u64(out, start + offset)
    file.position = start + offset


def fd_tell(system: System, fd: int, out: int) -> None:
    system.memory.write_u64(out, system.table.seekable(fd).position)


def fd_advise(system: System, fd: int, offset: int, length: int, advice: int) -> None:
    if advice >= len(_ADVICE):
        raise Errno(abi.INVAL)
    file = system.table.file(fd)
    os.posix_fadvise(file.fd, min(offset, _MOST), min(length, _MOST), _ADVICE[advice])


def fd_allocate(system: System, fd: int, offset: int, length: int) -> None:
    file = _sizeable(system, fd)
    if not file.writes:
        raise Errno(abi.BADF)
    if not length:
        raise Errno(abi.INVAL)
    if offset + length > _MOST:
        raise Errno(abi.FBIG)
    size = os.fstat(file.fd).st_size
    _resize(file, size, max(size, offset + length), lambda: files.allocate(file.fd, offset, length))


def fd_filestat_set_size(system: System, fd: int, size: int) -> None:
    file = _sizeable(system, fd)
    if size > _MOST or not file.writes:
        raise Errno(abi.INVAL)
    _resize(file, os.fstat(file.fd).st_size, size, lambda: os.ftruncate(file.fd, size))


def _sizeable(system: System, fd: int) -> File:
    file = system.table.file(fd)
    file.grant.check_writable()
    return file


def _resize(file: File, size: int, wanted: int, act: Callable[[], None]) -> None:
    quota = file.grant.quota
    if quota is None:
        act()
        return
    quota.grow(size, wanted)
    try:
        act()
    except OSError:
        quota.grow(wanted, size)
        raise


def fd_close(system: System, fd: int) -> None:
    system.table.close(fd)


def fd_renumber(system: System, fd: int, to: int) -> None:
    system.table.renumber(fd, to)


CALLS: Final[dict[str, Callable[..., None]]] = {
    "fd_read": fd_read,
    "fd_pread": fd_pread,
    "fd_write": fd_write,
    "fd_pwrite": fd_pwrite,
    "fd_seek": fd_seek,
    "fd_tell": fd_tell,
    "fd_advise": fd_advise,
    "fd_allocate": fd_allocate,
    "fd_filestat_set_size": fd_filestat_set_size,
    "fd_close": fd_close,
    "fd_renumber": fd_renumber,
}
