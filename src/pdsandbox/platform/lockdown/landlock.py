"""Landlock: no file, no TCP port, no abstract socket, no signal to anybody outside the domain. Needs Linux 5.13.

A ruleset without a single rule denies all that it handles. It is made once, before the fork; each worker puts itself
into a domain of its own with it, so that workers cannot signal each other either. A worker with granted directories
makes one of its own, with a rule for each of them. Source: the kernel's Documentation/userspace-api/landlock.rst;
ABI 2 brought renaming to another directory (Linux 5.19), 3 truncation (6.2), 4 TCP (6.7), 6 scopes (6.12).
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

from .calls import LANDLOCK_ADD_RULE, LANDLOCK_CREATE_RULESET, LANDLOCK_RESTRICT_SELF, syscall

TRUNCATE_ABI: Final = 3
TCP_ABI: Final = 4
SCOPE_ABI: Final = 6
_VERSION: Final = 1  # LANDLOCK_CREATE_RULESET_VERSION
# LANDLOCK_ACCESS_FS_*: all bits that the ABI knows; 13 in the first, one more each in 2 (REFER), 3 (TRUNCATE),
# 5 (IOCTL_DEV).
_FS_BITS: Final = {1: 13, 2: 14, 3: 15, 4: 15}
_FS_BITS_NOW: Final = 16
_PATH_BENEATH: Final = 1  # LANDLOCK_RULE_PATH_BENEATH
_READ: Final = 1 << 2 | 1 << 3  # READ_FILE, READ_DIR
# WRITE_FILE, REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG, MAKE_SYM, REFER, TRUNCATE. Not EXECUTE, nor devices,
# sockets and FIFOs.
_WRITE: Final = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 12 | 1 << 13 | 1 << 14
_NET_BIND_CONNECT: Final = 3
_SCOPE_SOCKET_SIGNAL: Final = 3


def abi() -> int:
    """The kernel's Landlock ABI, 1 or more; OSError when there is none (ENOSYS) or it was not enabled (EOPNOTSUPP)."""
    return syscall("landlock_create_ruleset", LANDLOCK_CREATE_RULESET, None, 0, _VERSION)


def ruleset(version: int) -> int:
    """A descriptor, close-on-exec, of the ruleset that denies all that `version` can."""
    attributes = struct.pack(
        "<QQQ",
        _handled(version),
        _NET_BIND_CONNECT if version >= TCP_ABI else 0,
        _SCOPE_SOCKET_SIGNAL if version >= SCOPE_ABI else 0,
    )
    size = 24 if version >= SCOPE_ABI else 16 if version >= TCP_ABI else 8
    return syscall("landlock_create_ruleset", LANDLOCK_CREATE_RULESET, ctypes.c_char_p(attributes), size, 0)


def _handled(version: int) -> int:
    return (1 << _FS_BITS.get(version, _FS_BITS_NOW)) - 1


def allow_beneath(fd: int, version: int, directory: int, *, writable: bool) -> None:
    """Except from the ruleset what is beneath this open directory: reading, and with `writable` what changes files,
    directories and symbolic links there, as far as `version` tells it apart."""
    access = (_READ | _WRITE if writable else _READ) & _handled(version)
    rule = struct.pack("=Qi", access, directory)
    syscall("landlock_add_rule", LANDLOCK_ADD_RULE, fd, _PATH_BENEATH, ctypes.c_char_p(rule), 0)


def restrict(fd: int) -> None:
    """Put the calling thread, and whatever it starts, under the ruleset for good. Closes the descriptor."""
    syscall("landlock_restrict_self", LANDLOCK_RESTRICT_SELF, fd, 0)
    os.close(fd)
