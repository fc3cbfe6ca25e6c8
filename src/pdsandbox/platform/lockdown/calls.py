"""System calls that the standard library does not offer, by number: x86_64 and aarch64 where they agree, else a table.

Source of the numbers: the kernel's arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any, Final

# The same on all machines since Linux 5.1.
LANDLOCK_CREATE_RULESET: Final = 444
LANDLOCK_ADD_RULE: Final = 445
LANDLOCK_RESTRICT_SELF: Final = 446

# Keeps the GIL: each takes microseconds, and a fresh fork has one thread. `use_errno` keeps errno from being
# overwritten between the call and the look at it.
_libc: Final = ctypes.PyDLL(None, use_errno=True)
_syscall: Final = _libc["syscall"]
_syscall.restype = ctypes.c_long
_prctl: Final = _libc["prctl"]
_prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)


def syscall(what: str, number: int, *args: Any) -> int:
    """The call's result; OSError, naming `what`, when it failed. Integers are passed as C longs."""
    result: int = _syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in args))
    if result < 0:
        raise failed(what)
    return result


def prctl(what: str, option: int, *args: int) -> int:
    """The same for prctl(2); arguments that are not given are 0, as newer options demand."""
    result: int = _prctl(option, *args, *(0,) * (4 - len(args)))
    if result < 0:
        raise failed(what)
    return result


def failed(what: str) -> OSError:
    """What errno says about `what`, which has just failed."""
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")
