"""Which system calls a worker and a compiler may make, and when: tables, found by leaving one out and testing again.

Three filters. LOADING: a worker from before it is handed out until its module is loaded. LOCKED: on top of it, before
the first instruction of the guest. COMPILING: a compiler, from before it reads its source. What is in no table fails
with EPERM; what only an attack would try ends the process with SIGSYS, so that it is seen.

A worker with granted directories has other tables in the place of LOADING and LOCKED, with calls on files. A filter
sees no paths: which files those reach is up to Landlock. What Landlock does not look at either is left out: owners,
modes, extended attributes, and the times of a file that is not open.
"""

from __future__ import annotations

import errno
import mmap
import os
import signal
from typing import Final

from .seccomp import ALLOW, AUDIT_ARCH_X86_64, KILL, OWN_PID, X32_BIT, DenyBits, Only, Rule, errno_of

#: x86_64: arch/x86/entry/syscalls/syscall_64.tbl.
NUMBERS: Final = {
    "read": 0,
    "write": 1,
    "open": 2,
    "close": 3,
    "fstat": 5,
    "poll": 7,
    "lseek": 8,
    "mmap": 9,
    "mprotect": 10,
    "munmap": 11,
    "brk": 12,
    "rt_sigaction": 13,
    "rt_sigprocmask": 14,
    "rt_sigreturn": 15,
    "readv": 19,
    "writev": 20,
    "sched_yield": 24,
    "mremap": 25,
    "madvise": 28,
    "shmget": 29,
    "shmat": 30,
    "getpid": 39,
    "setitimer": 38,
    "socket": 41,
    "connect": 42,
    "accept": 43,
    "sendto": 44,
    "sendmsg": 46,
    "recvmsg": 47,
    "bind": 49,
    "listen": 50,
    "socketpair": 53,
    "clone": 56,
    "fork": 57,
    "vfork": 58,
    "execve": 59,
    "kill": 62,
    "fcntl": 72,
    "fsync": 74,
    "fdatasync": 75,
    "ftruncate": 77,
    "ptrace": 101,
    "setuid": 105,
    "setgid": 106,
    "setreuid": 113,
    "setregid": 114,
    "setresuid": 117,
    "setresgid": 119,
    "sigaltstack": 131,
    "pivot_root": 155,
    "prctl": 157,
    "chroot": 161,
    "mount": 165,
    "umount2": 166,
    "gettid": 186,
    "init_module": 175,
    "delete_module": 176,
    "tkill": 200,
    "futex": 202,
    "getdents64": 217,
    "restart_syscall": 219,
    "fadvise64": 221,
    "clock_gettime": 228,
    "clock_getres": 229,
    "clock_nanosleep": 230,
    "exit": 60,
    "exit_group": 231,
    "tgkill": 234,
    "kexec_load": 246,
    "add_key": 248,
    "request_key": 249,
    "keyctl": 250,
    "openat": 257,
    "mkdirat": 258,
    "newfstatat": 262,
    "unlinkat": 263,
    "renameat": 264,
    "linkat": 265,
    "symlinkat": 266,
    "readlinkat": 267,
    "unshare": 272,
    "set_robust_list": 273,
    "utimensat": 280,
    "fallocate": 285,
    "accept4": 288,
    "preadv": 295,
    "pwritev": 296,
    "perf_event_open": 298,
    "rt_tgsigqueueinfo": 297,
    "prlimit64": 302,
    "open_by_handle_at": 304,
    "setns": 308,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
    "finit_module": 313,
    "seccomp": 317,
    "getrandom": 318,
    "memfd_create": 319,
    "kexec_file_load": 320,
    "bpf": 321,
    "execveat": 322,
    "userfaultfd": 323,
    "pwritev2": 328,
    "rt_sigqueueinfo": 129,
    "pidfd_send_signal": 424,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "fsopen": 430,
    "fsmount": 432,
    "pidfd_open": 434,
    "clone3": 435,
    "statx": 332,
    "openat2": 437,
    "pidfd_getfd": 438,
    "process_madvise": 440,
    "mount_setattr": 442,
    "memfd_secret": 447,
}  # fmt: skip - a table
_NAMES: Final = {number: name for name, number in NUMBERS.items()}

#: Processes and programs, the network, other processes' memory, kernel interfaces known for their bugs, privileges.
FATAL: Final = (
    "clone", "fork", "vfork", "clone3", "execve", "execveat", "socket", "socketpair", "connect", "bind", "listen",
    "accept", "accept4", "sendto", "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "pidfd_open",
    "pidfd_getfd", "pidfd_send_signal", "kill", "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "bpf",
    "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register", "add_key", "request_key",
    "keyctl", "unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "fsopen", "fsmount", "mount_setattr",
    "open_by_handle_at", "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "setuid",
    "setgid", "setreuid", "setregid", "setresuid", "setresgid", "shmget", "shmat", "memfd_secret",
)  # fmt: skip

# What running, trapping and answering need. `rt_sigaction`: the fault handler restores the default action before a
# genuine SIGSEGV, which would be reported as SIGSYS otherwise. Nobody may change SIGALRM's or SIGXCPU's.
_FAULTS: Final = tuple(
    int(s) for s in (signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV)
)
_MAP_TYPE: Final = 0xF
_MAP_GROWSDOWN: Final = 0x100
_MAP_HUGETLB: Final = 0x40000
# All that escapes RLIMIT_DATA: shared mappings, those that grow down, huge pages.
_PLAIN_MAPPING: Final = (
    Only(3, (mmap.MAP_PRIVATE,), mask=_MAP_TYPE),
    DenyBits(3, _MAP_GROWSDOWN | _MAP_HUGETLB),
)
_NO_EXEC: Final = DenyBits(2, mmap.PROT_EXEC)
# Nothing that can be both written and run, and no PROT_GROWSDOWN. Machine code is written, then made executable: so
# the engine does it, and so nothing needs to be mapped executable in the first place.
_PROTECTIONS: Final = (0, mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE, mmap.PROT_READ | mmap.PROT_EXEC)
# The allocators'. Others share pages between processes (MERGEABLE), push them out, or have a history.
_ADVICE: Final = (4, 8)  # DONTNEED, FREE
_FUTEX_OPERATIONS: Final = (0, 1, 9, 10)  # WAIT, WAKE and their _BITSET forms; the others have a history
_FUTEX_FLAGS: Final = 0x180  # PRIVATE, CLOCK_REALTIME
_BASIC: Final[dict[str, Rule]] = {
    **dict.fromkeys(
        ("read", "write", "readv", "writev", "close", "poll", "munmap", "brk", "rt_sigreturn",
         "rt_sigprocmask", "sigaltstack", "restart_syscall", "sched_yield", "clock_gettime", "clock_nanosleep",
         "getpid", "gettid", "getrandom", "exit", "exit_group"),
        ALLOW,
    ),
    "mmap": (*_PLAIN_MAPPING, _NO_EXEC),
    "mprotect": (Only(2, _PROTECTIONS),),
    # A page of the stack, moved and made larger, is no data to RLIMIT_DATA. realloc(3) then copies.
    "mremap": errno_of(errno.ENOMEM),
    "madvise": (Only(2, _ADVICE),),
    "rt_sigaction": (Only(0, _FAULTS),),
    "futex": (Only(1, _FUTEX_OPERATIONS, mask=~_FUTEX_FLAGS & 0xFFFFFFFF),),
    "tgkill": (Only(0, (OWN_PID,), otherwise=KILL),),  # abort(3)
    "memfd_create": errno_of(errno.ENOSYS),  # the engine then goes on without
}  # fmt: skip

_PR_SET_NAME: Final = 15
_PR_SET_MDWE: Final = 65
_PR_GET_MDWE: Final = 66
_AT_EMPTY_PATH: Final = 0x1000
_F_DUPFD_CLOEXEC: Final = 1030
_F_GET_SEALS: Final = 1034
_SET_MODE_FILTER: Final = 1
_TSYNC: Final = 1
_CLOCKS: Final = (0, 1)  # CLOCK_REALTIME, CLOCK_MONOTONIC
_FUTURE: Final[dict[str, Rule]] = {
    "setitimer": (Only(0, (0,)),),  # ITIMER_REAL: the backstop
    # A guest may ask how fine its clocks are; mostly the C library knows without the kernel.
    "clock_getres": (Only(0, _CLOCKS),),
    "recvmsg": ALLOW,
    # The engine maps a module by its path, /proc/self/fd/N, so that workers share its pages. Landlock allows no other.
    "openat": (Only(2, (os.O_RDONLY | os.O_CLOEXEC,)),),
    "statx": errno_of(errno.ENOSYS),  # it goes on with fstat(2)
    "fcntl": (Only(1, (_F_DUPFD_CLOEXEC, _F_GET_SEALS)),),
    "seccomp": (Only(0, (_SET_MODE_FILTER,)), Only(1, (_TSYNC,))),
    # Which of the two fstat(3) makes is the C library's affair.
    "fstat": ALLOW,
    "newfstatat": (Only(3, (_AT_EMPTY_PATH,)),),
    "prctl": (Only(0, (_PR_SET_NAME, _PR_SET_MDWE, _PR_GET_MDWE)),),
}


def _numbered(*tables: dict[str, Rule]) -> dict[int, Rule]:
    return {NUMBERS[name]: rule for table in tables for name, rule in table.items()}


# How the standard library lists an open directory: a copy of the descriptor, and what it looks at and sets there.
_LISTING: Final = (_F_DUPFD_CLOEXEC, 2, 3)  # F_DUPFD_CLOEXEC, F_SETFD, F_GETFL
_AT_SYMLINK_NOFOLLOW: Final = 0x100
_AT_REMOVEDIR: Final = 0x200
_RWF_APPEND: Final = 0x10
# Truncating means writing: Landlock before ABI 3 looks at how a file is opened, and not at what else happens to it.
_MODES_OF_OPENING: Final = (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_TRUNC)
# No set-user-id and no set-group-id. openat2(2) has its mode where no filter sees it; what is written to a file clears
# them there.
_PLAIN_MODE: Final = DenyBits(3, 0o6000)
_TMPFILE: Final = os.O_TMPFILE & ~os.O_DIRECTORY
#: Calls on files that a worker makes for a guest with granted directories. Reading...
_READING_FILES: Final[dict[str, Rule]] = {
    **dict.fromkeys(("fstat", "lseek", "getdents64", "readlinkat", "preadv", "fsync", "fdatasync"), ALLOW),
    "newfstatat": (Only(3, (_AT_SYMLINK_NOFOLLOW, _AT_EMPTY_PATH, _AT_SYMLINK_NOFOLLOW | _AT_EMPTY_PATH)),),
    "fadvise64": (Only(3, tuple(range(6))),),
}
# ... and writing. A C library without pwritev2(2) makes the other call when there are no flags.
_WRITING_FILES: Final[dict[str, Rule]] = {
    **dict.fromkeys(("pwritev", "ftruncate", "renameat", "symlinkat"), ALLOW),
    "pwritev2": (Only(5, (0, _RWF_APPEND)),),
    "fallocate": (Only(1, (0,)),),
    "mkdirat": (DenyBits(2, 0o6000),),
    "unlinkat": (Only(2, (0, _AT_REMOVEDIR)),),
    "linkat": (Only(4, (0,)),),
    # Of an open file only, as futimens(3) does: Landlock does not look at times, so a path would lead anywhere.
    "utimensat": (Only(1, (0,)), Only(1, (0,), high=True), Only(3, (0,))),
}


_DEADLY: Final[dict[str, Rule]] = dict.fromkeys(FATAL, KILL)
_NO_LONGER: Final[dict[str, Rule]] = {
    **dict.fromkeys(("recvmsg", "seccomp", "prctl"), errno_of(errno.EPERM)),
    "mprotect": (_NO_EXEC,),
}

LOADING: Final = _numbered(_DEADLY, _BASIC, _FUTURE)
#: Only what LOADING allows and this does not: all else is left to LOADING.
LOCKED: Final = _numbered(
    dict.fromkeys(("openat", "statx", "fcntl", "fstat", "newfstatat"), errno_of(errno.EPERM)), _NO_LONGER
)
COMPILING: Final = _numbered(_DEADLY, _BASIC)


def loading_files(*, writable: bool, openat2: bool) -> dict[int, Rule]:
    """In place of LOADING with granted directories, one of them `writable` or none.

    `openat2`: they are opened by that call, whose arguments no filter sees; else by openat(2), and the answer to
    openat2 is that there is no such call.
    """
    modes = _MODES_OF_OPENING if writable else (os.O_RDONLY,)
    never = _TMPFILE if writable else _TMPFILE | os.O_CREAT
    opening: dict[str, Rule] = {
        "openat2": errno_of(errno.ENOSYS),
        "openat": (Only(2, modes, mask=os.O_ACCMODE | os.O_TRUNC), DenyBits(2, never), _PLAIN_MODE),
    }
    if openat2:
        opening = {"openat2": ALLOW}
    fcntl: dict[str, Rule] = {"fcntl": (Only(1, (*_LISTING, _F_GET_SEALS)),)}
    return _numbered(_DEADLY, _BASIC, _FUTURE, fcntl, _READING_FILES, _WRITING_FILES if writable else {}, opening)


def locked_files(*, openat2: bool) -> dict[int, Rule]:
    """In place of LOCKED, on top of `loading_files`.

    No file is mapped any more: who copies memory of this process would wait for its pages as long as its file system
    does.
    """
    opening: dict[str, Rule] = {"openat": errno_of(errno.EPERM)} if openat2 else {}
    anonymous: Rule = (Only(3, (mmap.MAP_ANONYMOUS,), mask=mmap.MAP_ANONYMOUS),)
    return _numbered({"fcntl": (Only(1, _LISTING),), "mmap": anonymous}, opening, _NO_LONGER)


def allowed(*, compiling: bool) -> int:
    """How many calls a compiler, or a worker with a guest in it, may make, some of them with certain arguments only."""
    return _count(COMPILING if compiling else {**LOADING, **LOCKED})


def allowed_files(*, writable: bool, openat2: bool) -> int:
    """The same for a worker with directories."""
    return _count({**loading_files(writable=writable, openat2=openat2), **locked_files(openat2=openat2)})


def _count(rules: dict[int, Rule]) -> int:
    return sum(rule == ALLOW or isinstance(rule, tuple) for rule in rules.values())


def name_of(number: int, architecture: int) -> str:
    """The call's name where these tables know it, else its number."""
    if architecture != AUDIT_ARCH_X86_64:
        return f"number {number} of another architecture"
    if number & X32_BIT:
        return f"{name_of(number ^ X32_BIT, architecture)} of x32"
    return _NAMES.get(number, f"number {number}")
