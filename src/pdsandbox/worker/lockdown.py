"""What a worker and a compiler give up before they meet anything hostile, in which order, and the proof that they did.

Made in the fork server: what a child would have to build (filters, the Landlock ruleset) is built there, and what is
inherited (oom score, namespaces, no-new-privileges) is done there once. In the child `enter` comes before it is handed
out, while nothing but our own code has run in it; `lock` comes between loading a module and its first instruction.

`worker.survey` makes the plan: a child of each kind goes through all of it as any worker will, and looks after each
step whether it holds. What could be applied there is what every later child of that kind must apply: one that cannot,
leaves. What was applied and yet could not be seen to hold is reported as missing, and applied all the same. So nothing
is ever weaker than the report says.

Order: a change of user clears the parent-death signal, so that comes after it; Landlock and the filter need
no-new-privileges; threads that a worker needs start after all that is per thread and before the filter, which spreads
to them.

A worker that was granted directories (`grant`) takes the same steps with other values: rules for these directories, a
filter with calls on files, their owner in place of `nobody`, room for descriptors, and for data if one is writable.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Callable, Sequence
from typing import Final

from ..hardening import Layer, State
from ..platform import os_
from ..platform.files import opens_beneath
from ..platform.lockdown import filters, landlock, privileges
from ..platform.lockdown.seccomp import ALLOW, Filter
from ..protocol.control import Role
from .granted import Granted
from .reasons import LANDLOCK, ended_by, parts, reason

# Standard streams, two pipes, a socket, the module and one to spare.
DESCRIPTORS: Final = 16
_OOM_SCORE: Final = 1000
_BARE_LIMITS: Final = {
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_FSIZE: 0,
    resource.RLIMIT_NOFILE: DESCRIPTORS,
    resource.RLIMIT_MEMLOCK: 0,
}

_ROLES: Final = (Role.WORKER, Role.COMPILER)
#: What `privileges.unshare` makes new: names in /proc/PID/ns.
NAMESPACES: Final = ("net", "ipc", "uts", "mnt")
#: What keeps native code from what its user has, see `Lockdown.holds`.
_HOLD: Final = (Layer.CAPABILITIES, Layer.NO_NEW_PRIVS, Layer.LANDLOCK_FILES, Layer.SECCOMP)


class Lockdown:
    """See the module's text.

    wanted      the layers that are asked for
    cpu_s       by role: seconds of CPU time until somebody raises it, None for no limit
    limits_cpu  whether somebody can: the survey may find that not
    """

    def __init__(self, wanted: frozenset[Layer], cpu_s: dict[int, int | None]) -> None:
        self._wanted = wanted
        self._cpu_s = cpu_s
        self._steps: dict[int, list[Callable[[], None]]] = {}
        self._start_threads: Callable[[], None] | None = None
        self.limits_cpu = not os_.cpu_is_limited()
        self._parent = os.getpid()
        self._not: dict[tuple[int, Layer], tuple[State, str]] = {}  # the plan: what is not to be applied, and why
        self._ruleset = -1
        self._filters: dict[int, Filter] = {}
        self._locked: Filter | None = None
        self._files_filters: dict[bool, Filter] = {}  # with directories, by whether one is writable
        self._locked_files: Filter | None = None
        self._granted: Granted | None = None
        #: Whether files are opened by openat2(2), beneath a directory.
        self.openat2 = False
        #: The namespaces that the fork server was born in.
        self.namespaces = {name: os.stat(f"/proc/self/ns/{name}").st_ino for name in NAMESPACES}
        self.abi = 0  # Landlock's

    @property
    def descriptors(self) -> set[int]:
        """What a child must keep open until it has entered."""
        return {self._ruleset} - {-1}

    # --- in the fork server ---

    def prepare(self) -> None:
        """What children inherit, and what they will use. Whatever this machine refuses leaves the plan."""
        for layer in Layer:
            if layer not in self._wanted:
                self.drop(layer, State.OFF, "not asked for")
        if Layer.MDWE in self._wanted:
            self.drop(Layer.MDWE, State.OFF, "a compiler makes machine code", Role.COMPILER)
        while (deadly := self._try_in_child()) is not None:
            for part in parts(deadly[0]):
                self.drop(part, State.MISSING, ended_by(deadly[1]))
        self._prepare(lambda _layer: None)

    def _try_in_child(self) -> tuple[Layer, int] | None:
        """A filter that the service runs under may end who makes the wrong call: the layer, and the wait status."""
        r, w = os_.pipe()

        def announce(layer: Layer) -> None:
            os.write(w, f"{layer.name}\n".encode())

        pid = os.fork()
        if pid == 0:
            try:
                self._prepare(announce)
            finally:
                os._exit(0)
        os.close(w)
        with open(r, "rb") as pipe:
            begun = pipe.read().decode().split()
        _, status = os.waitpid(pid, 0)
        return (Layer[begun[-1]], status) if begun and os.WIFSIGNALED(status) else None

    def _prepare(self, announce: Callable[[Layer], None]) -> None:
        """`announce` hears of each layer before it is tried."""
        acts: tuple[tuple[Layer, Callable[[], None]], ...] = (
            (Layer.OOM_SCORE, self._raise_oom_score),
            # Before the namespaces: in a user namespace of one's own everybody looks like root.
            (Layer.UID, self._look_at_user),
            (Layer.NAMESPACES, self._unshare),
            (Layer.RLIMITS, _dump_nothing),
            (Layer.NO_NEW_PRIVS, privileges.refuse_new_privileges),
            (Layer.LANDLOCK_FILES, self._prepare_landlock),
            (Layer.SECCOMP, self._build_filters),
        )
        for layer, act in acts:
            if self.applies(Role.WORKER, layer):
                announce(layer)
                try:
                    act()
                except OSError as exc:
                    for part in parts(layer):
                        self.drop(part, State.MISSING, reason(part, exc))

    def drop(self, layer: Layer, state: State, why: str, role: int | None = None) -> None:
        """`layer` leaves the plan, for one role or both. The first reason stays."""
        for each in _ROLES if role is None else (role,):
            self._not.setdefault((each, layer), (state, why))

    def without(self, role: int, layer: Layer) -> tuple[State, str] | None:
        """Why a layer is not in the plan; None when it is."""
        return self._not.get((role, layer))

    def applies(self, role: int, layer: Layer) -> bool:
        """Whether it is in the plan."""
        return (role, layer) not in self._not

    def cpu_ceiling(self, role: int) -> int | None:
        """Seconds of CPU time that a child begins with; None for no limit."""
        return self._cpu_s[role] if self.limits_cpu else None

    def _raise_oom_score(self) -> None:
        # The fork server's, and by inheritance its children's. Among equals the kernel picks the largest.
        with open("/proc/self/oom_score_adj", "wb", buffering=0) as score:
            score.write(b"%d" % _OOM_SCORE)

    def _look_at_user(self) -> None:
        if privileges.may_change_user():
            return
        uid = os.geteuid()
        if uid:
            why = f"the service runs as an ordinary user (uid {uid}): only root can give workers a user of their own"
            self.drop(Layer.UID, State.NOT_NEEDED, why)
        else:
            why = "root without SETUID, SETGID and KILL: grant them, or run the service as an ordinary user"
            self.drop(Layer.UID, State.MISSING, why)

    def _unshare(self) -> None:
        if privileges.needs_user_namespace() and self.applies(Role.WORKER, Layer.UID):
            # There would be no other user in it.
            why = "needs a user namespace, in which a worker could not change its user: grant SYS_ADMIN"
            self.drop(Layer.NAMESPACES, State.MISSING, why)
        else:
            privileges.unshare()

    def _prepare_landlock(self) -> None:
        self.abi = landlock.abi()
        self._ruleset = os_.above_std(landlock.ruleset(self.abi))
        for layer, least, linux in LANDLOCK:
            if self.abi < least:
                self.drop(layer, State.MISSING, f"this kernel's Landlock has ABI {self.abi}: needs Linux {linux}")

    def _build_filters(self) -> None:
        _, machine = os_.system()
        if machine != "x86_64":
            raise OSError(errno.ENOTSUP, f"the filter is written for x86_64, and this is {machine}")
        self._filters = {Role.WORKER: Filter(filters.LOADING), Role.COMPILER: Filter(filters.COMPILING)}
        self._locked = Filter(filters.LOCKED, default=ALLOW)
        self.openat2 = self._opens_beneath()
        self._files_filters = {
            writable: Filter(filters.loading_files(writable=writable, openat2=self.openat2))
            for writable in (False, True)
        }
        self._locked_files = Filter(filters.locked_files(openat2=self.openat2), default=ALLOW)

    def _opens_beneath(self) -> bool:
        """Whether there is openat2(2), and Landlock looks at all that can be done by it, truncation included: else the
        filter has to, which sees the flags of openat(2) only."""
        if not self.applies(Role.WORKER, Layer.LANDLOCK_FILES) or self.abi < landlock.TRUNCATE_ABI:
            return False
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return opens_beneath(root)
        finally:
            os.close(root)

    # --- in a child ---

    def grant(self, dirs: Sequence[tuple[int, bool]]) -> None:
        """To be called before `enter`: the directories, open, that this worker's guest may read, and those that it may
        also write. OSError for what is none. No directories: no effect."""
        if dirs:
            self._granted = Granted(dirs)
            if self._granted.writable:
                # A limit on the size of files that the service itself has: an error to the guest, not its end.
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    @property
    def holds(self) -> bool:
        """Whether native code in a worker is kept from what its user may do by more than that user's rights: then it
        may be another user than `nobody`, root even. Landlock alone would leave sockets and other processes."""
        return all(map(self._holds, _HOLD))

    def _holds(self, layer: Layer) -> bool:
        return self.applies(Role.WORKER, layer)

    def enter(self, role: int, start_threads: Callable[[], None] | None = None) -> None:
        """Everything but `lock`. OSError when a layer of the plan fails: then the process must leave.

        `start_threads`: starts those that the process will need; none can be started afterwards.
        """
        self._start_threads = start_threads
        for step in self._steps.get(role) or self._plan(role):
            step()

    def _plan(self, role: int) -> list[Callable[[], None]]:
        """The steps that are in the plan. The parent-death signal is set already, and lost by a change of user only."""
        skip = None if self.applies(role, Layer.UID) else Layer.PARENT_DEATH
        return [
            step
            for layer, step in self.steps(role)
            if layer is None or (layer is not skip and self.applies(role, layer))
        ]

    def finish(self) -> None:
        """In the fork server, once the plan is settled: made here, so that no child has to."""
        self._steps = {role: self._plan(role) for role in (Role.WORKER, Role.COMPILER)}

    def steps(self, role: int) -> tuple[tuple[Layer | None, Callable[[], None]], ...]:
        """What `enter` does, in its order. None: no layer, and always to be done."""

        def limit() -> None:
            for kind, most in self.limits.items():
                privileges.set_limit(kind, most)
            cpu_s = self.cpu_ceiling(role)
            if cpu_s is not None:
                resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, resource.RLIM_INFINITY))

        def start() -> None:
            # After all that may change what this process may do with files.
            if self._granted is not None:
                self._refuse_root()
                self._granted.check_usable()
            if self._start_threads is not None:
                self._start_threads()
            if self.applies(role, Layer.RLIMITS):
                privileges.set_limit(resource.RLIMIT_NPROC, 0)

        def filter_calls() -> None:
            if self._granted is None:
                self._filters[role].install_here()
            else:
                self._files_filters[self._granted.writable].install_here()

        return (
            (Layer.RLIMITS, limit),
            (Layer.UID, self._change_user),
            (Layer.CAPABILITIES, _keep_no_capability),
            (Layer.UNDUMPABLE, privileges.be_undumpable),
            (Layer.PARENT_DEATH, self._die_with_parent),
            (Layer.LANDLOCK_FILES, self._restrict),
            (None, start),
            (Layer.SECCOMP, filter_calls),
        )

    def _die_with_parent(self) -> None:
        os_.die_with_parent(self._parent)

    @property
    def limits(self) -> dict[int, int]:
        """The resource limits of this child."""
        return _BARE_LIMITS if self._granted is None else self._granted.limits(_BARE_LIMITS)

    @property
    def identity(self) -> tuple[int, int]:
        """The user and group of this child, where it changes them."""
        nobody = privileges.NOBODY, privileges.NOBODY
        return nobody if self._granted is None else self._granted.identity(held=self.holds)

    def _change_user(self) -> None:
        privileges.become(*self.identity)

    def _refuse_root(self) -> None:
        """Where workers cannot change their user, though that is asked for, one that is root may open files only if it
        is kept from what is root's."""
        if not os.geteuid() and Layer.UID in self._wanted and not self.holds:
            why = "it would be root, and with directories only Landlock and a filter keep it from root's other files"
            raise OSError(errno.EPERM, f"{why}: one of them is missing; grant SETUID, SETGID and KILL, or enable both")

    def _restrict(self) -> None:
        ruleset = self._ruleset
        if self._granted is not None:
            ruleset = landlock.ruleset(self.abi)
            for fd, writable in self._granted.dirs:
                landlock.allow_beneath(ruleset, self.abi, fd, writable=writable)
            os.close(self._ruleset)
        landlock.restrict(ruleset)

    def lock(self) -> None:
        """A worker whose module is loaded: no new executable memory, and none of the calls that loading needed."""
        if self.applies(Role.WORKER, Layer.MDWE):
            privileges.refuse_executable_gain()
        if self.applies(Role.WORKER, Layer.SECCOMP):
            self.lock_filter()

    def lock_filter(self) -> None:
        """The last step of `lock`."""
        last = self._locked if self._granted is None else self._locked_files
        assert last is not None
        last.install_here()


def enter(lockdown: Lockdown, role: int, start_threads: Callable[[], None] | None = None) -> bool:
    """`lockdown.enter`; when that failed, False, and its reason is the last line on standard error. Then the process
    leaves with status `NOT_LOCKED_DOWN`."""
    try:
        lockdown.enter(role, start_threads)
    except OSError as exc:
        os.write(2, f"{exc}\n".encode())
        return False
    return True


def _keep_no_capability() -> None:
    privileges.keep_capabilities(0)


def _dump_nothing() -> None:
    # RLIMIT_CORE does not bind a core_pattern that is a pipe: then it is this that keeps a guest's memory out of it.
    # Refused or not, the limits hold: the survey looks at it.
    try:
        with open("/proc/self/coredump_filter", "wb", buffering=0) as mask:
            mask.write(b"0")
    except OSError:
        pass
