"""Attempts on the kernel's other interfaces: namespaces, keys, clocks, the filter itself."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import time

from escape_numbers import NUMBERS
from escape_scene import LEFT, NEEDS_ROOT, NOT_BUILT_IN, OK, Attempt, Scene, call, calling, in_child, libc

_BUFFER = ctypes.create_string_buffer(4096)
_ADDRESS = ctypes.addressof(_BUFFER)
_WORD = ctypes.c_uint32(0)
_WORD_AT = ctypes.addressof(_WORD)
_CLONE_FS, _CLONE_NEWNS, _CLONE_NEWUSER = 0x200, 0x20000, 0x10000000
_REFUSED_USER = NEEDS_ROOT | NOT_BUILT_IN
_HARMLESS = "would harm this machine: only its check of the arguments is reached"
_NO_USER_NAMESPACES = {"EPERM": "no user namespaces here", "ENOSPC": "no user namespaces here"} | NOT_BUILT_IN


def _mount(scene: Scene) -> None:
    call("mount", b"none", scene.directory.encode(), b"tmpfs", 0, 0)
    call("umount2", scene.directory.encode(), 0)


def _unmount(scene: Scene) -> None:
    call("umount2", scene.directory.encode(), 0)


def _enter_namespace(scene: Scene) -> None:
    fd = scene.unless_hardened(lambda: os.open("/proc/self/ns/uts", os.O_RDONLY))
    try:
        call("setns", fd, 0)
    finally:
        if fd >= 0:
            os.close(fd)


def _prctl(option: int, *args: int):
    return in_child(lambda _: call("prctl", option, *args, *(0,) * (4 - len(args))))


_ALLOW_ALL = ctypes.create_string_buffer(struct.pack("<HBBI", 6, 0, 0, 0x7FFF0000), 8)
_PROGRAM = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", 1, ctypes.addressof(_ALLOW_ALL)), 16)
_NEW_LISTENER = 8


def _add_filter(flags: int) -> None:
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, which it has already where it is locked down
    call("seccomp", 1, flags, _PROGRAM)


def _only_seccomp(_scene: Scene) -> None:
    call("seccomp", 2, 0, struct.pack("<I", 0x7FFF0000))  # SECCOMP_GET_ACTION_AVAIL


def _set_handler(number: int):
    return in_child(lambda _: call("rt_sigaction", number, struct.pack("<QQQQ", 1, 0, 0, 0), 0, 8))


def _set_timer(which: int):
    return lambda _scene: call("setitimer", which, bytes(32), 0)


def _by_x32(_scene: Scene) -> None:
    call(NUMBERS["getpid"] | 0x40000000)


#: "int 0x80", the 32-bit system call, somewhere in the machine code that is loaded anyway.
def _find_int_0x80() -> int:
    with open("/proc/self/maps") as maps:
        for line in maps:
            span, mode, *_, name = line.split()
            if mode[2] == "x" and "/libc" in name:
                low, high = (int(part, 16) for part in span.split("-"))
                found = ctypes.string_at(low, high - low).find(b"\xcd\x80")
                if found >= 0:
                    return low + found
    return 0


_INT_0X80 = _find_int_0x80()


def _by_32_bit_call(_scene: Scene) -> None:
    # A call with one float argument has 1 in the accumulator: exit(2) of the 32-bit table.
    if not _INT_0X80:
        raise RuntimeError("no such bytes")
    ctypes.CFUNCTYPE(None, ctypes.c_double)(_INT_0X80)(0.0)


def _same_hostname(_scene: Scene) -> None:
    name = b"" if _scene.hardened else os.uname().nodename.encode()
    call("sethostname", name, len(name))


def _new_map(_scene: Scene) -> None:
    os.close(call("bpf", 0, struct.pack("<IIII", 2, 4, 4, 1) + bytes(112), 128))


def _new_ring(_scene: Scene) -> None:
    os.close(call("io_uring_setup", 1, ctypes.create_string_buffer(120)))


def _perf(_scene: Scene) -> None:
    # A software clock of this process, in user mode only.
    attributes = struct.pack("<IIQQQQQ", 1, 112, 0, 0, 0, 0, 1 << 5 | 1 << 6) + bytes(64)
    os.close(call("perf_event_open", attributes, 0, -1, -1, 0))


def _ruleset(_scene: Scene) -> None:
    os.close(call("landlock_create_ruleset", struct.pack("<Q", 1), 8, 0))


def _fs(_scene: Scene) -> None:
    os.close(call("fsopen", b"tmpfs", 0))


def _aio(_scene: Scene) -> None:
    context = ctypes.c_ulong()
    call("io_setup", 1, ctypes.byref(context))
    call("io_destroy", context)


def _timer(_scene: Scene) -> None:
    made = ctypes.c_int()
    call("timer_create", 1, 0, ctypes.byref(made))
    call("timer_delete", made.value)


def _futex(operation: int, *args: int):
    return lambda _scene: call("futex", _WORD_AT, operation, *args)


def _lock_pi(_scene: Scene) -> None:
    _WORD.value = 0
    try:
        call("futex", _WORD_AT, 6, 0, 0, 0, 0)
        call("futex", _WORD_AT, 7, 0, 0, 0, 0)
    finally:
        _WORD.value = 0


def _cpu_clock(_scene: Scene) -> None:
    time.process_time()


def _block(*numbers: int):
    def attempt(_scene: Scene) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    return attempt


_NO_X32 = {"ENOSYS": "not in this kernel"}
_NO_32_BIT = {"SIGSEGV": "not in this kernel", "RuntimeError": "the C library holds no such bytes"}

NAMESPACES = (
    Attempt("mount", _mount, "SIGSYS", unproven=NEEDS_ROOT),
    Attempt("umount", _unmount, "SIGSYS", freely="EINVAL", unproven=NEEDS_ROOT),
    Attempt("fsopen", _fs, "SIGSYS", unproven=_REFUSED_USER),
    Attempt("fsmount", calling("fsmount", -1, 0, 0), "SIGSYS", freely="EBADF", unproven=_REFUSED_USER),
    Attempt(
        "open_tree",
        lambda s: os.close(call("open_tree", -100, s.directory.encode(), 0)),
        "EPERM",
        unproven=NOT_BUILT_IN,
    ),
    Attempt("move_mount", calling("move_mount", -1, b"", -1, b"", 0), "EPERM", freely="ENOENT", unproven=_REFUSED_USER),
    Attempt(
        "mount_setattr",
        calling("mount_setattr", -1, b"", 0x1000, bytes(32), 32),
        "SIGSYS",
        freely="ok",
        unproven=_REFUSED_USER | {"EBADF": "needs a mount of its own"},
    ),
    Attempt(
        "statmount",
        calling("statmount", bytes(24), _ADDRESS, 4096, 0),
        "EPERM",
        freely="EINVAL",
        unproven=_REFUSED_USER,
    ),
    Attempt("unshare", in_child(lambda _: call("unshare", _CLONE_FS)), "SIGSYS"),
    Attempt(
        "user namespace", in_child(lambda _: call("unshare", _CLONE_NEWUSER)), "SIGSYS", unproven=_NO_USER_NAMESPACES
    ),
    Attempt("mount namespace", in_child(lambda _: call("unshare", _CLONE_NEWNS)), "SIGSYS", unproven=NEEDS_ROOT),
    Attempt("setns", _enter_namespace, "SIGSYS", unproven=NEEDS_ROOT),
    Attempt("chroot", in_child(lambda _: call("chroot", b"/")), "SIGSYS", unproven=NEEDS_ROOT),
    Attempt(
        "pivot_root",
        calling("pivot_root", b"/", b"/"),
        "SIGSYS",
        unproven=NEEDS_ROOT | {"EBUSY": _HARMLESS, "EINVAL": _HARMLESS},
    ),
    Attempt("swapon", calling("swapon", b"/nonexistent", 0), "EPERM", freely="ENOENT", unproven=NEEDS_ROOT),
    Attempt("quotactl", calling("quotactl", 0x80000100, 0, 0, 0), "EPERM", unproven=_REFUSED_USER),
    Attempt("acct", calling("acct", b"/nonexistent"), "EPERM", freely="ENOENT", unproven=_REFUSED_USER),
)  # fmt: skip - a table

KERNEL = (
    Attempt("bpf", _new_map, "SIGSYS", unproven=_REFUSED_USER),
    Attempt("io_uring", _new_ring, "SIGSYS", unproven=NOT_BUILT_IN | {"EPERM": "switched off here"}),
    Attempt(
        "io_uring_enter", calling("io_uring_enter", -1, 0, 0, 0, 0, 0), "SIGSYS", freely="EBADF", unproven=NOT_BUILT_IN
    ),
    Attempt("aio", _aio, "EPERM", unproven=NOT_BUILT_IN),
    Attempt("keyctl", calling("keyctl", 0, -3, 1), "SIGSYS", unproven=NOT_BUILT_IN),
    Attempt("add_key", calling("add_key", b"user", b"pdsandbox", b"k", 1, -1), "SIGSYS", unproven=NOT_BUILT_IN),
    Attempt(
        "request_key", calling("request_key", b"user", b"none", 0, -1), "SIGSYS", freely="ENOKEY", unproven=NOT_BUILT_IN
    ),
    Attempt("perf_event_open", _perf, "SIGSYS", unproven=_REFUSED_USER | {"ENOENT": "not in this kernel"}),
    Attempt("init_module", calling("init_module", 0, 0, b""), "SIGSYS", freely="ENOEXEC", unproven=_REFUSED_USER),
    Attempt("finit_module", calling("finit_module", -1, b"", 0), "SIGSYS", freely="EBADF", unproven=_REFUSED_USER),
    Attempt(
        "delete_module",
        calling("delete_module", b"pdsandbox-none", 0),
        "SIGSYS",
        freely="ENOENT",
        unproven=_REFUSED_USER,
    ),
    Attempt("kexec_load", calling("kexec_load", 0, 0, 0, 0xFFFF), "SIGSYS", freely="EINVAL", unproven=_REFUSED_USER),
    Attempt("reboot", calling("reboot", 1, 1, 1, 0), "EPERM", freely="EINVAL", unproven=NEEDS_ROOT),
    Attempt("sethostname", _same_hostname, "EPERM", unproven=NEEDS_ROOT),
    Attempt("settimeofday", calling("settimeofday", 0, 0), "EPERM", unproven=NEEDS_ROOT),
    Attempt("clock_settime", calling("clock_settime", 1, bytes(16)), "EPERM", freely="EINVAL"),
    Attempt("adjtimex", calling("adjtimex", bytes(208)), "EPERM"),
    Attempt("syslog", calling("syslog", 10, 0, 0), "EPERM", unproven=_REFUSED_USER),
    Attempt("sysinfo", calling("sysinfo", _ADDRESS), "EPERM"),
    Attempt("uname", calling("uname", _ADDRESS), "EPERM"),
    Attempt("iopl", in_child(lambda _: call("iopl", 0)), "EPERM", unproven=NOT_BUILT_IN),
    Attempt("ioperm", in_child(lambda _: call("ioperm", 0x80, 1, 1)), "EPERM", unproven=_REFUSED_USER),
    Attempt("modify_ldt", calling("modify_ldt", 0, _ADDRESS, 16), "EPERM", unproven=NOT_BUILT_IN),
    Attempt("personality", calling("personality", 0xFFFFFFFF), "EPERM"),
    Attempt("arch_prctl", calling("arch_prctl", 0x1003, _ADDRESS), "EPERM"),
    Attempt("landlock ruleset", _ruleset, "EPERM", unproven=NOT_BUILT_IN | {"EOPNOTSUPP": "not enabled here"}),
    Attempt(
        "landlock_restrict_self",
        calling("landlock_restrict_self", -1, 0),
        "EPERM",
        freely="EBADF",
        unproven=NOT_BUILT_IN | {"EPERM": "needs no-new-privileges", "EOPNOTSUPP": "not enabled here"},
    ),
    Attempt("membarrier", calling("membarrier", 0, 0, 0), "EPERM", unproven=NOT_BUILT_IN),
    Attempt("rseq", calling("rseq", 0, 0, 0, 0), "EPERM", freely="EINVAL", unproven=NOT_BUILT_IN),
    Attempt("set_robust_list", in_child(lambda _: call("set_robust_list", _ADDRESS, 24)), "EPERM"),
    Attempt(
        "cachestat",
        calling("cachestat", 0, bytes(16), _ADDRESS, 0),
        "EPERM",
        unproven=NOT_BUILT_IN | {"EPERM": "only of files that one may write"},
    ),
    Attempt("getcpu", calling("getcpu", _ADDRESS, 0, 0), "EPERM"),
    Attempt("getrusage", calling("getrusage", 0, _ADDRESS), "EPERM"),
    Attempt("set_tid_address", calling("set_tid_address", 0), "EPERM"),
    Attempt("set_mempolicy", calling("set_mempolicy", 0, 0, 0), "EPERM", unproven=NOT_BUILT_IN),
    Attempt("lookup_dcookie", calling("lookup_dcookie", 0, _ADDRESS, 16), "EPERM", unproven=_REFUSED_USER),
    Attempt("x32 call", _by_x32, "SIGSYS", unproven=_NO_X32),
    Attempt("32-bit call", _by_32_bit_call, "SIGSYS", freely=LEFT, unproven=_NO_32_BIT),
)

OWN_BEHAVIOUR = (
    Attempt("be dumpable", _prctl(4, 1), "EPERM"),
    Attempt("be traced by anybody", _prctl(0x59616D61, -1), "EPERM", unproven={"EINVAL": "needs Yama"}),
    Attempt("outlive the fork server", _prctl(1, 0), "EPERM"),
    Attempt("strict seccomp", calling("prctl", 22, 0, 0, 0, 0), "EPERM", freely="EINVAL"),
    Attempt("change the memory map", calling("prctl", 35, 15, 0, 0, 0), "EPERM", freely="EFAULT", unproven=NEEDS_ROOT),
    Attempt("keep capabilities", _prctl(8, 1), "EPERM"),
    Attempt("adopt orphans", _prctl(36, 1), "EPERM"),
    Attempt("merge all memory", _prctl(67, 1), "EPERM", unproven=NEEDS_ROOT | {"EINVAL": "not in this kernel"}),
    Attempt("switch speculation", calling("prctl", 52, 0, 0, 0, 0), "EPERM"),
    Attempt("a name of its own", _prctl(15, _ADDRESS), "EPERM", loading=OK),
    Attempt(
        "seccomp by prctl",
        in_child(lambda _: call("prctl", 22, 2, ctypes.addressof(_PROGRAM), 0, 0)),
        "EPERM",
        unproven=NEEDS_ROOT | {"EACCES": "needs no-new-privileges"},
    ),
    Attempt("another filter", in_child(lambda _: _add_filter(0)), "EPERM"),
    Attempt("ask about filters", _only_seccomp, "EPERM"),
    Attempt("listen to filters", in_child(lambda _: _add_filter(_NEW_LISTENER)), "EPERM"),
    Attempt("ignore SIGALRM", _set_handler(signal.SIGALRM), "EPERM"),
    Attempt("ignore SIGXCPU", _set_handler(signal.SIGXCPU), "EPERM"),
    Attempt("ignore SIGSYS", _set_handler(signal.SIGSYS), "EPERM"),
    Attempt("handle SIGTERM", _set_handler(signal.SIGTERM), "EPERM"),
    Attempt("POSIX timer", _timer, "EPERM"),
    Attempt("alarm", calling("alarm", 0), "EPERM"),
    Attempt("virtual timer", _set_timer(1), "EPERM"),
    Attempt(
        "wait on several futexes",
        calling("futex_waitv", bytes(24), 1, 0, 0, 0),
        "EPERM",
        freely="EINVAL",
        unproven=NOT_BUILT_IN,
    ),
    Attempt("futex with priorities", _lock_pi, "EPERM"),
    Attempt("requeue a futex", _futex(3, 0, 0, _WORD_AT, 0), "EPERM"),
    Attempt("wake by an operation", _futex(5, 0, 0, _WORD_AT, 0), "EPERM"),
)  # fmt: skip - a table

#: What native code in a worker can still do, on purpose: each is needed, and cannot do more harm than is said.
ALLOWED = (
    # The engine's fault handler restores default actions.
    Attempt("handle SIGSEGV", _set_handler(signal.SIGSEGV), OK),
    # The backstop's: the supervisor's own deadline does not need it.
    Attempt("disarm the timer", _set_timer(0), OK, compiling="EPERM"),
    Attempt("block signals", _block(signal.SIGALRM, signal.SIGXCPU, signal.SIGTERM), OK),
    Attempt("random numbers", lambda _s: os.getrandom(8), OK),
    Attempt("read clocks", _cpu_clock, OK),
    Attempt("sleep", lambda _s: time.sleep(0), OK),
    Attempt("signal itself", lambda _s: call("tgkill", os.getpid(), os.getpid(), 0), OK),
    Attempt("write to the supervisor's log pipe", lambda _s: os.write(2, b""), OK),
)
