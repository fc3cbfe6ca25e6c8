"""Moving bytes fast: pipe reads and writes that keep the GIL, spinning, and copies between two processes.

Part of the Linux room. Every argument may be a ctypes object made beforehand, which saves its conversion.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from typing import Any, Final

from .. import cargs

# Non-blocking reads and writes on pipes take well under a microsecond. Releasing the GIL around them makes 32
# threads convoy (17-23k calls/s instead of 70-100k), so these keep it. errno is not looked at: whoever gets
# -1 repeats the call through `os`, which raises.
#
# The raw ones have no prototype, which saves looking at each argument at each call: give them `cargs` only.
_keeping_gil = ctypes.PyDLL(None)
read_raw = _keeping_gil["read"]
read_raw.restype = ctypes.c_ssize_t
write_raw = _keeping_gil["write"]
write_raw.restype = ctypes.c_ssize_t
write_nowait = _keeping_gil["write"]
write_nowait.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
write_nowait.restype = ctypes.c_ssize_t
copy_raw = _keeping_gil["memcpy"]
copy_raw.restype = None
#: memcpy, for few bytes.
copy_bytes = _keeping_gil["memcpy"]
copy_bytes.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
copy_bytes.restype = None
# While spinning: whoever is waited for may be on this very core. Keeps the GIL, as those above.
yield_core = _keeping_gil["sched_yield"]
yield_core.argtypes = ()
# Releases the GIL: whoever was just woken on this core runs now, and not after our time slice.
give_way = ctypes.CDLL(None)["sched_yield"]
give_way.argtypes = ()


class Spinner:
    """Tries to read for a while before its user blocks, as long as that pays.

    After two tries in vain, one after the other, the next 1, 2, 4, … 64 are left out: whoever is waited for takes
    longer, or has no core.

    Who has a core of its own answers a short call within some reads, and sched_yield, which takes as long as a read,
    would only delay what comes meanwhile. On a shared core nothing comes before sched_yield. Which of the two it is
    shows: on a shared core a message comes late, or with the first read after a sched_yield.

    on_shared  called when that was so four times in a row, with a message in hand
    quick      so many reads its user may do by itself before it asks: most messages come that soon, and a call and a
               look at the clock for each read take a fifth of its time; none on a shared core
    """

    __slots__ = ("_in_vain", "_on_shared", "_patience", "_shared", "_skip", "quick")

    def __init__(self, on_shared: Callable[[], None] | None = None) -> None:
        self._patience = PATIENT_READS
        self.quick = _QUICK
        self._on_shared = on_shared
        self._shared = self._in_vain = self._skip = 0

    def read(self, fd: Any, address: Any, size: Any, until: float) -> int:
        """`read_raw` until it gives something or time.monotonic says `until`; -1: then, or without trying."""
        if self._skip:
            self._skip -= 1
            return -1
        reads, patience, clock, read = 0, self._patience, time.monotonic, read_raw
        got = -1
        while got < 0 and clock() < until:
            reads += 1
            if reads > patience:
                yield_core()
            got = read(fd, address, size)
        if got < 0:
            got = read(fd, address, size)  # the GIL may have been away with all that time
        if got < 0:
            self._skip, self._in_vain = self._in_vain, min(64, 2 * self._in_vain or 1)
            return -1
        self._in_vain = 0
        if 1 < reads <= PATIENT_READS:
            self._patience, self._shared, self.quick = PATIENT_READS, 0, _QUICK
        elif reads > patience:
            self._patience, self.quick = 0, _AT_ONCE
            self._shared += 1
            if self._shared == 4:
                self._shared = 0
                if self._on_shared is not None:
                    self._on_shared()
        return int(got)


#: Reads (0.6 us each) before the first sched_yield. A warm call is answered after 3 us.
PATIENT_READS: Final = 12
_QUICK: Final = range(6)
_AT_ONCE: Final = range(1)


def new_bytes(size: int) -> tuple[bytes, int]:
    """`size` bytes that hold anything, and where: to be filled before anybody else sees them (PyBytes_FromStringAndSize
    with no string, as Python's C API has it for just that)."""
    made: bytes = _new_bytes(None, size)
    return made, address_of(made)


def address_of(data: bytes) -> int:
    """Where the bytes are, as long as somebody holds them."""
    return int(_bytes_at(data))


_new_bytes = ctypes.pythonapi["PyBytes_FromStringAndSize"]
_new_bytes.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t)
_new_bytes.restype = ctypes.py_object
_bytes_at = ctypes.pythonapi["PyBytes_AsString"]
_bytes_at.argtypes = (ctypes.py_object,)
_bytes_at.restype = ctypes.c_void_p


class SmallFile:
    """Reads one of the kernel's own small files, of which `size` bytes are wanted at most, from the start, each time.

    Keeps the GIL: with many threads after it, who gives it up in the middle of a call wakes one of them up each time.
    For one thread at a time; the descriptor stays its owner's.
    """

    __slots__ = ("_args", "_view")

    def __init__(self, fd: int, size: int) -> None:
        block = ctypes.create_string_buffer(size)
        self._view = memoryview(block).cast("B")
        self._args = cargs.c_int(fd), cargs.pointer(ctypes.addressof(block)), cargs.size(size), cargs.size(0)

    def read(self) -> bytes:
        """What it says now; OSError."""
        got = _pread(*self._args)
        if got < 0:
            raise _error()
        return bytes(self._view[:got])


def open_nowait(path: bytes, flags: int) -> int:
    """open(2) of one of those, keeping the GIL."""
    fd: int = _open(path, flags)
    if fd < 0:
        raise _error()
    return fd


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


_noting_errno = ctypes.PyDLL(None, use_errno=True)
_pread = _noting_errno["pread"]
_pread.restype = ctypes.c_ssize_t
_open = _noting_errno["open"]
_open.argtypes = (ctypes.c_char_p, ctypes.c_int)
close_nowait = _noting_errno["close"]
close_nowait.argtypes = (ctypes.c_int,)


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


_with_errno = ctypes.CDLL(None, use_errno=True)
_readv = _with_errno["process_vm_readv"]
_writev = _with_errno["process_vm_writev"]
for _copy in (_readv, _writev):
    _copy.argtypes = (ctypes.c_int, *(ctypes.POINTER(_IoVec), ctypes.c_ulong) * 2, ctypes.c_ulong)
    _copy.restype = ctypes.c_ssize_t


def copy_process(pid: int, local: int, remote: int, size: int, *, write: bool = False) -> int:
    """Copy `size` bytes from address `remote` of process `pid` to our `local`, or the other way; how many were copied.

    OSError: EPERM or ENOSYS where that is not allowed here, EFAULT for addresses that are not there, ESRCH for no such
    process. (process_vm_readv(2), process_vm_writev(2))
    """
    copy = _writev if write else _readv
    done = copy(pid, _IoVec(local, size), 1, _IoVec(remote, size), 1, 0)
    if done < 0:
        raise _error()
    return int(done)
