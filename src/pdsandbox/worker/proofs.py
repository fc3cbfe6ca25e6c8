"""The proofs that a layer holds, for a process that has applied it: an attempt, or the kernel's word on the process.

No call that ends a process is tried: the kernel would write to its log at each start. Each proof returns what was seen,
in words for the report, or raises `DoesNotHold` or OSError.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import signal
import socket
from collections.abc import Callable
from typing import Final

from ..hardening import Layer
from ..platform.lockdown import filters, privileges
from ..platform.lockdown.calls import failed, syscall
from ..protocol.control import Role
from .lockdown import NAMESPACES, Lockdown

__all__ = ["DoesNotHold", "Proofs"]

_mprotect: Final = ctypes.PyDLL(None, use_errno=True)["mprotect"]
_mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_NR_PERSONALITY: Final = 135
_ASK: Final = 0xFFFFFFFF
_DISCARD_PORT: Final = 9


class DoesNotHold(Exception):
    """A proof failed."""


class Proofs:
    """Made in a child before it gives anything up.

    mine     its descriptors above 2
    outside  the abstract address of somebody outside its domain; None where there is none
    granted  the directory that it was granted for reading: its own in /proc. None in a child without directories
    """

    def __init__(
        self, lockdown: Lockdown, role: int, mine: set[int], outside: bytes | None, granted: int | None
    ) -> None:
        self._lockdown = lockdown
        self._role = role
        self._outside = outside
        self._granted = granted
        # /proc may be read-only: then Landlock would not be asked.
        self._could_write = granted is not None and os.access("comm", os.W_OK, dir_fd=granted)
        self._tcp = _tcp_socket()
        self._unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._mine = {*mine, *(sock.fileno() for sock in (self._tcp, self._unix) if sock)}
        self._dumps = _dump_mask()  # what a core dump would hold
        self._of: dict[Layer, Callable[[], str]] = {
            Layer.CLEAN_START: self._clean_start,
            Layer.PARENT_DEATH: self._parent_death,
            Layer.RLIMITS: self._rlimits,
            Layer.OOM_SCORE: self._oom_score,
            Layer.NAMESPACES: self._namespaces,
            Layer.UID: self._uid,
            Layer.CAPABILITIES: self._capabilities,
            Layer.NO_NEW_PRIVS: self._no_new_privs,
            Layer.UNDUMPABLE: self._undumpable,
            Layer.LANDLOCK_FILES: self._landlock_files,
            Layer.LANDLOCK_TCP: self._landlock_tcp,
            Layer.LANDLOCK_SCOPE: self._landlock_scope,
            Layer.SECCOMP: self._seccomp,
            Layer.MDWE: self._mdwe,
        }

    def prove(self, layer: Layer) -> str:
        """See the module's text."""
        return self._of[layer]()

    def _clean_start(self) -> str:
        # Python sets this one itself where there is no locale (PEP 538).
        names = sorted(os.environ.keys() - {"LC_CTYPE"})
        _check(not names, f"the environment holds {', '.join(names[:4])}: let python= name the interpreter itself")
        fds = {int(name) for name in os.listdir("/proc/self/fd")}
        # The last one is the directory that is being listed.
        _check(len({fd for fd in fds if fd > 2} - self._mine) <= 1, "descriptors of the fork server are open")
        return "own program image, empty environment, no descriptor but its own"

    def _parent_death(self) -> str:
        _check(privileges.parent_death_signal() == signal.SIGKILL, "no signal is set")
        return "ends when the fork server does, and that when the service does"

    def _rlimits(self) -> str:
        for name in ("CORE", "FSIZE", "MEMLOCK", "NPROC"):
            _check(resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) == (0, 0), f"{name} is not 0")
        few = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        _check(few <= self._lockdown.limits[resource.RLIMIT_NOFILE], f"NOFILE is {few}")
        _check(not self._dumps, f"a core dump could hold a worker's memory ({self._dumps})")
        held = f"no core dump, no growing file, no locked memory, {few} descriptors"
        ceiling = self._lockdown.cpu_ceiling(self._role)
        if ceiling is not None:
            _check(resource.getrlimit(resource.RLIMIT_CPU)[0] == ceiling, "CPU is not limited")
        return f"{held}, no process" if not _forks() else f"{held}; root is exempt from the limit on processes"

    def _oom_score(self) -> str:
        with open("/proc/self/oom_score_adj", "rb", buffering=0) as score:
            value = int(score.read())
        _check(value == 1000, f"it is {value}")
        return "the kernel out of memory ends a worker first"

    def _namespaces(self) -> str:
        for name in NAMESPACES:
            same = os.stat(f"/proc/self/ns/{name}").st_ino == self._lockdown.namespaces[name]
            _check(not same, f"the namespace {name} is the service's")
        return "network, IPC, host name and mounts of their own"

    def _uid(self) -> str:
        user, group = self._lockdown.identity
        _check(os.getresuid() == (user,) * 3 and os.getresgid() == (group,) * 3, "the user or group is another")
        _check(os.getgroups() == [], "there are supplementary groups")
        _check(not privileges.is_dumpable(), "it can be looked into by other processes of that user")
        if self._role == Role.COMPILER:
            return f"user and group {user}, no other groups"
        granted = "its owner" if self._lockdown.holds else "the same, for want of Landlock or a filter"
        return f"user and group {user}, no other groups; with a granted directory {granted}"

    def _capabilities(self) -> str:
        left = privileges.capabilities()
        _check(not left, f"{left:#x} are left")
        return "none left"

    def _no_new_privs(self) -> str:
        _check(privileges.new_privileges_refused(), "the kernel does not say so")
        return "no program can give any back"

    def _undumpable(self) -> str:
        _check(not privileges.is_dumpable(), "it is dumpable")
        return "no process of the same user may look into it"

    def _landlock_files(self) -> str:
        _refused(errno.EACCES, "opening /", lambda: os.open("/", os.O_RDONLY))
        granted = self._granted
        if granted is None:
            _refused(errno.EACCES, "opening /proc/self/mem", lambda: os.open("/proc/self/mem", os.O_RDWR))
        else:
            os.close(os.open("comm", os.O_RDONLY, dir_fd=granted))
            if self._could_write:
                _refused(errno.EACCES, "writing to a file", lambda: os.open("comm", os.O_WRONLY, dir_fd=granted))
            _refused(errno.EACCES, "opening what is above", lambda: os.open("..", os.O_RDONLY, dir_fd=granted))
        but = " but in granted directories" if self._role == Role.WORKER else ""
        return f"no file can be opened{but} (ABI {self._lockdown.abi})"

    def _landlock_tcp(self) -> str:
        tcp = self._tcp
        if tcp is None:
            return "not even the service can make a TCP socket here"
        address = "127.0.0.1" if tcp.family == socket.AF_INET else "::1"
        _refused(errno.EACCES, "connecting by TCP", lambda: tcp.connect((address, _DISCARD_PORT)))
        return "no TCP port can be bound or connected to"

    def _landlock_scope(self) -> str:
        unix, outside = self._unix, self._outside
        if unix is not None and outside is not None:
            _refused(errno.EPERM, "connecting to an abstract socket", lambda: unix.connect(outside))
        _refused(errno.EPERM, "asking for the fork server by signal", lambda: os.kill(os.getppid(), 0))
        return "no abstract socket, no signal to anybody outside"

    def _seccomp(self) -> str:
        self._refused_by_filter()
        count = filters.allowed(compiling=self._role == Role.COMPILER)
        if self._role == Role.COMPILER:
            return f"{count} of some 360 calls are allowed; another fails, or ends the process"
        private, shared, executable = mmap.MAP_PRIVATE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_EXEC
        _refused(errno.EPERM, "mapping executable memory", lambda: _map(private, executable))
        _refused(errno.EPERM, "mapping shared memory", lambda: _map(shared, mmap.PROT_READ))
        granted = self._granted
        if granted is not None:
            os.stat("comm", dir_fd=granted, follow_symlinks=False)
            # The kernel itself lets nobody change the mode of a file in /proc.
            _refused(errno.EPERM, "changing a mode", lambda: os.fchmod(self._unix.fileno(), 0o600))
            _refused(errno.EPERM, "changing a file's times", lambda: os.utime("comm", dir_fd=granted))
        reads, writes = (filters.allowed_files(writable=w, openat2=self._lockdown.openat2) for w in (False, True))
        return (
            f"{count} of some 360 calls ({reads} with directories to read, {writes} to write), no new code, no shared"
            " memory; another call fails, or ends the process"
        )

    def _refused_by_filter(self) -> None:
        _refused(errno.EPERM, "personality(2)", lambda: syscall("personality", _NR_PERSONALITY, _ASK))

    def _mdwe(self) -> str:
        # The filter refuses to map executable memory; this it does not, because loading needs it.
        _refused(errno.EACCES, "making memory executable", _make_executable)
        _check(privileges.executable_gain_refused(), "the kernel does not say so")
        return "no memory can become executable"


def _tcp_socket() -> socket.socket | None:
    """None where this machine, or a sandbox around the service, has no TCP."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.socket(family, socket.SOCK_STREAM)
        except OSError:
            continue
    return None


def _dump_mask() -> str:
    """What /proc/self/coredump_filter holds, empty for nothing: see `lockdown`."""
    try:
        with open("/proc/self/coredump_filter", "rb", buffering=0) as mask:
            value = mask.read().decode().strip()
    except FileNotFoundError:  # a kernel that dumps no core
        return ""
    except OSError as exc:
        return str(exc)
    return "" if int(value, 16) == 0 else f"coredump_filter is {value}: give the service a writable /proc"


def _forks() -> bool:
    try:
        pid = os.fork()
    except OSError:
        return False
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return True


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise DoesNotHold(otherwise)


def _map(flags: int, prot: int) -> mmap.mmap:
    return mmap.mmap(-1, mmap.PAGESIZE, flags=flags | mmap.MAP_ANONYMOUS, prot=prot)


def _make_executable() -> None:
    page = _map(mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    if _mprotect(address, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC):
        raise failed("mprotect")


def _refused(number: int, what: str, attempt: Callable[[], object]) -> None:
    """`attempt` must fail with errno `number`."""
    try:
        attempt()
    except OSError as exc:
        _check(exc.errno == number, f"{what} failed otherwise: {exc}")
    else:
        raise DoesNotHold(f"{what} succeeded")
