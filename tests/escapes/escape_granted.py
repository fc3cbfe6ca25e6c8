"""Attempts in a worker that was granted two directories, one to read and one to write: to get at more than that.

What the kernel is asked here is asked for by number, without RESOLVE_BENEATH: a guest's own calls never do that.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import stat
import struct

from escape_scene import AT_FDCWD, NEEDS_ROOT, OK, Attempt, Scene, call

_AT_EMPTY_PATH, _AT_REMOVEDIR = 0x1000, 0x200
_NO_TMPFILE = {"EOPNOTSUPP": "this file system has no such files"}
_TMPFILE = os.O_TMPFILE | os.O_RDWR
#: Descriptors of ours are below.
_MOST = 64


def granted_fd(scene: Scene, which: str) -> int:
    """The descriptor that this worker has of a directory."""
    inode = scene.inodes[which]
    for fd in range(3, _MOST):
        try:
            found = os.fstat(fd)
        except OSError:
            continue
        if found.st_ino == inode and stat.S_ISDIR(found.st_mode):
            return fd
    raise RuntimeError(f"{which} is not open")


def open_at(fd: int, path: str, flags: int = os.O_RDONLY, mode: int = 0) -> int:
    return call("openat2", fd, path.encode(), struct.pack("<3Q", flags | os.O_CLOEXEC, mode, 0), 24)


def opening(which: str, path: str, flags: int = os.O_RDONLY, mode: int = 0):
    """Open a path that begins in a granted directory."""
    return lambda scene: os.close(open_at(granted_fd(scene, which), path, flags, mode))


def opening_path(path: str, flags: int = os.O_RDONLY):
    """Open an absolute path, `{…}` of the scene in it."""
    return lambda scene: os.close(open_at(AT_FDCWD, path.format(scene=scene), flags))


def _through_proc(flags: int):
    """Name what is outside without opening it, which no layer refuses; then open it by the name that it has here."""

    def attempt(scene: Scene) -> None:
        fd = open_at(AT_FDCWD, scene.secret, os.O_PATH)
        try:
            os.close(open_at(AT_FDCWD, f"/proc/self/fd/{fd}", flags))
        finally:
            os.close(fd)

    return attempt


def at_granted(name: str, which: str, path: str, *args: object):
    """A call that takes a directory and a path in it."""
    return lambda scene: call(name, granted_fd(scene, which), path.encode(), *args)


def _make_victim(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o666))


def _on_victim(name: str, *after: object):
    """A call that takes a path of a file outside, which is there again where it has gone."""

    def attempt(scene: Scene) -> None:
        path = f"{scene.directory}/victim"
        if not scene.hardened:
            _make_victim(path)
        call(name, AT_FDCWD, path.encode(), *after)

    return attempt


def making(which: str, name: str, path: str, *args: object, first: object = None, directory: bool = False):
    """A call that makes something in a granted directory; it goes where that succeeded."""

    def attempt(scene: Scene) -> None:
        fd = granted_fd(scene, which)
        call(name, *(() if first is None else (first,)), fd, path.encode(), *args)
        call("unlinkat", fd, path.encode(), _AT_REMOVEDIR if directory else 0)

    return attempt


def _between(name: str, source: str, old: str, target: str, *flags: int):
    """A call that takes a name in one directory to one in another; undone where it succeeded."""

    def attempt(scene: Scene) -> None:
        fd, to = granted_fd(scene, source), granted_fd(scene, target)
        call(name, fd, old.encode(), to, b"taken", *flags)
        if name == "linkat":
            call("unlinkat", to, b"taken", 0)
        else:
            call("renameat", to, b"taken", fd, old.encode())

    return attempt


def _out_of(name: str, which: str):
    """The same, to a directory outside."""

    def attempt(scene: Scene) -> None:
        target = f"{scene.directory}/taken".encode()
        fd = granted_fd(scene, which)
        call(name, fd, b"inside", AT_FDCWD, target, *((0,) if name == "linkat" else ()))
        if name == "linkat":
            call("unlinkat", AT_FDCWD, target, 0)
        else:
            call("renameat", AT_FDCWD, target, fd, b"inside")

    return attempt


def _into(name: str, which: str):
    """The same, from outside."""

    def attempt(scene: Scene) -> None:
        fd = granted_fd(scene, which)
        call(name, AT_FDCWD, scene.secret.encode(), fd, b"taken", *((0,) if name == "linkat" else ()))
        if name == "linkat":
            call("unlinkat", fd, b"taken", 0)
        else:
            call("renameat", fd, b"taken", AT_FDCWD, scene.secret.encode())

    return attempt


def _link_by_descriptor(scene: Scene) -> None:
    fd = open_at(AT_FDCWD, scene.secret, os.O_PATH)
    to = granted_fd(scene, "rw")
    try:
        call("linkat", fd, b"", to, b"taken", _AT_EMPTY_PATH)
        call("unlinkat", to, b"taken", 0)
    finally:
        os.close(fd)


def with_file(which: str, flags: int, act):
    """An act on the file in a granted directory."""

    def attempt(scene: Scene) -> None:
        fd = open_at(granted_fd(scene, which), "inside", flags)
        try:
            act(fd)
        finally:
            os.close(fd)

    return attempt


def _times_of_path(scene: Scene) -> None:
    call("utimensat", AT_FDCWD, scene.secret.encode(), 0, 0)


def _times_of_descriptor(scene: Scene) -> None:
    fd = open_at(AT_FDCWD, scene.secret, os.O_PATH)
    try:
        call("utimensat", fd, b"", 0, _AT_EMPTY_PATH)
    finally:
        os.close(fd)


def _times_high(scene: Scene) -> None:
    """A path whose address looks like none to who looks at half of it."""
    page = call("mmap", 1 << 32, 4096, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x100000, -1, 0)
    try:
        path = os.fsencode(scene.secret) + b"\0"
        ctypes.memmove(page, path, len(path))
        call("utimensat", AT_FDCWD, page, 0, 0)
    finally:
        call("munmap", page, 4096)


def _directory_outside(scene: Scene) -> None:
    path = f"{scene.directory}/made".encode()
    call("mkdirat", AT_FDCWD, path, 0o700)
    call("unlinkat", AT_FDCWD, path, _AT_REMOVEDIR)


def _link_outside(scene: Scene) -> None:
    path = f"{scene.directory}/made".encode()
    call("symlinkat", b"/", AT_FDCWD, path)
    call("unlinkat", AT_FDCWD, path, 0)


OUTSIDE = (
    Attempt("open outside by an absolute path", opening_path("{scene.secret}"), "EACCES"),
    Attempt('open outside by ".."', opening("rw", "../secret"), "EACCES"),
    Attempt("list what is above", opening("rw", "..", os.O_DIRECTORY), "EACCES"),
    Attempt("open outside by a symbolic link", opening("ro", "out"), "EACCES"),
    Attempt("write outside by a symbolic link", opening("rw", "out", os.O_WRONLY), "EACCES"),
    Attempt("open outside through /proc/self/fd", _through_proc(os.O_RDONLY), "EACCES"),
    Attempt("write outside through /proc/self/fd", _through_proc(os.O_WRONLY), "EACCES"),
    Attempt("open outside through /proc/self/root", opening_path("/proc/self/root{scene.secret}"), "EACCES"),
    Attempt("open outside through /proc/self/cwd", opening_path("/proc/self/cwd", os.O_DIRECTORY), "EACCES"),
    Attempt("open the root directory", opening_path("/", os.O_DIRECTORY), "EACCES"),
    Attempt("open the password file", opening_path("/etc/passwd"), "EACCES"),
    Attempt("open what only root may", opening_path("{scene.directory}/theirs"), "EACCES", unproven=NEEDS_ROOT),
    Attempt("open own memory again", opening_path("/proc/self/mem", os.O_RDWR), "EACCES"),
    Attempt("open own mappings", opening_path("/proc/self/maps"), "EACCES"),
    Attempt("open the supervisor's variables", opening_path("/proc/{scene.supervisor}/environ"), "EACCES"),
    Attempt("open the supervisor's memory again", opening_path("/proc/{scene.supervisor}/mem", os.O_RDWR), "EACCES"),
    Attempt("open a sibling's memory again", opening_path("/proc/{scene.sibling}/mem", os.O_RDWR), "EACCES"),
    Attempt("open a device", opening_path("/dev/null", os.O_WRONLY), "EACCES"),
    Attempt("change its own oom score", opening_path("/proc/self/oom_score_adj", os.O_WRONLY), "EACCES"),
    Attempt("remove a file outside", _on_victim("unlinkat", 0), "EACCES"),
    Attempt("make a directory outside", _directory_outside, "EACCES"),
    Attempt("make a symbolic link outside", _link_outside, "EACCES"),
    Attempt("rename into outside", _out_of("renameat", "rw"), "EACCES"),
    Attempt("rename from outside", _into("renameat", "rw"), "EACCES"),
    Attempt("link into outside", _out_of("linkat", "rw"), "EACCES"),
    Attempt("link from outside", _into("linkat", "rw"), "EXDEV"),
    Attempt(
        "link what is outside by its descriptor",
        _link_by_descriptor,
        "EPERM",
        unproven={"ENOENT": "only root may, or whoever opened it, since Linux 6.10"},
    ),
    Attempt("times of a path", _times_of_path, "EPERM"),
    Attempt("times of a path at a round address", _times_high, "EPERM"),
    Attempt("times of what is not open", _times_of_descriptor, "EPERM"),
    Attempt(
        "openat in place of openat2",
        lambda s: os.close(call("openat", granted_fd(s, "ro"), b"inside", os.O_RDONLY | os.O_CLOEXEC, 0)),
        "EPERM",
        granted_loading=OK,  # modules are loaded by it
    ),
)  # fmt: skip - a table


def _remove(scene: Scene, which: str, name: str) -> None:
    call("unlinkat", granted_fd(scene, which), name.encode(), 0)


def _remove_and_make(scene: Scene, which: str) -> None:
    _remove(scene, which, "victim")
    os.close(open_at(granted_fd(scene, which), "victim", os.O_CREAT | os.O_WRONLY, 0o666))


def _rmdir_and_make(scene: Scene, which: str) -> None:
    call("unlinkat", granted_fd(scene, which), b"empty", _AT_REMOVEDIR)
    call("mkdirat", granted_fd(scene, which), b"empty", 0o777)


READ_ONLY = (
    Attempt("write to a file", opening("ro", "inside", os.O_WRONLY), "EACCES"),
    Attempt("truncate while reading", opening("ro", "inside", os.O_RDONLY | os.O_TRUNC), "EACCES"),
    Attempt(
        "create a file to read",
        lambda s: (os.close(open_at(granted_fd(s, "ro"), "new", os.O_CREAT, 0o600)), _remove(s, "ro", "new")),
        "EACCES",
    ),
    Attempt("create a file without a name", opening("ro", ".", _TMPFILE, 0o600), "EACCES", unproven=_NO_TMPFILE),
    Attempt("make a directory", making("ro", "mkdirat", "new", 0o700, directory=True), "EACCES"),
    Attempt("make a symbolic link", making("ro", "symlinkat", "new", first=b"/"), "EACCES"),
    Attempt("remove a file", lambda s: _remove_and_make(s, "ro"), "EACCES"),
    Attempt("remove a directory", lambda s: _rmdir_and_make(s, "ro"), "EACCES"),
    Attempt("rename a file", _between("renameat", "ro", "inside", "ro"), "EACCES"),
    Attempt("take a file away", _between("renameat", "ro", "inside", "rw"), "EACCES"),
    Attempt("link a file to where it can be written", _between("linkat", "ro", "inside", "rw", 0), "EXDEV"),
    Attempt("put a file there", _between("renameat", "rw", "inside", "ro"), "EACCES"),
    Attempt("link a file there", _between("linkat", "rw", "inside", "ro", 0), "EACCES"),
    Attempt(
        "write through /proc/self/fd",
        with_file("ro", os.O_RDONLY, lambda fd: os.close(open_at(AT_FDCWD, f"/proc/self/fd/{fd}", os.O_WRONLY))),
        "EACCES",
    ),
    Attempt(
        "write by a descriptor for reading",
        with_file("ro", os.O_RDONLY, lambda fd: os.write(fd, b"x")),
        "EBADF",
        freely="EBADF",
    ),
)  # fmt: skip - a table
