"""Giving up identity, capabilities, and the means to get any back; resource limits; namespaces.

Sources: capabilities(7), credentials(7), prctl(2), getrlimit(2), namespaces(7).
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from typing import Final

from .calls import failed, prctl

NOBODY: Final = 65534

_CAP_KILL: Final = 5
_CAP_SETGID: Final = 6
_CAP_SETUID: Final = 7
_CAP_SYS_ADMIN: Final = 21
#: What a fork server that changes its children's user needs, and nothing else: they are to be killed and reaped, too.
FORK_SERVER_CAPS: Final = 1 << _CAP_KILL | 1 << _CAP_SETGID | 1 << _CAP_SETUID

_PR_GET_PDEATHSIG: Final = 2
_PR_GET_DUMPABLE: Final = 3
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_GET_NO_NEW_PRIVS: Final = 39
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_PR_SET_MDWE: Final = 65
_PR_GET_MDWE: Final = 66
_MDWE_REFUSE_EXEC_GAIN: Final = 1

_CAPABILITY_VERSION_3: Final = 0x20080522
_capset: Final = ctypes.PyDLL(None, use_errno=True)["capset"]
_capget: Final = ctypes.PyDLL(None, use_errno=True)["capget"]
_unshare: Final = ctypes.PyDLL(None, use_errno=True)["unshare"]
_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWNET = 0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x40000000


def capabilities() -> int:
    """Those that are effective, and those that could be made so, as a bit mask."""
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    data = ctypes.create_string_buffer(24)
    if _capget(ctypes.c_char_p(header), data):
        raise failed("capget")
    low_effective, low, _, high_effective, high, _ = struct.unpack("<6I", data.raw)
    return int((high | high_effective) << 32 | low | low_effective)


def keep_capabilities(mask: int) -> None:
    """Keep those in `mask` of what this thread has, as permitted and effective; nothing is inheritable."""
    low, high = mask & 0xFFFFFFFF, mask >> 32
    prctl("prctl(PR_CAP_AMBIENT_CLEAR_ALL)", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    data = struct.pack("<6I", low, low, 0, high, high, 0)
    if _capset(ctypes.c_char_p(header), ctypes.c_char_p(data)):
        raise failed("capset")


def may_change_user() -> bool:
    """Whether this process may become another user, and still kill those that did. Root in a container may not."""
    return capabilities() & FORK_SERVER_CAPS == FORK_SERVER_CAPS


def become(uid: int, gid: int) -> None:
    """Real, effective and saved ids; no supplementary groups. Clears the parent-death signal and makes the process
    undumpable, also where the ids were these already."""
    os.setgroups(())
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    be_undumpable()


def refuse_new_privileges() -> None:
    prctl("prctl(PR_SET_NO_NEW_PRIVS)", _PR_SET_NO_NEW_PRIVS, 1)


def new_privileges_refused() -> bool:
    return prctl("prctl(PR_GET_NO_NEW_PRIVS)", _PR_GET_NO_NEW_PRIVS) == 1


def refuse_executable_gain() -> None:
    """No memory becomes executable that was not so from the start. Needs Linux 6.3."""
    prctl("prctl(PR_SET_MDWE)", _PR_SET_MDWE, _MDWE_REFUSE_EXEC_GAIN)


def executable_gain_refused() -> bool:
    return bool(prctl("prctl(PR_GET_MDWE)", _PR_GET_MDWE) & _MDWE_REFUSE_EXEC_GAIN)


def be_undumpable() -> None:
    prctl("prctl(PR_SET_DUMPABLE)", _PR_SET_DUMPABLE, 0)


def is_dumpable() -> bool:
    return prctl("prctl(PR_GET_DUMPABLE)", _PR_GET_DUMPABLE) == 1


def parent_death_signal() -> int:
    number = ctypes.c_int()
    prctl("prctl(PR_GET_PDEATHSIG)", _PR_GET_PDEATHSIG, ctypes.addressof(number))
    return number.value


def needs_user_namespace() -> bool:
    """Whether `unshare` takes a user namespace as well: nobody without SYS_ADMIN gets the others otherwise."""
    return not capabilities() & 1 << _CAP_SYS_ADMIN


def unshare() -> None:
    """A network without interfaces, no System V IPC, an own host name and an own copy of the mounts."""
    flags = _NEWNET | _NEWIPC | _NEWUTS | _NEWNS
    if needs_user_namespace():
        flags |= _NEWUSER
    if _unshare(ctypes.c_int(flags)):
        raise failed("unshare")


def set_limit(kind: int, most: int) -> None:
    """Soft and hard, unless the hard one is lower already."""
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(kind, (most, most))
