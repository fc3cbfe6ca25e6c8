"""What a child of ours has used that has ended and was not reaped yet, as only its parent may ask (Linux).

`os.waitid` leaves out the last argument of the system call, which alone gives this without reaping.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final, NamedTuple

from .lockdown.calls import syscall

__all__ = ["Usage", "usage_of"]

# arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h
_WAITID: Final = {"x86_64": 247, "aarch64": 95}
# struct rusage: two timevals, then 14 longs, of which the first is the peak of resident memory in KiB.
_RUSAGE: Final = struct.Struct("@4l14l")


class Usage(NamedTuple):
    """Of a process that has ended."""

    cpu_us: int  #: microseconds of CPU time, user and system
    peak_bytes: int  #: most memory that was resident at once, what it had in common with its parent included


def usage_of(pidfd: int) -> Usage | None:
    """Of our child that has ended; None where that cannot be asked."""
    number = _WAITID.get(os.uname().machine)
    if number is None or ctypes.sizeof(ctypes.c_long) != 8:
        return None
    found = ctypes.create_string_buffer(_RUSAGE.size)
    flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
    try:
        syscall("waitid", number, os.P_PIDFD, pidfd, None, flags, found)
    except OSError:  # another sandbox's filter may have its own opinion
        return None
    user_s, user_us, system_s, system_us, peak_kib, *_ = _RUSAGE.unpack(found)
    return Usage((user_s + system_s) * 1_000_000 + user_us + system_us, peak_kib << 10)
