"""Every system call by its number, whatever it is: what no table allows fails, or ends the process; nothing else."""

from __future__ import annotations

import errno

import pytest

from pdsandbox.platform.lockdown import filters
from pdsandbox.platform.lockdown.seccomp import ALLOW, KILL

#: More than there are (472 in Linux 6.18), and what older kernels keep for x32.
NUMBERS = range(560)
X32 = 0x40000000
#: uretprobe(2) and uprobe(2), which newer kernels hide from filters: they answer none but the kernel's own trampolines.
HIDDEN = {335: "SIGILL", 336: "ENXIO"}
EVERYWHERE = """read write readv writev close poll mmap munmap mprotect brk madvise rt_sigreturn rt_sigaction
    rt_sigprocmask sigaltstack restart_syscall sched_yield futex clock_gettime clock_nanosleep getpid gettid tgkill
    getrandom exit exit_group"""
FILES = """lseek fstat newfstatat fcntl getdents64 readlinkat preadv fsync fdatasync fadvise64"""
WRITING = """pwritev pwritev2 ftruncate fallocate mkdirat unlinkat renameat linkat symlinkat utimensat"""
ALLOWED = {
    "locked": EVERYWHERE + " setitimer clock_getres",
    "loading": EVERYWHERE + " setitimer clock_getres recvmsg fcntl seccomp openat fstat newfstatat prctl",
    "compiling": EVERYWHERE,
    "reading": f"{EVERYWHERE} setitimer clock_getres {FILES} openat2",
    "granted": f"{EVERYWHERE} setitimer clock_getres {FILES} {WRITING} openat2",
    "reading, old": f"{EVERYWHERE} setitimer clock_getres {FILES} openat",
    "granted, old": f"{EVERYWHERE} setitimer clock_getres {FILES} {WRITING} openat",
    "granted_loading": f"{EVERYWHERE} setitimer clock_getres recvmsg seccomp prctl {FILES} {WRITING} openat openat2",
}


def with_files(*, writable, openat2):
    """What a locked worker with directories is left with."""
    return {**filters.loading_files(writable=writable, openat2=openat2), **filters.locked_files(openat2=openat2)}


TABLES = {
    "locked": {**filters.LOADING, **filters.LOCKED},
    "loading": filters.LOADING,
    "compiling": filters.COMPILING,
    "reading": with_files(writable=False, openat2=True),
    "granted": with_files(writable=True, openat2=True),
    "reading, old": with_files(writable=False, openat2=False),
    "granted, old": with_files(writable=True, openat2=False),
    "granted_loading": filters.loading_files(writable=True, openat2=True),
}
#: Those that this kernel's workers have.
PLAYED = [stage for stage in TABLES if "old" not in stage]


def is_allowed(rule):
    """Whether a call with this rule may be made, if only with some arguments."""
    return rule == ALLOW or isinstance(rule, tuple)


def expected(rule):
    """The outcome of a call that is not allowed."""
    return "SIGSYS" if rule == KILL else errno.errorcode[rule & 0xFFFF] if rule is not None else "EPERM"


@pytest.mark.parametrize("stage", TABLES)
def test_no_other_call_is_allowed(stage):
    """A call more is a hole more: it has to be added here, too."""
    table = TABLES[stage]
    found = {name for name, number in filters.NUMBERS.items() if is_allowed(table.get(number))}
    assert found == set(ALLOWED[stage].split())
    if stage in ("locked", "reading", "granted"):
        told = filters.allowed_files(writable=stage == "granted", openat2=True), filters.allowed(compiling=False)
        assert len(found) == told[stage == "locked"]
    assert set(table) <= set(filters.NUMBERS.values())


@pytest.mark.parametrize("user", ["ordinary user"], indirect=True)  # the filter does not ask who calls
@pytest.mark.parametrize("stage", PLAYED)
def test_every_call_that_is_not_allowed_is_refused(stage, play):
    """With arguments that are all 0, and all -1; a number of x32 ends the process, too."""
    table = TABLES[stage]
    refused = [number for number in NUMBERS if not is_allowed(table.get(number))]
    x32 = [X32, X32 | 39, X32 | 520, 0x7FFFFFFF, 0xFFFFFFFF]
    wanted = {f"{number} {argument}": expected(table.get(number)) for number in refused for argument in (0, -1)}
    wanted |= {f"{number} {argument}": "SIGSYS" for number in x32 for argument in (0, -1)}
    found = play("escape_direct", stages=[stage], sweep=[*refused, *x32])[stage]
    for number, outcome in HIDDEN.items():
        for argument in (0, -1):
            assert found.pop(f"{number} {argument}") in (wanted.pop(f"{number} {argument}"), outcome)
    assert found == wanted
