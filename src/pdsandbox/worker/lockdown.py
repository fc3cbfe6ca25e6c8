"""What a worker and a compiler give up before they meet anything hostile, in which order, and the proof that they did.

Made in the fork server: what a child would have to build (filters, the Landlock ruleset) is built there, and what is
inherited (oom score, namespaces, no-new-privileges) is done there once. In the child `enter` comes before it is handed
out, while nothing but our own code has run in it; `lock` comes between loading a module and its first instruction.

`worker.survey` makes the plan: a child goes through all of it as any worker will, looks after each step whether it
holds. What held is what every later child must apply: one that cannot, leaves. So nothing is ever weaker than the
report says.

Order: a change of user clears the parent-death signal, so that comes after it; Landlock and the filter need
no-new-privileges; threads that a worker needs start after all that is per thread and before the filter, which spreads
to them.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from typing import Final

from ..hardening import Layer, State
from ..platform import os_
from ..platform.lockdown import filters, landlock, privileges
from ..platform.lockdown.seccomp import ALLOW, Filter
from ..protocol.control import Role

# Standard streams, two pipes, a socket, the module and one to spare.
_DESCRIPTORS: Final = 16
_OOM_SCORE: Final = 1000
_BARE_LIMITS: Final = (
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_FSIZE, 0),
    (resource.RLIMIT_NOFILE, _DESCRIPTORS),
    (resource.RLIMIT_MEMLOCK, 0),
)

_REMEDIES: Final = {
    (Layer.LANDLOCK_FILES, errno.ENOSYS): "this kernel has no Landlock: needs Linux 5.13, CONFIG_SECURITY_LANDLOCK",
    (Layer.LANDLOCK_FILES, errno.EOPNOTSUPP): 'Landlock is not enabled: add "landlock" to the boot parameter lsm=',
    (Layer.SECCOMP, errno.ENOSYS): "no seccomp filters: needs CONFIG_SECCOMP_FILTER, and a container that allows them",
    (Layer.SECCOMP, errno.EINVAL): "no seccomp filters: needs CONFIG_SECCOMP_FILTER",
    (Layer.MDWE, errno.EINVAL): "this kernel cannot do it: needs Linux 6.3",
    (Layer.NAMESPACES, errno.EPERM): "namespaces are refused here: allow user namespaces, or run the service as root",
    (Layer.NAMESPACES, errno.ENOSPC): "no more namespaces: raise user.max_user_namespaces",
}


class Lockdown:
    """See the module's text.

    wanted      the layers that are asked for
    cpu_s       by role: seconds of CPU time until somebody raises it, None for no limit
    limits_cpu  whether somebody can: the survey may find that not
    """

    def __init__(self, wanted: frozenset[Layer], cpu_s: dict[int, int | None]) -> None:
        self._wanted = wanted
        self._cpu_s = cpu_s
        self.limits_cpu = not os_.cpu_is_limited()
        self._plan = wanted
        self._parent = os.getpid()
        self._not: dict[Layer, tuple[State, str]] = {}  # why a layer is not in the plan
        self._ruleset = -1
        self._filters: dict[int, Filter] = {}
        self._locked: Filter | None = None
        #: The network namespace that the fork server was born in.
        self.network = os.stat("/proc/self/ns/net").st_ino
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
                self._drop(layer, State.OFF, "not asked for")
        self._try(Layer.OOM_SCORE, self._raise_oom_score)
        self._try(Layer.NAMESPACES, privileges.unshare)
        self._try(Layer.RLIMITS, _dump_nothing)
        self._look_at_user()
        self._try(Layer.NO_NEW_PRIVS, privileges.refuse_new_privileges)
        self._prepare_landlock()
        self._try(Layer.SECCOMP, self._build_filters)

    def _drop(self, layer: Layer, state: State, why: str) -> None:
        self._plan -= {layer}
        self._not[layer] = state, why

    def _try(self, layer: Layer, act: Callable[[], None]) -> None:
        if layer in self._plan:
            try:
                act()
            except OSError as exc:
                self._drop(layer, State.MISSING, reason(layer, exc))

    def _raise_oom_score(self) -> None:
        # The fork server's, and by inheritance its children's. Among equals the kernel picks the largest.
        with open("/proc/self/oom_score_adj", "wb", buffering=0) as score:
            score.write(b"%d" % _OOM_SCORE)

    def _look_at_user(self) -> None:
        if Layer.UID not in self._plan or privileges.may_change_user():
            return
        uid = os.geteuid()
        if uid:
            why = f"the service is an ordinary user's (uid {uid}), and so is a worker"
            self._drop(Layer.UID, State.NOT_NEEDED, why)
        else:
            why = "root without SETUID, SETGID and KILL: grant them, or run the service as an ordinary user"
            self._drop(Layer.UID, State.MISSING, why)

    def _prepare_landlock(self) -> None:
        parts = (
            (Layer.LANDLOCK_FILES, 1, "5.13"),
            (Layer.LANDLOCK_TCP, landlock.TCP_ABI, "6.7"),
            (Layer.LANDLOCK_SCOPE, landlock.SCOPE_ABI, "6.12"),
        )
        if Layer.LANDLOCK_FILES not in self._plan:
            return
        try:
            self.abi = landlock.abi()
            self._ruleset = os_.above_std(landlock.ruleset(self.abi))
        except OSError as exc:
            for layer, _, _ in parts:
                self._drop(layer, State.MISSING, reason(layer, exc))
            return
        for layer, least, linux in parts:
            if self.abi < least:
                self._drop(layer, State.MISSING, f"this kernel's Landlock has ABI {self.abi}: needs Linux {linux}")

    def _build_filters(self) -> None:
        _, machine = os_.system()
        if machine != "x86_64":
            raise OSError(errno.ENOTSUP, f"the filter is written for x86_64, and this is {machine}")
        self._filters = {Role.WORKER: Filter(filters.LOADING), Role.COMPILER: Filter(filters.COMPILING)}
        self._locked = Filter(filters.LOCKED, default=ALLOW)

    def settle(self, missing: dict[Layer, str]) -> None:
        """The survey's word: these do not hold here. The rest is what every child must apply."""
        for layer, why in missing.items():
            self._drop(layer, State.MISSING, why)

    def without(self, layer: Layer) -> tuple[State, str] | None:
        """Why a layer is not in the plan; None when it is."""
        return self._not.get(layer)

    # --- in a child ---

    def enter(self, role: int, start_threads: Callable[[], None] | None = None) -> None:
        """Everything but `lock`. OSError when a layer of the plan fails: then the process must leave.

        `start_threads`: starts those that the process will need; none can be started afterwards.
        """
        for layer, step in self.steps(role, start_threads):
            if layer in self._plan:
                step()

    def steps(
        self, role: int, start_threads: Callable[[], None] | None = None
    ) -> tuple[tuple[Layer, Callable[[], None]], ...]:
        """What `enter` does, in its order."""

        def limit() -> None:
            for kind, most in _BARE_LIMITS:
                privileges.set_limit(kind, most)
            cpu_s = self._cpu_s[role]
            if self.limits_cpu and cpu_s is not None:
                resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, resource.RLIM_INFINITY))

        def start() -> None:
            if start_threads is not None:
                start_threads()
            if Layer.RLIMITS in self._plan:
                privileges.set_limit(resource.RLIMIT_NPROC, 0)

        return (
            (Layer.RLIMITS, limit),
            (Layer.UID, privileges.become_nobody),
            (Layer.CAPABILITIES, _keep_no_capability),
            (Layer.UNDUMPABLE, privileges.be_undumpable),
            (Layer.PARENT_DEATH, self._die_with_parent),
            (Layer.LANDLOCK_FILES, self._restrict),
            (Layer.CLEAN_START, start),
            (Layer.SECCOMP, self._filters[role].install_here if Layer.SECCOMP in self._plan else start),
        )

    def _die_with_parent(self) -> None:
        os_.die_with_parent(self._parent)

    def _restrict(self) -> None:
        landlock.restrict(self._ruleset)

    def lock(self) -> None:
        """A worker whose module is loaded: no new executable memory, and none of the calls that loading needed."""
        if Layer.MDWE in self._plan:
            privileges.refuse_executable_gain()
        self.lock_filter()

    def lock_filter(self) -> None:
        """The last step of `lock`."""
        if Layer.SECCOMP in self._plan and self._locked is not None:
            self._locked.install_here()


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
    with open("/proc/self/coredump_filter", "wb", buffering=0) as filter_:
        filter_.write(b"0")


def reason(layer: Layer, exc: OSError) -> str:
    """Why a layer is missing, and what to do about it."""
    group = Layer.LANDLOCK_FILES if layer in (Layer.LANDLOCK_TCP, Layer.LANDLOCK_SCOPE) else layer
    return _REMEDIES.get((group, exc.errno or 0)) or str(exc)
