"""Attempts in a worker with granted directories on what Landlock does not look at, and what such a worker may do."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import stat

from escape_granted import at_granted, granted_fd, making, open_at, opening, opening_path, with_file
from escape_scene import AT_FDCWD, LEFT, NEEDS_ROOT, NOT_BUILT_IN, OK, Attempt, Scene, call

_BUFFER = ctypes.create_string_buffer(4096)
_ADDRESS = ctypes.addressof(_BUFFER)
_AT_REMOVEDIR = 0x200
_EXCHANGE = 2
_FS_IOC_GETFLAGS = 0x80086601
_NO_ATTRIBUTES = {"EOPNOTSUPP": "this file system has none", "ENODATA": "this file has none"}


def _same_mode(fd: int) -> None:
    call("fchmod", fd, stat.S_IMODE(os.fstat(fd).st_mode))


def _same_owner(fd: int) -> None:
    found = os.fstat(fd)
    call("fchown", fd, found.st_uid, found.st_gid)


def _map_it(prot: int, flags: int):
    def act(fd: int) -> None:
        call("munmap", call("mmap", 0, 4096, prot, flags, fd, 0), 4096)

    return act


def _copy_range(scene: Scene) -> None:
    source, target = (open_at(granted_fd(scene, "rw"), "inside", flags) for flags in (os.O_RDONLY, os.O_WRONLY))
    try:
        call("copy_file_range", source, 0, target, 0, 0, 0)
    finally:
        os.close(source)
        os.close(target)


def _set_user_id_file(scene: Scene) -> None:
    """A program that runs as the owner of the directory, and does something."""
    directory = granted_fd(scene, "rw")
    fd = open_at(directory, "set-user-id", os.O_CREAT | os.O_RDWR, 0o4755)
    try:
        os.write(fd, b"#!/bin/sh\n")
        if not os.fstat(fd).st_mode & stat.S_ISUID:
            raise OSError(errno.EPERM, "the bit has gone")
    finally:
        os.close(fd)
        call("unlinkat", directory, b"set-user-id", 0)


def _run(scene: Scene) -> None:
    os.execv(f"{scene.directory}/rw/program", ["program"])


def _list(which: str):
    def attempt(scene: Scene) -> None:
        fd = open_at(granted_fd(scene, which), ".", os.O_DIRECTORY)
        try:
            call("getdents64", fd, _ADDRESS, 4096)
        finally:
            os.close(fd)

    return attempt


def _use(scene: Scene) -> None:
    """What a directory is granted for."""
    fd = granted_fd(scene, "rw")
    call("mkdirat", fd, b"a", 0o700)
    inside = open_at(fd, "a/file", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    try:
        os.write(inside, b"x" * 8192)
        os.lseek(inside, 0, os.SEEK_SET)
        assert os.read(inside, 8192) == b"x" * 8192
        call("fallocate", inside, 0, 0, 1 << 16)
        call("ftruncate", inside, 5)
        call("fsync", inside)
        call("utimensat", inside, 0, 0, 0)
    finally:
        os.close(inside)
    call("symlinkat", b"file", fd, b"a/link")
    call("linkat", fd, b"a/file", fd, b"a/second", 0)
    call("renameat", fd, b"a/second", fd, b"third")
    for name in (b"a/file", b"a/link", b"third"):
        call("unlinkat", fd, name, 0)
    call("unlinkat", fd, b"a", _AT_REMOVEDIR)


_READ, _EXEC = mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_EXEC

#: What Landlock does not look at, so the filter must: in a directory that may be written.
UNSEEN = (
    Attempt("mode of an open file", with_file("rw", os.O_RDWR, _same_mode), "EPERM"),
    Attempt("mode by a path", at_granted("fchmodat", "rw", "inside", 0o666), "EPERM"),
    Attempt("mode by a newer call", at_granted("fchmodat2", "rw", "inside", 511, 0), "EPERM", unproven=NOT_BUILT_IN),
    Attempt("set-user-id", at_granted("fchmodat", "rw", "inside", 0o4755), "EPERM"),
    Attempt(
        "a set-user-id file with something in it",
        _set_user_id_file,
        "EPERM",
        unproven={"EPERM": "the kernel clears the bit, but for root"},
    ),
    Attempt("owner of an open file", with_file("rw", os.O_RDWR, _same_owner), "EPERM"),
    Attempt("owner by a path", at_granted("fchownat", "rw", "inside", -1, -1, 0), "EPERM"),
    Attempt("mknod", making("rw", "mknodat", "node", stat.S_IFREG | 0o600, 0), "EPERM"),
    Attempt(
        "mknod of a device", making("rw", "mknodat", "node", stat.S_IFCHR | 0o600, 0x103), "EPERM", unproven=NEEDS_ROOT
    ),
    Attempt("mkfifo there", making("rw", "mknodat", "node", stat.S_IFIFO | 0o600, 0), "EPERM"),
    Attempt(
        "set an attribute",
        with_file("rw", os.O_RDWR, lambda fd: call("fsetxattr", fd, b"user.a", b"b", 1, 0)),
        "EPERM",
        unproven=_NO_ATTRIBUTES,
    ),
    Attempt(
        "read an attribute",
        with_file("rw", os.O_RDWR, lambda fd: call("fgetxattr", fd, b"user.a", _BUFFER, 9)),
        "EPERM",
        unproven=_NO_ATTRIBUTES,
    ),
    Attempt(
        "list attributes",
        with_file("rw", os.O_RDWR, lambda fd: call("flistxattr", fd, _BUFFER, 4096)),
        "EPERM",
        unproven=_NO_ATTRIBUTES,
    ),
    Attempt(
        "flags of a file",
        with_file("rw", os.O_RDONLY, lambda fd: call("ioctl", fd, _FS_IOC_GETFLAGS, _ADDRESS)),
        "EPERM",
        unproven={"ENOTTY": "this file system has none"},
    ),
    Attempt(
        "lock a file", with_file("rw", os.O_RDWR, lambda fd: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)), "EPERM"
    ),
    Attempt("lock a part of a file", with_file("rw", os.O_RDWR, lambda fd: fcntl.lockf(fd, fcntl.LOCK_EX)), "EPERM"),
    Attempt(
        "lease a file",
        with_file("rw", os.O_RDONLY, lambda fd: fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)),
        "EPERM",
        unproven={"EINVAL": "not on this file system"},
    ),
    Attempt("map a file", with_file("rw", os.O_RDWR, _map_it(_READ, mmap.MAP_SHARED)), "EPERM"),
    Attempt(
        "map a copy of a file",
        with_file("rw", os.O_RDWR, _map_it(_READ, mmap.MAP_PRIVATE)),
        "EPERM",
        granted_loading=OK,  # so modules are loaded
    ),
    Attempt(
        "map a file as code",
        with_file("rw", os.O_RDWR, _map_it(_EXEC, mmap.MAP_PRIVATE)),
        "EPERM",
        unproven={"EPERM": "mounted with noexec"},
    ),
    Attempt(
        "exchange two files",
        lambda s: call("renameat2", granted_fd(s, "rw"), b"inside", granted_fd(s, "rw"), b"victim", _EXCHANGE),
        "EPERM",
    ),
    Attempt("copy between files", _copy_range, "EPERM", unproven=NOT_BUILT_IN),
    Attempt("go there", lambda s: call("fchdir", granted_fd(s, "rw")), "EPERM"),
    Attempt("watch a directory", lambda s: call("inotify_add_watch", -1, b"/", 1), "EPERM", freely="EBADF"),
    Attempt("run a program", _run, "SIGSYS", freely=LEFT, unproven={"EACCES": "mounted with noexec"}),
    Attempt(
        "free a part of a file",
        with_file("rw", os.O_RDWR, lambda fd: call("fallocate", fd, 3, 0, 4096)),
        "EPERM",
        unproven={"EOPNOTSUPP": "not on this file system"},
    ),
    Attempt("statx of a file", at_granted("statx", "rw", "inside", 0, 0x7FF, _BUFFER), "ENOSYS"),
    Attempt("stat that follows a link", at_granted("newfstatat", "rw", "out", _BUFFER, 0), "EPERM"),
    Attempt(
        "a file that only root may open",
        opening("ro", "theirs"),
        "EACCES",
        unproven={"EACCES": "only root may"},
    ),
)  # fmt: skip - a table

#: What such a worker can do, on purpose, or because nothing looks at it.
GRANTED_ALLOWED = (
    Attempt("list the directory to read", _list("ro"), OK),
    Attempt("list the directory to write", _list("rw"), OK),
    Attempt("read a file in each", lambda s: [opening(w, "inside")(s) for w in ("ro", "rw")], OK),
    Attempt("read a link", lambda s: call("readlinkat", granted_fd(s, "ro"), b"out", _ADDRESS, 99), OK),
    Attempt("use the directory to write", _use, OK),
    # Neither Landlock nor a filter looks at them: names and attributes of what its user may look up can be learnt.
    Attempt("name a path outside", opening_path("{scene.secret}", os.O_PATH), OK),
    Attempt(
        "attributes of a path outside", lambda s: call("newfstatat", AT_FDCWD, s.secret.encode(), _BUFFER, 0x100), OK
    ),
    Attempt("a link outside", lambda s: call("readlinkat", granted_fd(s, "ro"), b"../link", _ADDRESS, 99), OK),
    Attempt("times of a file to read", with_file("ro", os.O_RDONLY, lambda fd: call("utimensat", fd, 0, 0, 0)), OK),
)  # fmt: skip - a table
