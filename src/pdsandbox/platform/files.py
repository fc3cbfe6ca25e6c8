"""Linux's system calls on files that Python does not offer: paths that stay beneath a directory, and transfers to and
from plain addresses.

Knows nothing of guests: addresses and lengths are the caller's word. Everything raises OSError.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Sequence
from typing import Any, Final

__all__ = ["allocate", "open_beneath", "opens_beneath", "pread", "pwrite", "set_times", "set_times_of_path"]

_libc: Final = ctypes.CDLL(None, use_errno=True)
# The same on all machines: it is younger than the tables were unified.
_OPENAT2: Final = 437
_RESOLVE_NO_MAGICLINKS: Final = 0x02
_RESOLVE_BENEATH: Final = 0x08
_BENEATH: Final = _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS
_AT_EMPTY_PATH: Final = 0x1000
_RWF_APPEND: Final = 0x10
UTIME_NOW: Final = (1 << 30) - 1
UTIME_OMIT: Final = (1 << 30) - 2

_open_how: Final = struct.Struct("@QQQ")
_iovec: Final = struct.Struct("@PN")
_times: Final = struct.Struct("@qlql")


def _bind(name: str, restype: Any, *argtypes: Any) -> Any:
    try:
        function = _libc[name]
    except AttributeError:  # another system: whoever calls it is told so
        return _missing
    function.restype = restype
    function.argtypes = argtypes
    return function


def _missing(*_args: Any) -> int:
    ctypes.set_errno(errno.ENOSYS)
    return -1


_int, _long, _size, _pointer, _off = ctypes.c_int, ctypes.c_long, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_int64
_syscall: Final = _bind("syscall", _long, _long, _int, _pointer, _pointer, _size)
_preadv: Final = _bind("preadv", ctypes.c_ssize_t, _int, _pointer, _int, _off)
_pwritev2: Final = _bind("pwritev2", ctypes.c_ssize_t, _int, _pointer, _int, _off, _int)
_utimensat: Final = _bind("utimensat", _int, _int, _pointer, _pointer, _int)
_futimens: Final = _bind("futimens", _int, _int, _pointer)
_fallocate: Final = _bind("fallocate", _int, _int, _int, _off, _off)


def _failed() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def open_beneath(dirfd: int, path: bytes, flags: int, mode: int = 0) -> int:
    """As openat(2), close-on-exec, and nothing on the way leaves the directory: that is EXDEV. (openat2(2), Linux 5.6.)

    EAGAIN when a directory was moved meanwhile and the kernel cannot tell.
    """
    how = _open_how.pack(flags | os.O_CLOEXEC, mode, _BENEATH)
    fd: int = _syscall(_OPENAT2, dirfd, path, how, len(how))
    if fd < 0:
        raise _failed()
    return fd


def opens_beneath(dirfd: int) -> bool:
    """Whether `open_beneath` works here: an older kernel has no such call, an older container's filter refuses it."""
    try:
        os.close(open_beneath(dirfd, b".", os.O_PATH | os.O_DIRECTORY))
    except OSError:
        return False
    return True


def _vector(ranges: Sequence[tuple[int, int]]) -> bytes:
    return b"".join([_iovec.pack(address, length) for address, length in ranges])


def pread(fd: int, ranges: Sequence[tuple[int, int]], offset: int) -> int:
    """Read from `offset` to these (address, length), as much as there is; the GIL is released."""
    done: int = _preadv(fd, _vector(ranges), len(ranges), offset)
    if done < 0:
        raise _failed()
    return done


def pwrite(fd: int, ranges: Sequence[tuple[int, int]], offset: int, *, append: bool) -> int:
    """Write what is at these (address, length), at `offset` or at the end; the GIL is released."""
    done: int = _pwritev2(fd, _vector(ranges), len(ranges), offset, _RWF_APPEND if append else 0)
    if done < 0:
        raise _failed()
    return done


def set_times(fd: int, atime: tuple[int, int], mtime: tuple[int, int]) -> None:
    """Set the times, (seconds, nanoseconds) each, of an open file: futimens(3)."""
    if _futimens(fd, _times.pack(*atime, *mtime)):
        raise _failed()


def set_times_of_path(fd: int, atime: tuple[int, int], mtime: tuple[int, int]) -> None:
    """The same for what is open as O_PATH only, a symbolic link, say (Linux 5.8). A worker's filter refuses it."""
    if _utimensat(fd, b"", _times.pack(*atime, *mtime), _AT_EMPTY_PATH):
        raise _failed()


def allocate(fd: int, offset: int, length: int) -> None:
    """Have room for these bytes; the file grows to hold them. EOPNOTSUPP where the file system cannot."""
    if _fallocate(fd, 0, offset, length):
        raise _failed()
