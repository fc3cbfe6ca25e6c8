"""Linux: pidfds, sealed memfds, /proc/PID/statm, prctl, and reads and writes that keep the GIL.

Knows system calls and nothing of messages, limits or verdicts. Every function either does what it says or raises
OSError. Needs Linux 5.4 (pidfd_open, waitid on pidfds) and /proc.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import resource
import select
import signal
import socket
import struct
import termios
import time
from typing import Final, NamedTuple

from .cpu import cpu_features as cpu_features
from .transfer import SmallFile as SmallFile
from .transfer import Spinner as Spinner
from .transfer import address_of as address_of
from .transfer import close_nowait as close_nowait
from .transfer import copy_bytes as copy_bytes
from .transfer import copy_process as copy_process
from .transfer import copy_raw as copy_raw
from .transfer import give_way as give_way
from .transfer import new_bytes as new_bytes
from .transfer import open_nowait as open_nowait
from .transfer import read_raw as read_raw
from .transfer import write_nowait as write_nowait
from .transfer import write_raw as write_raw
from .usage import usage_of as usage_of

_keeping_gil = ctypes.PyDLL(None)
PAGE_BYTES: Final = os.sysconf("SC_PAGESIZE")

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def missing() -> str | None:
    """Why workers cannot run on this machine, or None. Asked each time: that descriptors are used up passes."""
    try:
        os.close(pidfd_open(os.getpid()))
        os.close(open_memory(os.getpid()))
    except OSError as exc:
        return f"worker processes need pidfd_open (Linux 5.4) and /proc: {exc}"
    return None


class Exit(NamedTuple):
    """How a process ended: `signal` or `exit_code`."""

    signal: int | None
    exit_code: int | None


def pidfd_open(pid: int) -> int:
    """A close-on-exec file descriptor for the process, readable once it has ended."""
    return above_std(os.pidfd_open(pid))


def pidfd_kill(pidfd: int) -> None:
    """SIGKILL; nothing when the process has ended already."""
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass


def pidfd_exited(pidfd: int, timeout_s: float) -> bool:
    """Wait until the process has ended; False when `timeout_s` passed first."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(max(0, timeout_s) * 1000))


def pidfd_peek(pidfd: int) -> Exit | None:
    """How our child ended, leaving it a zombie so that its pid stays taken; None while it runs."""
    return _exit_of(os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT))


def pidfd_reap(pidfd: int) -> Exit | None:
    """Reap our child if it has ended."""
    return _exit_of(os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG))


def _exit_of(info: os.waitid_result | None) -> Exit | None:
    if info is None:
        return None
    if info.si_code == os.CLD_EXITED:
        return Exit(None, info.si_status)
    return Exit(info.si_status, None)


def above_std(fd: int) -> int:
    """`fd`, moved above 2 when the user's program runs without standard streams and got a low number."""
    if fd > 2:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)


def pipe(flags: int = 0) -> tuple[int, int]:
    """(read end, write end), close-on-exec, above 2; `flags` such as O_NONBLOCK are for both."""
    r, w = os.pipe2(os.O_CLOEXEC | flags)
    try:
        r = above_std(r)
    except BaseException:
        os.close(w)
        raise
    try:
        return r, above_std(w)
    except BaseException:
        os.close(r)
        raise


def send_fds(sock: socket.socket, data: bytes, fds: list[int], flags: int = 0) -> None:
    """One packet with descriptors beside it. (In Python 3.11 `socket.send_fds` drops its flags.)"""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
    sock.sendmsg([data], ancillary, flags | socket.MSG_NOSIGNAL)


def recv_fds(sock: socket.socket, size: int, most: int, flags: int = 0) -> tuple[bytes, list[int], bool]:
    """(one packet, its descriptors, close-on-exec; whether some did not fit). The descriptors are the caller's."""
    data, ancillary, got, _ = sock.recvmsg(size, socket.CMSG_SPACE(4 * most), flags | socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, raw in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds += struct.unpack(f"{len(raw) // 4}i", raw[: len(raw) // 4 * 4])
    return data, fds, bool(got & socket.MSG_CTRUNC)


def unread_bytes(fd: int) -> int:
    """What was written to a pipe and not read yet; `fd` may be either end."""
    count = ctypes.c_int()
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return count.value


def idle_core() -> bool:
    """Whether no more threads run, or want to, than there are cores, now. (/proc/loadavg, proc_loadavg(5))"""
    fd = open_nowait(b"/proc/loadavg", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(SmallFile(fd, 128).read().split()[3].partition(b"/")[0]) <= _CORES
    finally:
        close_nowait(fd)


_CORES: Final = os.cpu_count() or 1


def part_from(pid: int) -> None:
    """Have process `pid` run on another core than this thread. Where it may run stays as it was."""
    everywhere = os.sched_getaffinity(pid)
    elsewhere = everywhere - {_getcpu()}
    if elsewhere:
        os.sched_setaffinity(pid, elsewhere)
        os.sched_setaffinity(pid, everywhere)


_getcpu = _keeping_gil["sched_getcpu"]
_getcpu.argtypes = ()


def pidfd_reaped(pidfd: int) -> bool:
    """Whether the process has ended and its parent has collected it: only then may its pid be another's."""
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return True
    return False


def memfd(name: str) -> int:
    """An anonymous file that can be sealed."""
    return above_std(os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))


def seal(fd: int) -> None:
    """Make the memfd immutable for everyone who holds it."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)


def is_sealed(fd: int) -> bool:
    """Whether `fd` is a memfd that nobody can change any more."""
    return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS == _SEALS


def map_readonly(fd: int) -> mmap.mmap:
    """The whole file, mapped for reading."""
    return mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)


def open_memory(pid: int) -> int:
    """A descriptor for `memory_file`. It stays with this very process: once that is gone, reading fails."""
    # statm knows nothing of swap, and status takes five times as long to read.
    name = "status" if _has_swap() else "statm"
    return above_std(os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC))


def _has_swap() -> bool:
    try:
        with open("/proc/swaps", "rb", buffering=0) as swaps:
            return swaps.read(4096).count(b"\n") > 1
    except FileNotFoundError:  # a kernel without swap
        return False


def memory_file(fd: int) -> SmallFile:
    """Samples, for `resident_of` and `data_of` (4 us each; 20 with swap). OSError once the process is reaped."""
    return SmallFile(fd, 4096)


def resident_of(sample: bytes) -> int:
    """Bytes resident, and swapped out where this machine swaps. 0 for a zombie."""
    if sample[:1].isdigit():
        return int(sample.split(b" ", 2)[1]) * PAGE_BYTES
    return _sum_of_lines(sample, (b"VmRSS:", b"VmSwap:"))


def data_of(sample: bytes) -> int:
    """Bytes of private writable memory, stack included, touched or not: what RLIMIT_DATA charges, and the stack. 0 for
    a zombie."""
    if sample[:1].isdigit():
        return int(sample.split()[5]) * PAGE_BYTES
    return _sum_of_lines(sample, (b"VmData:", b"VmStk:"))


def process_cpu_s(pid: int) -> float:
    """Seconds of CPU time that all threads of process `pid` have used, also once it is a zombie; OSError once it is
    reaped. (0.6 us)"""
    # The clock of another process, as clock_getcpuclockid(3) computes it: the kernel's posix-timers_types.h.
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)


def process_peak(pid: int) -> int:
    """The most bytes that process `pid` ever had resident; 0 for a zombie. OSError once it is reaped. (20 us)"""
    with open(f"/proc/{pid}/status", "rb", buffering=0) as status:
        return _sum_of_lines(status.read(4096), (b"VmHWM:",))


_CPUCLOCK_SCHED: Final = 2


def _sum_of_lines(sample: bytes, names: tuple[bytes, ...]) -> int:
    return sum(int(line.split()[1]) << 10 for line in sample.splitlines() if line.startswith(names))


def die_with_parent(parent: int) -> None:
    """SIGKILL this process when its parent ends; also when that has happened already."""
    # Without ctypes' own copy of errno, which a fresh fork would have to set up: this call fails for one reason only.
    if _keeping_gil.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0):
        raise OSError(errno.EINVAL, "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def set_name(name: str) -> None:
    """The name that ps and top show."""
    _keeping_gil.prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()[:15]), 0, 0, 0)


def close_all_but(keep: set[int]) -> None:
    """Close every descriptor above 2 that is not in `keep`."""
    low = 3
    for fd in sorted(keep):
        os.closerange(low, fd)
        low = max(low, fd + 1)
    os.closerange(low, 2**31 - 1)


def data_bytes() -> int:
    """`data_of` this process."""
    return data_of(_statm())


def _statm() -> bytes:
    with open("/proc/self/statm", "rb", buffering=0) as statm:
        return statm.read()


def raise_descriptor_limit() -> int:
    """Let this process have as many descriptors as it may; the soft limit that it had."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft


def forbid_core_dumps() -> None:
    """For this process and those that it forks."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def data_ceiling(more: int | None) -> int | None:
    """The RLIMIT_DATA that allows `more` bytes beyond what this process has now, as far as it may be set."""
    return None if more is None else _ceiling(resource.RLIMIT_DATA, data_bytes() + more)


def space_ceiling(more: int | None) -> int | None:
    """The same for RLIMIT_AS: `more` bytes of addresses, reserved or used."""
    return None if more is None else _ceiling(resource.RLIMIT_AS, int(_statm().split()[0]) * PAGE_BYTES + more)


def _ceiling(kind: int, ceiling: int) -> int:
    _, hard = resource.getrlimit(kind)
    return ceiling if hard == resource.RLIM_INFINITY else min(ceiling, hard)


def set_ceilings(data: int | None, space: int | None, descriptors: int) -> None:
    """At most `data` bytes of private writable memory, `space` bytes of addresses, and `descriptors` open files.

    `space` bounds page tables, which no other limit and no count of resident memory sees: 4 KiB for each 2 MiB of
    addresses that were so much as read.
    """
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    if data is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (data, data))
    if space is not None:
        resource.setrlimit(resource.RLIMIT_AS, (space, space))


def cgroup_out_of_memory(base: str, owner: int, ticket: int) -> int | None:
    """The most bytes that the child of fork server `owner` has used, if the kernel ended it for its cgroup's limit."""
    from .lockdown import cgroup

    return cgroup.out_of_memory(cgroup.leaf(base, owner, ticket))


def limit_cpu(pid: int, seconds: int | None) -> None:
    """SIGXCPU for process `pid` once it has used this much CPU time in all; None: never."""
    soft = resource.RLIM_INFINITY if seconds is None else seconds
    resource.prlimit(pid, resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def cpu_is_limited() -> bool:
    """Whether this process was given a limit on CPU time that it cannot raise, and so cannot its children."""
    return resource.getrlimit(resource.RLIMIT_CPU)[1] != resource.RLIM_INFINITY


def denied_call(pid: int, age_s: float) -> str | None:
    """The name of the system call that a filter ended process `pid` for, which began `age_s` seconds ago; where the
    kernel's log may be read."""
    from .lockdown import log

    return log.denied_call(pid, age_s)


def system() -> tuple[str, str]:
    """("Linux 6.1.0", "x86_64")."""
    uname = os.uname()
    return f"{uname.sysname} {uname.release}", uname.machine
