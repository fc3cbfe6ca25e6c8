"""The numbers and layouts of `wasi_snapshot_preview1`. Data only.

Source: the witx files of WASI preview 1 (`typenames.witx`, `wasi_snapshot_preview1.witx`).
"""

from __future__ import annotations

import errno
import struct
from typing import Final

from ...externs import FuncType

MODULE: Final = "wasi_snapshot_preview1"

# One letter a parameter: i for i32, I for i64. All return an errno, but the one that does not return.
_PARAMS: Final = {
    "args_get": "ii",
    "args_sizes_get": "ii",
    "environ_get": "ii",
    "environ_sizes_get": "ii",
    "clock_res_get": "ii",
    "clock_time_get": "iIi",
    "fd_advise": "iIIi",
    "fd_allocate": "iII",
    "fd_close": "i",
    "fd_datasync": "i",
    "fd_fdstat_get": "ii",
    "fd_fdstat_set_flags": "ii",
    "fd_fdstat_set_rights": "iII",
    "fd_filestat_get": "ii",
    "fd_filestat_set_size": "iI",
    "fd_filestat_set_times": "iIIi",
    "fd_pread": "iiiIi",
    "fd_prestat_get": "ii",
    "fd_prestat_dir_name": "iii",
    "fd_pwrite": "iiiIi",
    "fd_read": "iiii",
    "fd_readdir": "iiiIi",
    "fd_renumber": "ii",
    "fd_seek": "iIii",
    "fd_sync": "i",
    "fd_tell": "ii",
    "fd_write": "iiii",
    "path_create_directory": "iii",
    "path_filestat_get": "iiiii",
    "path_filestat_set_times": "iiiiIIi",
    "path_link": "iiiiiii",
    "path_open": "iiiiiIIii",
    "path_readlink": "iiiiii",
    "path_remove_directory": "iii",
    "path_rename": "iiiiii",
    "path_symlink": "iiiii",
    "path_unlink_file": "iii",
    "poll_oneoff": "iiii",
    "proc_exit": "i",
    "proc_raise": "i",
    "sched_yield": "",
    "random_get": "ii",
    "sock_accept": "iii",
    "sock_recv": "iiiiii",
    "sock_send": "iiiii",
    "sock_shutdown": "ii",
}
_TYPES: Final = {"i": "i32", "I": "i64"}
_SLOTS: Final = {"i": "I12x", "I": "Q8x"}

SIGNATURES: Final = {
    name: FuncType(tuple([_TYPES[p] for p in params]), () if name == "proc_exit" else ("i32",))
    for name, params in _PARAMS.items()
}
#: How the arguments lie in the raw slots, 16 bytes each; all come unsigned.
ARGUMENTS: Final = {name: struct.Struct("<" + "".join([_SLOTS[p] for p in params])) for name, params in _PARAMS.items()}

_ERRNOS: Final = (
    "success 2big acces addrinuse addrnotavail afnosupport again already badf badmsg busy canceled child connaborted "
    "connrefused connreset deadlk destaddrreq dom dquot exist fault fbig hostunreach idrm ilseq inprogress intr inval "
    "io isconn isdir loop mfile mlink msgsize multihop nametoolong netdown netreset netunreach nfile nobufs nodev "
    "noent noexec nolck nolink nomem nomsg noprotoopt nospc nosys notconn notdir notempty notrecoverable notsock "
    "notsup notty nxio overflow ownerdead perm pipe proto protonosupport prototype range rofs spipe srch stale "
    "timedout txtbsy xdev notcapable"
)
#: Number of each error, by its name in the specification.
ERRNO: Final = {name: number for number, name in enumerate(_ERRNOS.split())}

AGAIN, BADF, BUSY, DQUOT, EXIST = (ERRNO[name] for name in ("again", "badf", "busy", "dquot", "exist"))
FBIG, ILSEQ, INVAL, IO, ISDIR, LOOP, MFILE = (
    ERRNO[name] for name in ("fbig", "ilseq", "inval", "io", "isdir", "loop", "mfile")
)
NAMETOOLONG, NOENT, NOMEM, NOTDIR, NOTSOCK, NOTSUP = (
    ERRNO[name] for name in ("nametoolong", "noent", "nomem", "notdir", "notsock", "notsup")
)
OVERFLOW, PERM, SPIPE, XDEV = (ERRNO[name] for name in ("overflow", "perm", "spipe", "xdev"))

# `canceled` has one l in the specification, and two in Linux.
_LINUX: Final = {"canceled": "ECANCELED", "notsup": "EOPNOTSUPP"}
_FROM_LINUX: Final = {
    number: code
    for name, code in ERRNO.items()
    if (number := getattr(errno, _LINUX.get(name, "E" + name.upper()), None)) is not None
}


def from_os(number: int | None) -> int:
    """The WASI error for one of Linux's; IO for one that WASI does not know."""
    return _FROM_LINUX.get(number or 0, IO)


# filetype
UNKNOWN, BLOCK_DEVICE, CHARACTER_DEVICE, DIRECTORY, REGULAR_FILE, SOCKET_DGRAM, SOCKET_STREAM, SYMBOLIC_LINK = range(8)
# clockid
REALTIME, MONOTONIC = range(2)
CLOCKS: Final = 4
# oflags, fdflags, fstflags, lookupflags, subclockflags: bits, and all bits that there are
O_CREAT, O_DIRECTORY, O_EXCL, O_TRUNC, OFLAGS = 1, 2, 4, 8, 15
APPEND, DSYNC, NONBLOCK, RSYNC, SYNC, FDFLAGS = 1, 2, 4, 8, 16, 31
ATIM, ATIM_NOW, MTIM, MTIM_NOW, FSTFLAGS = 1, 2, 4, 8, 15
SYMLINK_FOLLOW: Final = 1
ABSTIME: Final = 1
# eventtype, eventrwflags
EVENT_CLOCK, EVENT_READ, EVENT_WRITE = range(3)
HANGUP: Final = 1
# whence
SEEK_SET, SEEK_CUR, SEEK_END = range(3)
ADVICES: Final = 6
SIGNALS: Final = 31

_RIGHTS: Final = (
    "fd_datasync fd_read fd_seek fd_fdstat_set_flags fd_sync fd_tell fd_write fd_advise fd_allocate "
    "path_create_directory path_create_file path_link_source path_link_target path_open fd_readdir path_readlink "
    "path_rename_source path_rename_target path_filestat_get path_filestat_set_size path_filestat_set_times "
    "fd_filestat_get fd_filestat_set_size fd_filestat_set_times path_symlink path_remove_directory path_unlink_file "
    "poll_fd_readwrite sock_shutdown sock_accept"
)
_RIGHT: Final = {name: 1 << bit for bit, name in enumerate(_RIGHTS.split())}


def rights(names: str) -> int:
    """The bits of the rights that are named, separated by blanks."""
    return sum(_RIGHT[name] for name in names.split())


RIGHTS_ALL: Final = (1 << len(_RIGHT)) - 1
RIGHT_READ: Final = rights("fd_read")
RIGHT_WRITE: Final = rights("fd_write")
RIGHT_READDIR: Final = rights("fd_readdir")

u32: Final = struct.Struct("<I")
u64: Final = struct.Struct("<Q")
#: iovec and ciovec: address, length
iovec: Final = struct.Struct("<II")
#: fdstat: filetype, flags, rights, rights that are inherited
fdstat: Final = struct.Struct("<BxHxxxxQQ")
#: filestat: dev, ino, filetype, nlink, size, atim, mtim, ctim
filestat: Final = struct.Struct("<QQB7xQQQQQ")
#: dirent: next, ino, namlen, type
dirent: Final = struct.Struct("<QQIB3x")
#: prestat: tag (0: a directory), length of its name
prestat: Final = struct.Struct("<B3xI")
#: subscription: userdata, type; of a clock: id, timeout, precision, flags; of a descriptor: its number, where id is
subscription: Final = struct.Struct("<QB7xI4xQQH6x")
#: event: userdata, error, type, bytes that are ready, flags
event: Final = struct.Struct("<QHB5xQH6x")
