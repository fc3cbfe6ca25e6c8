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
from collections.abc import Callable
from typing import Final, NoReturn

from ..hardening import Layer, State
from ..platform import os_
from ..platform.lockdown import filters, privileges
from ..platform.lockdown.calls import failed, syscall
from ..protocol.control import Role, Seen
from .lockdown import Lockdown, reason

_mprotect: Final = ctypes.PyDLL(None, use_errno=True)["mprotect"]
_mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_NR_PERSONALITY: Final = 135
_ASK: Final = 0xFFFFFFFF
_DISCARD_PORT: Final = 9
_LANDLOCK: Final = (Layer.LANDLOCK_FILES, Layer.LANDLOCK_TCP, Layer.LANDLOCK_SCOPE)
#: Layers that are applied by `lock`, which only workers do.
_AFTER_LOADING: Final = (Layer.MDWE,)


def survey(lockdown: Lockdown) -> tuple[Seen, ...]:
    """Send a child of each kind through `lockdown`, and settle its plan. In the fork server, single-threaded."""
    seen = {role: _one(lockdown, role) for role in (Role.WORKER, Role.COMPILER)}
    missing = {
        layer: detail for rows in seen.values() for layer, (state, detail) in rows.items() if state is State.MISSING
    }
    lockdown.settle(missing)
    return tuple(Seen(role, layer, *rows[layer]) for role, rows in seen.items() for layer in Layer)


def _one(lockdown: Lockdown, role: int) -> dict[Layer, tuple[State, str]]:
    # Somebody outside the child's domain, for it to try to reach.
    outside = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    outside.bind("")  # the kernel picks an abstract name
    outside.listen()
    r, w = os_.pipe()
    pid = os.fork()
    if pid == 0:
        _Child(lockdown, role, w, outside.getsockname()).run()
    os.close(w)
    with open(r, "rb") as pipe:
        lines = pipe.read().decode().splitlines()
    outside.close()
    # Whether the supervisor, which has our rights, will be able to raise it.
    try:
        os_.limit_cpu(pid, None)
    except OSError:
        lockdown.limits_cpu = False
    _, status = os.waitpid(pid, 0)
    rows: dict[Layer, tuple[State, str]] = {}
    for line in lines:
        name, state, detail = line.split("\t", 2)
        rows[Layer[name]] = State[state], detail
    for layer in Layer:
        without = lockdown.without(layer)
        if without is not None:
            rows[layer] = without
        elif layer in _AFTER_LOADING and role == Role.COMPILER:
            rows[layer] = State.OFF, "a compiler makes machine code"
        elif layer not in rows:
            rows[layer] = State.MISSING, f"the survey ended before it (wait status {status})"
    return rows


class _Child:
    """In the fork."""

    def __init__(self, lockdown: Lockdown, role: int, report: int, outside: bytes) -> None:
        self._lockdown = lockdown
        self._role = role
        self._report = report
        self._outside = outside
        self._tcp: socket.socket | None = None
        self._unix: socket.socket | None = None
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
        try:
            # As in every child: nothing of the fork server's stays open.
            os_.close_all_but({self._report, *self._lockdown.descriptors})
            self._tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self._unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            # What is inherited, while /proc can still be read.
            for layer in (Layer.CLEAN_START, Layer.OOM_SCORE, Layer.NAMESPACES, Layer.NO_NEW_PRIVS):
                self._prove(layer)
            for layer, step in self._lockdown.steps(self._role):
                if layer is Layer.CLEAN_START:
                    step()
                elif self._lockdown.without(layer) is None:
                    self._take(layer, step)
            if self._role == Role.WORKER:
                if self._lockdown.without(Layer.MDWE) is None:
                    self._take(Layer.MDWE, privileges.refuse_executable_gain)
                if self._lockdown.without(Layer.SECCOMP) is None:
                    self._take(Layer.SECCOMP, self._lockdown.lock_filter, self._locked)
        finally:
            os._exit(0)

    def _take(self, layer: Layer, step: Callable[[], None], proof: Callable[[], str] | None = None) -> None:
        try:
            step()
        except OSError as exc:
            for part in _LANDLOCK if layer is Layer.LANDLOCK_FILES else (layer,):
                self._say(part, State.MISSING, reason(part, exc))
            return
        for part in _LANDLOCK if layer is Layer.LANDLOCK_FILES else (layer,):
            self._prove(part, proof)

    def _prove(self, layer: Layer, proof: Callable[[], str] | None = None) -> None:
        if self._lockdown.without(layer) is None:
            try:
                self._say(layer, State.ACTIVE, (proof or self._proofs[layer])())
            except (OSError, _DoesNotHold) as exc:
                self._say(layer, State.MISSING, f"does not hold: {exc}")

    def _say(self, layer: Layer, state: State, detail: str) -> None:
        os.write(self._report, f"{layer.name}\t{state.name}\t{detail}\n".encode())

    # --- the proofs ---

    def _clean_start(self) -> str:
        # Python sets this one itself where there is no locale (PEP 538).
        _check(not os.environ.keys() - {"LC_CTYPE"}, "the environment is not empty")
        fds = {int(name) for name in os.listdir("/proc/self/fd")}
        mine = {self._report, *self._lockdown.descriptors, *(s.fileno() for s in (self._tcp, self._unix) if s)}
        # The last one is the directory that is being listed.
        _check(len({fd for fd in fds if fd > 2} - mine) <= 1, "descriptors of the fork server are open")
        return "own program image, empty environment, no descriptor but its own"

    def _parent_death(self) -> str:
        _check(privileges.parent_death_signal() == signal.SIGKILL, "no signal is set")
        return "ends when the fork server does, and that when the service does"

    def _rlimits(self) -> str:
        for name in ("CORE", "FSIZE", "MEMLOCK"):
            _check(resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) == (0, 0), f"{name} is not 0")
        return "CORE, FSIZE, MEMLOCK and NPROC 0; few descriptors; CPU"

    def _oom_score(self) -> str:
        with open("/proc/self/oom_score_adj", "rb", buffering=0) as score:
            value = int(score.read())
        _check(value == 1000, f"it is {value}")
        return "the kernel out of memory ends a worker first"

    def _namespaces(self) -> str:
        _check(os.stat("/proc/self/ns/net").st_ino != self._lockdown.network, "the network namespace is the service's")
        return "network, IPC, UTS and mounts of their own"

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
        assert self._tcp is not None
        tcp = self._tcp
        _refused(errno.EACCES, "connecting by TCP", lambda: tcp.connect(("127.0.0.1", _DISCARD_PORT)))
        return "no TCP port can be bound or connected to"

    def _landlock_scope(self) -> str:
        assert self._unix is not None
        unix = self._unix
        _refused(errno.EPERM, "connecting to an abstract socket", lambda: unix.connect(self._outside))
        return "no abstract socket, no signal to anybody outside"

    def _seccomp(self) -> str:
        self._refused_by_filter()
        return f"{filters.allowed(compiling=True)} of some 360 calls are allowed; another fails, or ends the process"

    def _locked(self) -> str:
        self._refused_by_filter()
        private, shared, executable = mmap.MAP_PRIVATE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_EXEC
        _refused(errno.EPERM, "mapping executable memory", lambda: _map(private, executable))
        _refused(errno.EPERM, "mapping shared memory", lambda: _map(shared, mmap.PROT_READ))
        count = filters.allowed(compiling=False)
        return (
            f"{count} of some 360 calls are allowed, no new code, no shared memory; another fails, or ends the process"
        )

    def _refused_by_filter(self) -> None:
        _refused(errno.EPERM, "personality(2)", lambda: syscall("personality", _NR_PERSONALITY, _ASK))

    def _mdwe(self) -> str:
        # The filter refuses to map executable memory; this it does not, because loading needs it.
        _refused(errno.EACCES, "making memory executable", _make_executable)
        _check(privileges.executable_gain_refused(), "the kernel does not say so")
        return "no memory can become executable"


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
