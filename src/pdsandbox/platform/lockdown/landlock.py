"""Landlock: no file, no TCP port, no abstract socket, no signal to anybody outside the domain. Needs Linux 5.13.

A ruleset without a single rule denies all that it handles. It is made once, before the fork; each worker puts itself
into a domain of its own with it, so that workers cannot signal each other either. Source: the kernel's
Documentation/userspace-api/landlock.rst; ABI 4 brought TCP (Linux 6.7), ABI 6 scopes (Linux 6.12).
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

from .calls import LANDLOCK_CREATE_RULESET, LANDLOCK_RESTRICT_SELF, syscall

TCP_ABI: Final = 4
SCOPE_ABI: Final = 6
_VERSION: Final = 1  # LANDLOCK_CREATE_RULESET_VERSION
# LANDLOCK_ACCESS_FS_*: all bits that the ABI knows; 13 in the first, one more each in 2 (REFER), 3 (TRUNCATE),
# 5 (IOCTL_DEV).
_FS_BITS: Final = {1: 13, 2: 14, 3: 15, 4: 15}
_FS_BITS_NOW: Final = 16
_NET_BIND_CONNECT: Final = 3
_SCOPE_SOCKET_SIGNAL: Final = 3


def abi() -> int:
    """The kernel's Landlock ABI, 1 or more; OSError when there is none (ENOSYS) or it was not enabled (EOPNOTSUPP)."""
    return syscall("landlock_create_ruleset", LANDLOCK_CREATE_RULESET, None, 0, _VERSION)


def ruleset(version: int) -> int:
    """A descriptor, close-on-exec, of the ruleset that denies all that `version` can."""
    attributes = struct.pack(
        "<QQQ",
        (1 << _FS_BITS.get(version, _FS_BITS_NOW)) - 1,
        _NET_BIND_CONNECT if version >= TCP_ABI else 0,
        _SCOPE_SOCKET_SIGNAL if version >= SCOPE_ABI else 0,
    )
    size = 24 if version >= SCOPE_ABI else 16 if version >= TCP_ABI else 8
    return syscall("landlock_create_ruleset", LANDLOCK_CREATE_RULESET, ctypes.c_char_p(attributes), size, 0)


def restrict(fd: int) -> None:
    """Put the calling thread, and whatever it starts, under the ruleset for good. Closes the descriptor."""
    syscall("landlock_restrict_self", LANDLOCK_RESTRICT_SELF, fd, 0)
    os.close(fd)
