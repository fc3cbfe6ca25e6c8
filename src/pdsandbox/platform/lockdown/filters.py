"""Which system calls a worker and a compiler may make, and when: tables, found by leaving one out and testing again.

Three filters. LOADING: a worker from before it is handed out until its module is loaded. LOCKED: on top of it, before
the first instruction of the guest. COMPILING: a compiler, from before it reads its source. What is in no table fails
with EPERM; what only an attack would try ends the process with SIGSYS, so that it is seen.
"""

from __future__ import annotations

import errno
import mmap
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
    "restart_syscall": 219,
    "clock_gettime": 228,
    "clock_nanosleep": 230,
    "exit": 60,
    "exit_group": 231,
    "tgkill": 234,
    "kexec_load": 246,
    "add_key": 248,
    "request_key": 249,
    "keyctl": 250,
    "newfstatat": 262,
    "unshare": 272,
    "set_robust_list": 273,
    "accept4": 288,
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
    "rt_sigqueueinfo": 129,
    "pidfd_send_signal": 424,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "fsopen": 430,
    "fsmount": 432,
    "pidfd_open": 434,
    "clone3": 435,
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
_FUTURE: Final[dict[str, Rule]] = {
    "setitimer": (Only(0, (0,)),),  # ITIMER_REAL: the backstop
    "recvmsg": ALLOW,
    "fcntl": (Only(1, (_F_DUPFD_CLOEXEC, _F_GET_SEALS)),),
    "seccomp": (Only(0, (_SET_MODE_FILTER,)), Only(1, (_TSYNC,))),
    # Which of the two fstat(3) makes is the C library's affair.
    "fstat": ALLOW,
    "newfstatat": (Only(3, (_AT_EMPTY_PATH,)),),
    "prctl": (Only(0, (_PR_SET_NAME, _PR_SET_MDWE, _PR_GET_MDWE)),),
}


def _numbered(*tables: dict[str, Rule]) -> dict[int, Rule]:
    return {NUMBERS[name]: rule for table in tables for name, rule in table.items()}


_DEADLY: Final[dict[str, Rule]] = dict.fromkeys(FATAL, KILL)

LOADING: Final = _numbered(_DEADLY, _BASIC, _FUTURE)
#: Only what LOADING allows and this does not: all else is left to LOADING.
LOCKED: Final = _numbered(
    dict.fromkeys(
        ("recvmsg", "fcntl", "seccomp", "fstat", "newfstatat", "prctl"),
        errno_of(errno.EPERM),
    ),
    {"mprotect": (_NO_EXEC,)},
)
COMPILING: Final = _numbered(_DEADLY, _BASIC)


def allowed(*, compiling: bool) -> int:
    """How many calls a compiler, or a worker with a guest in it, may make, some of them with certain arguments only."""
    rules = COMPILING if compiling else {**LOADING, **LOCKED}
    return sum(rule == ALLOW or isinstance(rule, tuple) for rule in rules.values())


def name_of(number: int, architecture: int) -> str:
    """The call's name where these tables know it, else its number."""
    if architecture != AUDIT_ARCH_X86_64:
        return f"number {number} of another architecture"
    if number & X32_BIT:
        return f"{name_of(number ^ X32_BIT, architecture)} of x32"
    return _NAMES.get(number, f"number {number}")
