"""Attempts on other processes, and to make new ones."""

from __future__ import annotations

import _thread
import ctypes
import os
import resource
import signal
import struct

from escape_scene import LEFT, NEEDS_ROOT, NOT_BUILT_IN, Attempt, Scene, call, calling, in_child, libc

_PTRACE_SEIZE = 0x4206
_PTRACE_TRACEME = 0
_HERE = ctypes.create_string_buffer(16)
_ADDRESS = ctypes.addressof(_HERE)
# A variable of the C library, with its value: other forks of the fork server have it at the same address.
_IOVEC = struct.pack("<QQ", ctypes.addressof(ctypes.c_int.in_dll(libc, "optind")), 4)
_NOT_A_TRACER = {"EPERM": "this system lets nobody look into its siblings (ptrace_scope)"}


def _fork_by(name: str, *args: object):
    """A call that returns twice."""

    def attempt(_scene: Scene) -> None:
        pid = call(name, *args)
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)

    return attempt


def _fork_by_library(scene: Scene) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _start_thread(_scene: Scene) -> None:
    lock = _thread.allocate_lock()
    lock.acquire()
    _thread.start_new_thread(lock.release, ())
    lock.acquire()


def _start_native_thread(_scene: Scene) -> None:
    thread = ctypes.c_ulong()
    entry = ctypes.cast(libc.getpid, ctypes.c_void_p)  # ends at once
    code = libc.pthread_create(ctypes.byref(thread), None, entry, None)
    if code:
        raise OSError(code, os.strerror(code))
    libc.pthread_join(thread, None)


def _exec(_scene: Scene) -> None:
    os.execv("/bin/sh", ["sh", "-c", "exit 7"])


def _execveat(_scene: Scene) -> None:
    argv = (ctypes.c_char_p * 4)(b"sh", b"-c", b"exit 7", None)
    call("execveat", -100, b"/bin/sh", argv, None, 0)


def _spawn(_scene: Scene) -> None:
    os.waitpid(os.posix_spawn("/bin/sh", ["sh", "-c", "exit 7"], {}), 0)


def _look_into(name: str, whom: str):
    return lambda scene: call(name, getattr(scene, whom), _IOVEC, 1, _IOVEC, 1, 0)


def _to(name: str, whom: str, *args: object):
    """A call that takes a process id first."""
    return lambda scene: call(name, getattr(scene, whom), *args)


def _pidfd_of(scene: Scene) -> int:
    return scene.unless_hardened(lambda: call("pidfd_open", scene.sibling, 0))


def _with_pidfd(name: str, *args: object):
    def attempt(scene: Scene) -> None:
        fd = _pidfd_of(scene)
        try:
            call(name, fd, *args)
        finally:
            if fd >= 0:
                os.close(fd)

    return attempt


def _raise_limit(scene: Scene) -> None:
    limits = ctypes.create_string_buffer(16)
    if not scene.hardened:
        call("prlimit64", 0, resource.RLIMIT_NOFILE, 0, limits)
    call("prlimit64", 0, resource.RLIMIT_NOFILE, limits, 0)


def _tgkill_other(scene: Scene) -> None:
    call("tgkill", scene.sibling, scene.sibling, 0)


_SIGINFO = struct.pack("<iii", 0, 0, -1) + bytes(116)  # SI_QUEUE

PROCESSES = (
    Attempt("fork", _fork_by("fork"), "SIGSYS"),
    Attempt("clone", _fork_by("clone", int(signal.SIGCHLD), 0, 0, 0, 0), "SIGSYS"),
    Attempt(
        "clone3",
        _fork_by("clone3", struct.pack("<8Q", 0, 0, 0, 0, int(signal.SIGCHLD), 0, 0, 0), 64),
        "SIGSYS",
        unproven=NOT_BUILT_IN,
    ),
    Attempt("fork by the library", _fork_by_library, "SIGSYS"),
    Attempt("posix_spawn", _spawn, "SIGSYS"),
    Attempt("execve", _exec, "SIGSYS", freely=LEFT),
    Attempt("execveat", _execveat, "SIGSYS", freely=LEFT),
    Attempt("thread", _start_thread, "SIGSYS"),
    Attempt("native thread", _start_native_thread, "SIGSYS"),
    Attempt(
        "wait4", calling("wait4", -1, 0, os.WNOHANG, 0), "EPERM", unproven={"ECHILD": "there is nobody to wait for"}
    ),
    Attempt(
        "ptrace the supervisor",
        in_child(lambda s: call("ptrace", _PTRACE_SEIZE, s.supervisor, 0, 0)),
        "SIGSYS",
        unproven=_NOT_A_TRACER,
    ),
    Attempt(
        "ptrace a sibling",
        in_child(lambda s: call("ptrace", _PTRACE_SEIZE, s.sibling, 0, 0)),
        "SIGSYS",
        unproven=_NOT_A_TRACER,
    ),
    Attempt("be traced", in_child(lambda _: call("ptrace", _PTRACE_TRACEME, 0, 0, 0)), "SIGSYS"),
    Attempt("read a sibling's memory", _look_into("process_vm_readv", "sibling"), "SIGSYS", unproven=_NOT_A_TRACER),
    Attempt("write a sibling's memory", _look_into("process_vm_writev", "sibling"), "SIGSYS", unproven=_NOT_A_TRACER),
    Attempt(
        "read the fork server's memory", _look_into("process_vm_readv", "fork_server"), "SIGSYS", unproven=_NOT_A_TRACER
    ),
    Attempt(
        "write the fork server's memory",
        _look_into("process_vm_writev", "fork_server"),
        "SIGSYS",
        unproven=_NOT_A_TRACER,
    ),
    Attempt("pidfd_open", lambda s: os.close(call("pidfd_open", s.sibling, 0)), "SIGSYS"),
    Attempt("pidfd_send_signal", _with_pidfd("pidfd_send_signal", 0, 0, 0), "SIGSYS"),
    Attempt("pidfd_getfd", lambda s: os.close(_getfd(s)), "SIGSYS", unproven=_NOT_A_TRACER | NOT_BUILT_IN),
    Attempt(
        "process_madvise",
        _with_pidfd("process_madvise", _IOVEC, 1, 20, 0),
        "SIGSYS",
        freely="EINVAL",
        unproven=_NOT_A_TRACER | NOT_BUILT_IN | {"EACCES": _NOT_A_TRACER["EPERM"]},
    ),
    Attempt("process_mrelease", _with_pidfd("process_mrelease", 0), "EPERM", freely="EINVAL", unproven=NOT_BUILT_IN),
    Attempt("signal the supervisor", _to("kill", "supervisor", 0), "SIGSYS"),
    Attempt("signal the fork server", _to("kill", "fork_server", 0), "SIGSYS"),
    Attempt("signal everybody", calling("kill", -1, 0), "SIGSYS"),
    Attempt("signal itself by kill", lambda _s: os.kill(os.getpid(), 0), "SIGSYS"),
    Attempt("tkill", _to("tkill", "sibling", 0), "SIGSYS"),
    Attempt("tgkill another process", _tgkill_other, "SIGSYS"),
    Attempt("rt_sigqueueinfo", _to("rt_sigqueueinfo", "sibling", 0, _SIGINFO), "SIGSYS"),
    Attempt("rt_tgsigqueueinfo", lambda s: call("rt_tgsigqueueinfo", s.sibling, s.sibling, 0, _SIGINFO), "SIGSYS"),
    Attempt("abort", lambda _s: os.abort(), "SIGABRT", freely="SIGABRT"),
    Attempt("raise a limit", _raise_limit, "EPERM"),
    Attempt("read another's limits", lambda s: call("prlimit64", s.sibling, 7, 0, ctypes.addressof(_HERE)), "EPERM"),
    Attempt("getrlimit", calling("getrlimit", 7, _ADDRESS), "EPERM"),
    Attempt("nice", lambda _s: os.nice(1), "EPERM"),
    Attempt("another's priority", lambda s: os.setpriority(os.PRIO_PROCESS, s.sibling, 0), "EPERM"),
    Attempt("own scheduler", lambda _s: os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0)), "EPERM"),
    Attempt("own cores", lambda _s: os.sched_setaffinity(0, range(os.cpu_count() or 1)), "EPERM"),
    Attempt("another's cores", lambda s: os.sched_getaffinity(s.sibling), "EPERM"),
    Attempt("another's I/O priority", lambda s: call("ioprio_get", 1, s.sibling), "EPERM"),
    Attempt("another's session", lambda s: os.getsid(s.sibling), "EPERM"),
    Attempt("another's group", lambda s: os.getpgid(s.sibling), "EPERM"),
    Attempt("session of its own", in_child(lambda _: os.setsid()), "EPERM"),
    Attempt(
        "kcmp", lambda s: call("kcmp", s.sibling, s.sibling, 1, 0, 0), "EPERM", unproven=_NOT_A_TRACER | NOT_BUILT_IN
    ),
    Attempt(
        "get_robust_list",
        lambda s: call("get_robust_list", s.sibling, _ADDRESS, _ADDRESS + 8),
        "EPERM",
        unproven=_NOT_A_TRACER,
    ),
    Attempt("who is the parent", lambda s: None if call("getppid") == s.fork_server else _fail(), "EPERM"),
    Attempt("who am I", calling("getuid"), "EPERM"),
    Attempt("setuid to root", in_child(lambda _: call("setuid", 0)), "SIGSYS", unproven=NEEDS_ROOT),
    Attempt("setresuid", in_child(lambda _: call("setresuid", 0, 0, 0)), "SIGSYS", unproven=NEEDS_ROOT),
    Attempt("setresgid", in_child(lambda _: call("setresgid", 0, 0, 0)), "SIGSYS", unproven=NEEDS_ROOT),
    Attempt("setgroups", in_child(lambda _: call("setgroups", 0, 0)), "EPERM", unproven=NEEDS_ROOT),
    Attempt("setfsuid", in_child(lambda _: call("setfsuid", 0)), "EPERM"),
    Attempt("capset", in_child(lambda _: call("capset", struct.pack("<Ii", 0x20080522, 0), bytes(24))), "EPERM"),
    Attempt("capget", calling("capget", struct.pack("<Ii", 0x20080522, 0), ctypes.create_string_buffer(24)), "EPERM"),
)  # fmt: skip - a table


def _getfd(scene: Scene) -> int:
    fd = _pidfd_of(scene)
    try:
        return call("pidfd_getfd", fd, 0, 0)
    finally:
        if fd >= 0:
            os.close(fd)


def _fail() -> None:
    raise RuntimeError("somebody else")
