"""The calls on open descriptors that ask for attributes or set them: type, rights, times, name; and syncing."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from ...platform import files
from . import abi
from .attributes import check_bits, filestat, filetype, times_of
from .memory import Errno
from .system import System
from .table import Directory, File, Stdin, Stdout

_PREOPENED: Final = abi.rights(
    "path_create_directory path_create_file path_link_source path_link_target path_open fd_readdir path_readlink "
    "path_rename_source path_rename_target path_symlink path_remove_directory path_unlink_file path_filestat_get "
    "path_filestat_set_times fd_filestat_get fd_filestat_set_times"
)
_INHERITED: Final = _PREOPENED | abi.rights(
    "fd_datasync fd_read fd_seek fd_fdstat_set_flags fd_sync fd_tell fd_write fd_advise fd_allocate "
    "fd_filestat_set_size poll_fd_readwrite"
)
_NO_DIRECTORY: Final = abi.rights("fd_seek fd_filestat_set_size path_filestat_set_size")


def fd_sync(system: System, fd: int) -> None:
    os.fsync(system.table.file(fd).fd)


def fd_datasync(system: System, fd: int) -> None:
    os.fdatasync(system.table.file(fd).fd)


def _stream_type(tty: bool) -> int:
    """By this a C library in the guest knows a terminal."""
    return abi.CHARACTER_DEVICE if tty else abi.UNKNOWN


def fd_fdstat_get(system: System, fd: int, out: int) -> None:
    found = system.table.any(fd)
    flags = 0
    if isinstance(found, Stdin):
        kind, rights = _stream_type(found.stream.tty), abi.RIGHT_READ
    elif isinstance(found, Stdout):
        kind, rights = _stream_type(found.stream.tty), abi.RIGHT_WRITE
    elif isinstance(found, Directory):
        kind, rights = abi.DIRECTORY, abi.RIGHTS_ALL & ~_NO_DIRECTORY & ~abi.RIGHT_WRITE
        if not found.reads:
            rights &= ~(abi.RIGHT_READ | abi.RIGHT_READDIR)
    else:
        assert isinstance(found, File)
        kind, rights, flags = filetype(os.fstat(found.fd).st_mode), abi.RIGHTS_ALL, found.flags
        if not found.reads:
            rights &= ~(abi.RIGHT_READ | abi.RIGHT_READDIR)
        if not found.writes:
            rights &= ~abi.RIGHT_WRITE
    inherited = rights
    if isinstance(found, Directory) and found.name is not None:
        rights, inherited = _PREOPENED, _INHERITED
    system.memory.write(out, abi.fdstat.pack(kind, flags, rights, inherited), 8)


def fd_fdstat_set_flags(system: System, fd: int, flags: int) -> None:
    check_bits(flags, abi.FDFLAGS)
    file = system.table.file(fd)
    if flags & (abi.DSYNC | abi.SYNC | abi.RSYNC):
        raise Errno(abi.INVAL)
    file.flags = flags


def fd_fdstat_set_rights(system: System, fd: int, _base: int, _inheriting: int) -> None:
    """wasmtime gave rights up: what a grant allows does not change."""
    if isinstance(system.table.any(fd), Stdin | Stdout):
        raise Errno(abi.BADF)
    raise Errno(abi.NOTSUP)


def fd_filestat_get(system: System, fd: int, out: int) -> None:
    found = system.table.any(fd)
    if isinstance(found, Stdin | Stdout):
        raw = abi.filestat.pack(0, 0, _stream_type(found.stream.tty), 0, 0, 0, 0, 0)
    else:
        assert isinstance(found, File | Directory)
        raw = filestat(system, os.fstat(found.fd))
    system.memory.write(out, raw, 8)


def fd_filestat_set_times(system: System, fd: int, atim: int, mtim: int, flags: int) -> None:
    times = times_of(system, atim, mtim, flags)
    found = system.table.any(fd)
    if not isinstance(found, File | Directory):
        raise Errno(abi.BADF)
    found.grant.check_writable()
    files.set_times(found.fd, *times)


def fd_prestat_get(system: System, fd: int, out: int) -> None:
    found = system.table.any(fd)
    if not isinstance(found, Directory) or found.name is None:
        raise Errno(abi.BADF)
    system.memory.write(out, abi.prestat.pack(0, len(found.name)), 4)


def fd_prestat_dir_name(system: System, fd: int, path: int, length: int) -> None:
    found = system.table.any(fd)
    if not isinstance(found, Directory) or found.name is None:
        raise Errno(abi.NOTDIR)
    if len(found.name) > length:
        raise Errno(abi.NAMETOOLONG)
    system.memory.write(path, found.name)


CALLS: Final[dict[str, Callable[..., None]]] = {
    "fd_sync": fd_sync,
    "fd_datasync": fd_datasync,
    "fd_fdstat_get": fd_fdstat_get,
    "fd_fdstat_set_flags": fd_fdstat_set_flags,
    "fd_fdstat_set_rights": fd_fdstat_set_rights,
    "fd_filestat_get": fd_filestat_get,
    "fd_filestat_set_times": fd_filestat_set_times,
    "fd_prestat_get": fd_prestat_get,
    "fd_prestat_dir_name": fd_prestat_dir_name,
}
