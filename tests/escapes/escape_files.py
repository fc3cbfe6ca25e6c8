"""Attempts on files, descriptors and the network."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import socket
import struct
import termios

from escape_scene import AT_FDCWD, NEEDS_ROOT, NOT_BUILT_IN, OK, Attempt, Scene, call, calling

_AT_EMPTY_PATH = 0x1000
_BUFFER = ctypes.create_string_buffer(4096)
_PAIR = (ctypes.c_int * 2)()
#: Standard error is a pipe in every process of ours, so it takes what a pipe takes.
_STDERR = 2


def _open(path: str, flags: int) -> None:
    os.close(os.open(path, flags, 0o600))


def _read_secret(scene: Scene) -> None:
    _open(scene.secret, os.O_RDONLY)


def _write_secret(scene: Scene) -> None:
    _open(scene.secret, os.O_WRONLY)


def _create(scene: Scene) -> None:
    _open(f"{scene.directory}/new", os.O_CREAT | os.O_WRONLY)


def _open_by_old_call(scene: Scene) -> None:
    os.close(call("open", scene.secret.encode(), os.O_RDONLY, 0))


def _openat2(scene: Scene) -> None:
    os.close(call("openat2", AT_FDCWD, scene.secret.encode(), struct.pack("<3Q", os.O_RDONLY, 0, 0), 24))


def _path(name: str, *args: int):
    """A call that takes a path first."""
    return lambda scene: call(name, scene.secret.encode(), *args)


def _path_at(name: str, *args: object):
    """A call that takes a directory's descriptor and a path."""
    return lambda scene: call(name, AT_FDCWD, scene.secret.encode(), *args)


def _fill_disk(scene: Scene) -> None:
    name = f"{scene.directory}/filling-{os.getpid()}"
    fd = os.open(name, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        os.write(fd, bytes(1 << 16))
    finally:
        os.close(fd)
        os.unlink(name)


def _make(scene: Scene, act: object, remove: object) -> None:
    name = f"{scene.directory}/made-{os.getpid()}"
    act(name)
    remove(name)


def _use_up_descriptors(_scene: Scene) -> None:
    made: list[int] = []
    try:
        while len(made) < 32:
            made.append(os.dup(_STDERR))
    finally:
        for fd in made:
            os.close(fd)


def _pair(name: str, *args: int) -> None:
    call(name, *args, _PAIR)
    for fd in _PAIR:
        os.close(fd)


def _descriptor(name: str, *args: object):
    """A call that makes a descriptor."""
    return lambda _scene: os.close(call(name, *args))


def _by_handle(_scene: Scene) -> None:
    with contextlib.suppress(FileNotFoundError):  # no such handle: it was looked for
        call("open_by_handle_at", AT_FDCWD, struct.pack("<Ii8x", 8, 1), os.O_RDONLY)


def _handle_of(scene: Scene) -> None:
    call("name_to_handle_at", AT_FDCWD, scene.secret.encode(), struct.pack("<Ii", 128, 0) + bytes(128), _BUFFER, 0)


def _inject_input(_scene: Scene) -> None:
    fcntl.ioctl(0, termios.TIOCSTI, b"\n")


def _splice(_scene: Scene) -> None:
    call("vmsplice", _STDERR, struct.pack("<QQ", 0, 0), 0, 0)  # vmsplice of nothing


def _connect(family: int, kind: int, address: object) -> None:
    with socket.socket(family, kind) as sock:
        sock.connect(address)


def _send_datagram(scene: Scene) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"out", ("127.0.0.1", scene.udp))


def _listen(family: int, address: object) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.bind(address)
        sock.listen()


def _open_socket(family: int, kind: int, protocol: int = 0):
    return lambda _scene: socket.socket(family, kind, protocol).close()


_NO_IPV6 = {"EADDRNOTAVAIL": "no IPv6 here", "EAFNOSUPPORT": "no IPv6 here", "ENETUNREACH": "no IPv6 here"}


FILES = (
    # Loading maps its module by a path; for the others there is Landlock.
    Attempt("open a file for reading", _read_secret, "EPERM", loading="EACCES"),
    Attempt("open a file for writing", _write_secret, "EPERM"),
    Attempt("create a file", _create, "EPERM"),
    Attempt("open by the old call", _open_by_old_call, "EPERM"),
    Attempt("openat2", _openat2, "EPERM", granted="EACCES", unproven=NOT_BUILT_IN),
    Attempt("creat", lambda s: os.close(call("creat", f"{s.directory}/created".encode(), 0o600)), "EPERM"),
    Attempt("fill a disk", _fill_disk, "EPERM"),
    Attempt("stat", lambda s: os.stat(s.secret), "EPERM"),
    Attempt("stat by the old call", _path("stat", ctypes.addressof(_BUFFER)), "EPERM"),
    # Loading asks for the size of its module's descriptor with this flag, and a filter sees no paths.
    Attempt(
        "stat as of a descriptor", _path_at("newfstatat", _BUFFER, _AT_EMPTY_PATH), "EPERM", loading=OK, granted=OK
    ),
    Attempt("statx", _path_at("statx", 0, 0x7FF, _BUFFER), "EPERM", loading="ENOSYS", granted="ENOSYS"),
    Attempt("access", lambda s: call("access", s.secret.encode(), os.R_OK), "EPERM"),
    Attempt("faccessat2", _path_at("faccessat2", os.R_OK, 0), "EPERM", unproven=NOT_BUILT_IN),
    Attempt("readlink", lambda _s: os.readlink("/proc/self/exe"), "EPERM"),
    Attempt("list a directory", lambda s: os.listdir(s.directory), "EPERM"),
    Attempt("chdir", lambda s: os.chdir(s.directory), "EPERM"),
    Attempt("getcwd", lambda _s: os.getcwd(), "EPERM"),
    Attempt("mkdir", lambda s: _make(s, os.mkdir, os.rmdir), "EPERM"),
    Attempt("mkfifo", lambda s: _make(s, os.mkfifo, os.unlink), "EPERM"),
    Attempt("symlink", lambda s: _make(s, lambda name: os.symlink("/", name), os.unlink), "EPERM"),
    Attempt("rename", lambda s: os.rename(s.secret, s.secret), "EPERM"),
    Attempt("chmod", lambda s: _make(s, lambda n: (os.mkdir(n), os.chmod(n, 0o700)), os.rmdir), "EPERM"),
    Attempt("truncate", lambda s: os.truncate(s.secret, 4096), "EPERM"),
    Attempt("utime", lambda s: os.utime(s.secret), "EPERM"),
    Attempt("statfs", lambda s: os.statvfs(s.directory), "EPERM"),
    Attempt("umask", calling("umask", 0o77), "EPERM"),
    Attempt(
        "read own executable",
        lambda _s: _open("/proc/self/exe", os.O_RDONLY),
        "EPERM",
        loading="EACCES",
        unproven={"EACCES": "this user may run Python, not read it"},
    ),
    Attempt("open own memory", lambda _s: _open("/proc/self/mem", os.O_RDWR), "EPERM"),
    Attempt(
        "read the supervisor's environment",
        lambda s: _open(f"/proc/{s.supervisor}/environ", 0),
        "EPERM",
        loading="EACCES",
    ),
    Attempt("open the supervisor's memory", lambda s: _open(f"/proc/{s.supervisor}/mem", os.O_RDWR), "EPERM"),
    Attempt("open a sibling's memory", lambda s: _open(f"/proc/{s.sibling}/mem", os.O_RDWR), "EPERM"),
    Attempt("name_to_handle_at", _handle_of, "EPERM", unproven={"EOPNOTSUPP": "this file system has no handles"}),
    Attempt("open_by_handle_at", _by_handle, "SIGSYS", freely="ESTALE", unproven=NEEDS_ROOT),
    Attempt("inotify", _descriptor("inotify_init1", 0), "EPERM"),
    Attempt("fanotify", _descriptor("fanotify_init", 0x200, 0), "EPERM", unproven=NEEDS_ROOT | NOT_BUILT_IN),
)

DESCRIPTORS = (
    Attempt("use up descriptors", _use_up_descriptors, "EPERM", loading="EMFILE", granted=OK, granted_loading=OK),
    Attempt("dup2", calling("dup2", _STDERR, _STDERR), "EPERM"),
    Attempt("duplicate by fcntl", lambda _s: os.close(fcntl.fcntl(_STDERR, fcntl.F_DUPFD, 3)), "EPERM"),
    Attempt("have signals sent by fcntl", lambda s: fcntl.fcntl(_STDERR, fcntl.F_SETOWN, s.sibling), "EPERM"),
    Attempt("make a pipe's buffer larger", lambda _s: fcntl.fcntl(_STDERR, 1031, 1 << 17), "EPERM"),
    Attempt("pipe", lambda _s: _pair("pipe"), "EPERM"),
    Attempt("eventfd", _descriptor("eventfd2", 0, 0), "EPERM"),
    Attempt("epoll", lambda _s: select.epoll().close(), "EPERM"),
    Attempt("timerfd", _descriptor("timerfd_create", 1, 0), "EPERM"),
    Attempt("signalfd", _descriptor("signalfd4", -1, bytes(8), 8, 0), "EPERM"),
    Attempt("memfd_create", lambda _s: os.close(os.memfd_create("m")), "ENOSYS"),
    Attempt("memfd_secret", _descriptor("memfd_secret", 0), "SIGSYS", unproven=NOT_BUILT_IN),
    Attempt("ioctl", lambda _s: fcntl.ioctl(_STDERR, termios.FIONREAD, b"    "), "EPERM"),
    Attempt("type into the terminal", _inject_input, "EPERM", unproven={"ENOTTY": "workers have no terminal"}),
    Attempt("vmsplice", _splice, "EPERM"),
    Attempt("write a file's data to disk", calling("sync"), "EPERM"),
)

NETWORK = (
    Attempt("TCP", lambda s: _connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", s.tcp)), "SIGSYS"),
    Attempt(
        "TCP by IPv6",
        lambda _s: _listen(socket.AF_INET6, ("::1", 0)),
        "SIGSYS",
        unproven=_NO_IPV6,
    ),
    Attempt("listen on TCP", lambda _s: _listen(socket.AF_INET, ("127.0.0.1", 0)), "SIGSYS"),
    Attempt("UDP", _send_datagram, "SIGSYS"),
    Attempt("unix socket", lambda s: _connect(socket.AF_UNIX, socket.SOCK_STREAM, s.unix), "SIGSYS"),
    Attempt("abstract socket", lambda s: _connect(socket.AF_UNIX, socket.SOCK_STREAM, s.abstract), "SIGSYS"),
    Attempt("socketpair", lambda _s: _pair("socketpair", socket.AF_UNIX, socket.SOCK_STREAM, 0), "SIGSYS"),
    Attempt("netlink", _open_socket(socket.AF_NETLINK, socket.SOCK_RAW), "SIGSYS"),
    Attempt("raw socket", _open_socket(socket.AF_INET, socket.SOCK_RAW, 1), "SIGSYS", unproven=NEEDS_ROOT),
    Attempt(
        "kernel crypto",
        _open_socket(socket.AF_ALG, socket.SOCK_SEQPACKET),
        "SIGSYS",
        unproven={"EAFNOSUPPORT": "not in this kernel"},
    ),
)
