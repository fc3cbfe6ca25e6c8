"""The calls on paths. Each resolves the path beneath the directory it is relative to, and acts on one name in a
directory that is held open; no link is followed while it acts.

Errors are those of Linux; a path that leads out, and writing where only reading is granted, is PERM, as in wasmtime.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from ...platform import files
from . import abi
from .attributes import check_bits, filestat, times_of
from .beneath import parent_of
from .memory import Errno
from .system import System
from .table import Directory, File

# Nobody waits for a FIFO's other end, and a terminal does not become ours.
_ALWAYS: Final = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_MODE: Final = 0o666


def path_open(
    system: System,
    fd: int,
    lookup: int,
    path: int,
    path_len: int,
    oflags: int,
    rights: int,
    _inheriting: int,
    fdflags: int,
    out: int,
) -> None:
    check_bits(lookup, abi.SYMLINK_FOLLOW)
    check_bits(oflags, abi.OFLAGS)
    check_bits(fdflags, abi.FDFLAGS)
    system.memory.address(out, 4, 4)
    name = system.memory.path(path, path_len)
    within = system.table.any(fd)
    if isinstance(within, File):
        raise Errno(abi.NOTDIR)
    if not isinstance(within, Directory):
        raise Errno(abi.BADF)
    if fdflags & (abi.DSYNC | abi.SYNC | abi.RSYNC):
        raise Errno(abi.NOTSUP)
    if oflags & abi.O_DIRECTORY and oflags != abi.O_DIRECTORY:
        raise Errno(abi.INVAL)
    writes = bool(rights & abi.RIGHT_WRITE or oflags & (abi.O_CREAT | abi.O_TRUNC))
    reads = bool(rights & abi.RIGHT_READ or not rights & abi.RIGHT_WRITE)
    if writes:
        within.grant.check_writable()
    system.table.check_room()
    flags = _ALWAYS | (os.O_RDWR if reads and writes else os.O_WRONLY if writes else os.O_RDONLY)
    if not lookup:
        flags |= os.O_NOFOLLOW
    opened = _open(system, within, name, flags, oflags)
    try:
        found = os.fstat(opened)
        made: Directory | File
        if stat.S_ISDIR(found.st_mode):
            made = Directory(opened, within.grant, path=within.beneath(name), reads=reads, writes=writes)
        elif oflags & abi.O_DIRECTORY:
            raise Errno(abi.NOTDIR)
        else:
            identity = (found.st_dev, found.st_ino)
            made = File(opened, within.grant, identity, reads=reads, writes=writes, flags=fdflags)
    except BaseException:
        os.close(opened)
        raise
    system.memory.write_u32(out, system.table.add(made))


def _open(system: System, within: Directory, name: bytes, flags: int, oflags: int) -> int:
    """Create and truncate by steps where there is a quota, so that it sees each of them."""
    excl = os.O_EXCL if oflags & abi.O_EXCL and oflags & abi.O_CREAT else 0
    quota = within.grant.quota
    if quota is None or not oflags & (abi.O_CREAT | abi.O_TRUNC):
        creat = os.O_CREAT if oflags & abi.O_CREAT else 0
        trunc = os.O_TRUNC if oflags & abi.O_TRUNC else 0
        return system.open_at(within.fd, name, flags | creat | excl | trunc, _MODE if creat else 0)
    opened = -1
    if not excl:
        try:
            opened = system.open_at(within.fd, name, flags)
        except FileNotFoundError:
            if not oflags & abi.O_CREAT:
                raise
    if opened < 0:
        quota.add_entry()
        try:
            return system.open_at(within.fd, name, flags | os.O_CREAT | excl, _MODE)
        except BaseException:
            quota.drop_entry()
            raise
    try:
        if oflags & abi.O_CREAT and stat.S_ISDIR(os.fstat(opened).st_mode):
            raise Errno(abi.ISDIR)
        if oflags & abi.O_TRUNC:
            size = os.fstat(opened).st_size
            os.ftruncate(opened, 0)
            quota.grow(size, 0)
    except BaseException:
        os.close(opened)
        raise
    return opened


@contextmanager
def _parent(system: System, within: Directory, path: bytes) -> Iterator[tuple[int, bytes, bool]]:
    """As `parent_of`; the directory is closed in the end."""
    parent, name, slash = parent_of(system.open_at, within.fd, path)
    try:
        yield parent, name, slash
    finally:
        os.close(parent)


def _lstat(parent: int, name: bytes) -> os.stat_result:
    return os.stat(name, dir_fd=parent, follow_symlinks=False)


def _check_directory(system: System, within: Directory, path: bytes) -> None:
    """A path that ends in a slash names a directory, perhaps through a link; the error when it does not."""
    os.close(system.open_at(within.fd, path, os.O_PATH | os.O_DIRECTORY))


def _writable(system: System, fd: int, path: int, path_len: int) -> tuple[Directory, bytes]:
    """The directory, which may be written, and the path."""
    within = system.table.directory(fd)
    name = system.memory.path(path, path_len)
    within.grant.check_writable()
    return within, name


def path_create_directory(system: System, fd: int, path: int, path_len: int) -> None:
    within, name = _writable(system, fd, path, path_len)
    with _parent(system, within, name) as (parent, last, _slash):
        quota = within.grant.quota
        if quota is not None:
            quota.add_entry()
        try:
            os.mkdir(last, dir_fd=parent)
        except OSError:
            if quota is not None:
                quota.drop_entry()
            raise


def path_symlink(system: System, target: int, target_len: int, fd: int, path: int, path_len: int) -> None:
    within = system.table.directory(fd)
    content = system.memory.path(target, target_len)
    within, name = _writable(system, fd, path, path_len)
    if content.startswith(b"/"):
        raise Errno(abi.PERM)
    with _parent(system, within, name) as (parent, last, slash):
        if slash and last != b".":
            _check_directory(system, within, name)
            raise Errno(abi.EXIST)
        quota = within.grant.quota
        if quota is not None:
            quota.add_entry(len(content))
        try:
            os.symlink(content, last, dir_fd=parent)
        except OSError:
            if quota is not None:
                quota.drop_entry(len(content))
            raise


def path_readlink(system: System, fd: int, path: int, path_len: int, buffer: int, size: int, out: int) -> None:
    within = system.table.directory(fd)
    name = system.memory.path(path, path_len)
    system.memory.address(out, 4, 4)
    if size:
        system.memory.address(buffer, size)
    with _parent(system, within, name) as (parent, last, slash):
        if slash:
            _check_directory(system, within, name)
            raise Errno(abi.INVAL)  # a directory is no link
        target = os.readlink(last, dir_fd=parent)
    if target.startswith(b"/"):
        raise Errno(abi.PERM)  # the host's names are not the guest's to know
    system.memory.write(buffer, target[:size])
    system.memory.write_u32(out, min(len(target), size))


def path_remove_directory(system: System, fd: int, path: int, path_len: int) -> None:
    within, name = _writable(system, fd, path, path_len)
    with _parent(system, within, name) as (parent, last, _slash):
        os.rmdir(last, dir_fd=parent)
    if within.grant.quota is not None:
        within.grant.quota.drop_entry()


def path_unlink_file(system: System, fd: int, path: int, path_len: int) -> None:
    within, name = _writable(system, fd, path, path_len)
    with _parent(system, within, name) as (parent, last, slash):
        if slash:
            _check_directory(system, within, name)
        found = _lstat(parent, last)
        if slash or stat.S_ISDIR(found.st_mode):
            raise Errno(abi.ISDIR)
        os.unlink(last, dir_fd=parent)
    _gone(system, within, found)


def _gone(system: System, within: Directory, found: os.stat_result) -> None:
    """A name of this file has gone; if it was the last, so has what it held, unless the guest still has it open."""
    quota = within.grant.quota
    if quota is None:
        return
    if found.st_nlink > 1 or stat.S_ISDIR(found.st_mode):
        quota.drop_entry()
        return
    identity = (found.st_dev, found.st_ino)
    still_open = [file for file in system.table.files() if file.identity == identity]
    if still_open:
        still_open[0].orphan = True
        quota.drop_entry()
    else:
        quota.drop_entry(found.st_size if stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode) else 0)


def _check_one_grant(within: Directory, target: Directory) -> None:
    """A name that went from one granted directory to another would take along what no quota there has seen. As between
    two file systems: programs copy then."""
    if within.grant is not target.grant and (within.grant.quota is not None or target.grant.quota is not None):
        raise Errno(abi.XDEV)


def path_rename(
    system: System, fd: int, path: int, path_len: int, new_fd: int, new_path: int, new_path_len: int
) -> None:
    within, old = _writable(system, fd, path, path_len)
    target, new = _writable(system, new_fd, new_path, new_path_len)
    _check_one_grant(within, target)
    with (
        _parent(system, within, old) as (parent, last, slash),
        _parent(system, target, new) as (new_parent, new_last, new_slash),
    ):
        if b"." in (last, new_last):
            raise Errno(abi.BUSY)
        source = _lstat(parent, last)
        if (slash or new_slash) and not stat.S_ISDIR(source.st_mode):
            raise Errno(abi.NOTDIR)
        replaced: os.stat_result | None = None
        if target.grant.quota is not None:
            try:
                replaced = _lstat(new_parent, new_last)
            except FileNotFoundError:
                pass
        os.rename(last, new_last, src_dir_fd=parent, dst_dir_fd=new_parent)
    if replaced is not None and (replaced.st_dev, replaced.st_ino) != (source.st_dev, source.st_ino):
        _gone(system, target, replaced)


def path_link(
    system: System, fd: int, lookup: int, path: int, path_len: int, new_fd: int, new_path: int, new_path_len: int
) -> None:
    check_bits(lookup, abi.SYMLINK_FOLLOW)
    within, old = _writable(system, fd, path, path_len)
    target, new = _writable(system, new_fd, new_path, new_path_len)
    if lookup:
        raise Errno(abi.INVAL)  # as wasmtime: a link to a link is a link to that
    _check_one_grant(within, target)
    with (
        _parent(system, within, old) as (parent, last, slash),
        _parent(system, target, new) as (new_parent, new_last, new_slash),
    ):
        if slash:
            _check_directory(system, within, old)
        if slash or stat.S_ISDIR(_lstat(parent, last).st_mode):
            raise Errno(abi.PERM)
        if new_slash and new_last != b".":
            _check_directory(system, target, new)
            raise Errno(abi.EXIST)
        quota = target.grant.quota
        if quota is not None:
            quota.add_entry()
        try:
            os.link(last, new_last, src_dir_fd=parent, dst_dir_fd=new_parent, follow_symlinks=False)
        except OSError:
            if quota is not None:
                quota.drop_entry()
            raise


def path_filestat_get(system: System, fd: int, lookup: int, path: int, path_len: int, out: int) -> None:
    check_bits(lookup, abi.SYMLINK_FOLLOW)
    within = system.table.directory(fd)
    name = system.memory.path(path, path_len)
    system.memory.address(out, abi.filestat.size, 8)
    found = system.open_at(within.fd, name, os.O_PATH | (0 if lookup else os.O_NOFOLLOW))
    try:
        raw = filestat(system, os.fstat(found))
    finally:
        os.close(found)
    system.memory.write(out, raw, 8)


def path_filestat_set_times(
    system: System, fd: int, lookup: int, path: int, path_len: int, atim: int, mtim: int, flags: int
) -> None:
    check_bits(lookup, abi.SYMLINK_FOLLOW)
    times = times_of(system, atim, mtim, flags)
    within, name = _writable(system, fd, path, path_len)
    nofollow = 0 if lookup else os.O_NOFOLLOW
    opened = True
    try:
        found = system.open_at(within.fd, name, os.O_RDONLY | _ALWAYS | nofollow)
    except OSError:
        # A symbolic link, a socket, a file that may not be read. A worker's filter lets the times be set of what can
        # be opened only, since nothing else in it would tell where a path leads.
        found = system.open_at(within.fd, name, os.O_PATH | nofollow)
        opened = False
    try:
        if opened:
            files.set_times(found, *times)
        else:
            system.set_times_of_path(found, within, name, *times)
    finally:
        os.close(found)


CALLS: Final[dict[str, Callable[..., None]]] = {
    "path_open": path_open,
    "path_create_directory": path_create_directory,
    "path_symlink": path_symlink,
    "path_readlink": path_readlink,
    "path_remove_directory": path_remove_directory,
    "path_unlink_file": path_unlink_file,
    "path_rename": path_rename,
    "path_link": path_link,
    "path_filestat_get": path_filestat_get,
    "path_filestat_set_times": path_filestat_set_times,
}
