"""The survey: a child that locks itself down as every later one will, and looks after each step whether it holds.

Runs our own code only. It reports over a pipe, one line a layer. Each proof is an attempt, or the kernel's own word on
the state of the process. No call that ends a process is tried: the kernel would write to its log at each start.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from typing import Final, NoReturn

from ..hardening import Layer, State
from ..platform import os_
from ..platform.lockdown import filters, privileges
from ..platform.lockdown.calls import failed, syscall
from ..protocol.control import Role, Seen
from .lockdown import DESCRIPTORS, NAMESPACES, Lockdown
from .reasons import ended_by, parts, reason

_mprotect: Final = ctypes.PyDLL(None, use_errno=True)["mprotect"]
_mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_NR_PERSONALITY: Final = 135
_ASK: Final = 0xFFFFFFFF
_DISCARD_PORT: Final = 9
_END: Final = "end"

Rows = dict[Layer, tuple[State, str]]


def survey(lockdown: Lockdown) -> tuple[Seen, ...]:
    """Send a child of each kind through `lockdown`, and settle its plan. In the fork server, single-threaded."""
    seen = {}
    for role in (Role.WORKER, Role.COMPILER):
        while (rows := _look(lockdown, role)) is None:
            pass  # one layer fewer is in the plan
        seen[role] = rows
    # Only now it is known whether somebody can raise the limit on CPU time, and so whether later children have it.
    for role, rows in seen.items():
        state, detail = rows[Layer.RLIMITS]
        if state is State.ACTIVE:
            cpu = (
                "CPU time"
                if lockdown.cpu_ceiling(role) is not None
                else "no limit on CPU time but the supervisor's own"
            )
            rows[Layer.RLIMITS] = state, f"{detail}; {cpu}"
    return tuple(Seen(role, layer, *rows[layer]) for role, rows in seen.items() for layer in Layer)


def _look(lockdown: Lockdown, role: int) -> Rows | None:
    """What a child says. What could not be applied has left the plan; None when trying that ended the child."""
    lines, status = _send_one(lockdown, role)
    rows: Rows = {}
    trying = None
    for line in lines:
        name, *said = line.split("\t", 3)
        if not said:
            trying = name
            continue
        layer, (state, applied, detail) = Layer[name], said
        if layer not in rows or rows[layer][0] is State.ACTIVE:  # what has failed once has failed
            rows[layer] = State[state], detail
        if not int(applied):
            lockdown.drop(layer, State.MISSING, detail, role)
    if trying != _END:
        if trying is None or not os.WIFSIGNALED(status):
            raise SystemExit(f"the look at the lock-down ended early (wait status {status})")
        for part in parts(Layer[trying]):
            lockdown.drop(part, State.MISSING, ended_by(status), role)
        return None
    for layer in Layer:
        without = lockdown.without(role, layer)
        if without is not None:
            rows.setdefault(layer, without)
    return rows


def _send_one(lockdown: Lockdown, role: int) -> tuple[list[str], int]:
    """A child's words, and its wait status."""
    # Somebody outside the child's domain, for it to try to reach.
    outside: socket.socket | None = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    assert outside is not None
    try:
        outside.bind("")  # the kernel picks an abstract name
        outside.listen()
    except OSError:  # another sandbox's word
        outside.close()
        outside = None
    r, w = os_.pipe()
    pid = os.fork()
    if pid == 0:
        _Child(lockdown, role, w, outside.getsockname() if outside else None).run()
    os.close(w)
    with open(r, "rb") as pipe:
        lines = pipe.read().decode().splitlines()
    if outside is not None:
        outside.close()
    # Whether the supervisor, which has our rights, will be able to raise it.
    try:
        os_.limit_cpu(pid, None)
    except OSError:
        lockdown.limits_cpu = False
    _, status = os.waitpid(pid, 0)
    return lines, status


def _tcp_socket() -> socket.socket | None:
    """None where this machine, or a sandbox around the service, has no TCP."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.socket(family, socket.SOCK_STREAM)
        except OSError:
            continue
    return None


class _Child:
    """In the fork."""

    def __init__(self, lockdown: Lockdown, role: int, report: int, outside: bytes | None) -> None:
        self._lockdown = lockdown
        self._role = role
        self._report = report
        self._outside = outside
        self._tcp: socket.socket | None = None
        self._unix: socket.socket | None = None
        self._dumps = ""  # what a core dump would hold
        self._proofs: dict[Layer, Callable[[], str]] = {
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

    def run(self) -> NoReturn:
        status = 1
        try:
            # As in every child: nothing of the fork server's stays open.
            os_.close_all_but({self._report, *self._lockdown.descriptors})
            self._tcp = _tcp_socket()
            self._unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._go_through()
            os.write(self._report, f"{_END}\n".encode())
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)

    def _go_through(self) -> None:
        # What is inherited, while /proc can still be read.
        for inherited in (Layer.CLEAN_START, Layer.OOM_SCORE, Layer.NAMESPACES, Layer.NO_NEW_PRIVS):
            self._prove(inherited)
        self._dumps = _dump_mask()
        limited = True
        for layer, step in self._lockdown.steps(self._role):
            if layer is None:
                step()
                if limited:  # only now all of them are set
                    self._prove(Layer.RLIMITS)
            elif layer is Layer.RLIMITS:
                limited = self._apply(layer, step)
            elif self._apply(layer, step) and not (layer is Layer.SECCOMP and self._role == Role.WORKER):
                for part in parts(layer):
                    self._prove(part)
                if layer is Layer.UID:
                    self._look_for_a_gift()
        if self._role == Role.WORKER:
            if self._apply(Layer.MDWE, privileges.refuse_executable_gain):
                self._prove(Layer.MDWE)
            if self._apply(Layer.SECCOMP, self._lockdown.lock_filter):
                self._prove(Layer.SECCOMP)

    def _apply(self, layer: Layer, step: Callable[[], None]) -> bool:
        """Whether it was in the plan, and could be applied."""
        if not self._lockdown.applies(self._role, layer):
            return False
        os.write(self._report, f"{layer.name}\n".encode())
        try:
            step()
        except OSError as exc:
            for part in parts(layer):
                self._say(part, State.MISSING, reason(part, exc), applied=False)
            return False
        return True

    def _look_for_a_gift(self) -> None:
        if not self._lockdown.applies(self._role, Layer.UNDUMPABLE) and not privileges.is_dumpable():
            self._say(Layer.UNDUMPABLE, State.NOT_NEEDED, "the change of user has brought it along")

    def _prove(self, layer: Layer) -> None:
        if self._lockdown.applies(self._role, layer):
            try:
                self._say(layer, State.ACTIVE, self._proofs[layer]())
            except (OSError, _DoesNotHold) as exc:
                self._say(layer, State.MISSING, f"applied, but does not hold: {exc}")

    def _say(self, layer: Layer, state: State, detail: str, *, applied: bool = True) -> None:
        os.write(self._report, f"{layer.name}\t{state.name}\t{applied:d}\t{detail}\n".encode())

    # --- the proofs ---

    def _clean_start(self) -> str:
        # Python sets this one itself where there is no locale (PEP 538).
        names = sorted(os.environ.keys() - {"LC_CTYPE"})
        _check(not names, f"the environment holds {', '.join(names[:4])}: let python= name the interpreter itself")
        fds = {int(name) for name in os.listdir("/proc/self/fd")}
        mine = {self._report, *self._lockdown.descriptors, *(s.fileno() for s in (self._tcp, self._unix) if s)}
        # The last one is the directory that is being listed.
        _check(len({fd for fd in fds if fd > 2} - mine) <= 1, "descriptors of the fork server are open")
        return "own program image, empty environment, no descriptor but its own"

    def _parent_death(self) -> str:
        _check(privileges.parent_death_signal() == signal.SIGKILL, "no signal is set")
        return "ends when the fork server does, and that when the service does"

    def _rlimits(self) -> str:
        for name in ("CORE", "FSIZE", "MEMLOCK", "NPROC"):
            _check(resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) == (0, 0), f"{name} is not 0")
        few = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        _check(few <= DESCRIPTORS, f"NOFILE is {few}")
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
        nobody = (privileges.NOBODY,) * 3
        _check(os.getresuid() == nobody and os.getresgid() == nobody, "the user or group is another")
        _check(os.getgroups() == [], "there are supplementary groups")
        return f"user and group {privileges.NOBODY}, no other groups"

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
        _refused(errno.EACCES, "opening /proc/self/mem", lambda: os.open("/proc/self/mem", os.O_RDWR))
        return f"no file can be opened (ABI {self._lockdown.abi})"

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
        if self._role == Role.COMPILER:
            count = filters.allowed(compiling=True)
            return f"{count} of some 360 calls are allowed; another fails, or ends the process"
        private, shared, executable = mmap.MAP_PRIVATE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_EXEC
        _refused(errno.EPERM, "mapping executable memory", lambda: _map(private, executable))
        _refused(errno.EPERM, "mapping shared memory", lambda: _map(shared, mmap.PROT_READ))
        count = filters.allowed(compiling=False)
        return f"{count} of some 360 calls, no new code, no shared memory; another call fails, or ends the process"

    def _refused_by_filter(self) -> None:
        _refused(errno.EPERM, "personality(2)", lambda: syscall("personality", _NR_PERSONALITY, _ASK))

    def _mdwe(self) -> str:
        # The filter refuses to map executable memory; this it does not, because loading needs it.
        _refused(errno.EACCES, "making memory executable", _make_executable)
        _check(privileges.executable_gain_refused(), "the kernel does not say so")
        return "no memory can become executable"


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


class _DoesNotHold(Exception):
    """A proof failed."""


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise _DoesNotHold(otherwise)


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
        raise _DoesNotHold(f"{what} succeeded")
