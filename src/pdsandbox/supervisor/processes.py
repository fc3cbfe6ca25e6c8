"""The processes of one supervisor: its fork server, housekeeper and spares; whose they are, and when they end.

`_lock` guards all of it, and is held for bookkeeping and while a fork server is started, never while waiting for a
worker. They belong to the process that first uses them; nothing is started before that, so a supervisor that was made
before a server forked its processes works in each of them. The housekeeper's thread ends them; it must not keep a
supervisor that was dropped, so it knows this object only weakly.
"""

from __future__ import annotations

import collections
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final

from .. import __version__, generation
from ..errors import Cause, InstantiationError, WasmError, WorkerCrashed
from ..hardening import Hardening, HardeningReport, LayerReport
from ..limits import EngineConfig, Limits
from ..locate import ENGINE_REVISION, wasmtime_library
from ..platform import os_
from ..protocol import control as c
from . import cputime, launch, monitor
from .channel import Channel
from .configuring import config
from .forkclient import ForkServer, interpreter
from .handle import Handle
from .housekeeper import Housekeeper
from .journal import Journal
from .sharing import Worker

# A spare that was handed out is replaced a little later: a fork at once would compete with the first call for a core.
RESPAWN_S: Final = 0.02
# Whoever has the lock may be waiting for a fork server that is stopped, and deadlines pass meanwhile.
PATIENCE_S: Final = 0.02


class NeverRan(Exception):
    """The fork server died before the guest could have been seen doing anything, or a spare died before it read LOAD.

    Trying again runs nothing twice. `error` is what to raise when that does not help.
    """

    def __init__(self, error: WasmError) -> None:
        self.error = error
        if isinstance(error, WorkerCrashed):
            what = error.message.removeprefix("worker crashed: ")
            self.error = InstantiationError(f"a worker could not be started: {what}", cause=Cause.HOST)


class Processes:
    """See the module's text."""

    def __init__(
        self,
        *,
        limits: Limits,
        engine: EngineConfig,
        instances: int,
        spares: int,
        max_workers: int | None,
        python: str | None,
        hardening: Hardening,
        cgroup: str | None,
        journal: Journal,
    ) -> None:
        self._limits = limits
        self._engine = engine
        self._instances = instances  # in one worker, at most
        self._spare_count = spares
        self._max_workers = max_workers
        self._python = python
        self._hardening = hardening
        self._cgroup = cgroup
        self._journal = journal
        self._lock = threading.RLock()
        self._generation: int | None = None
        self._config: c.Config | None = None
        self._housekeeper: Housekeeper | None = None
        self._finalizer: weakref.finalize[Any, Any] | None = None
        self.fork_server: ForkServer | None = None
        self.spares: collections.deque[tuple[Handle, Channel]] = collections.deque()
        self.closed = False
        #: What compiled code depends on beside its source; known once started.
        self.fingerprint = b""
        #: Ours and wasmtime's, for people; known once started.
        self.versions = ""

    @property
    def ours(self) -> bool:
        """Whether this process may use and end them: they are nobody's yet, or were started here."""
        return self._generation is None or self._generation == generation.now

    def own(self) -> None:
        """This process's supervisor from now on; InstantiationError when it is another's, or closed."""
        if self._generation is None:
            self._generation = generation.now
        self.check_ours()
        if self.closed:
            raise InstantiationError("the supervisor is closed", cause=Cause.CLOSED)
        self.started()

    def check_ours(self) -> None:
        """InstantiationError when they are another process's."""
        if not self.ours:
            text = "this supervisor belongs to the process that used it first: make another one after a fork"
            raise InstantiationError(text, cause=Cause.USAGE)

    def started(self) -> tuple[ForkServer, Housekeeper]:
        """The fork server, started if there is none or the last one died."""
        with self._lock:
            if self.closed:
                raise InstantiationError("the supervisor is closed", cause=Cause.CLOSED)
            server = self.fork_server
            if server is not None and self._housekeeper is not None and not server.lost:
                return server, self._housekeeper
            if self._housekeeper is not None and self._housekeeper.failed:
                self._housekeeper = None
            missing = os_.missing()
            if missing is not None:
                raise InstantiationError(missing, cause=Cause.HOST)
            if self._config is None:
                self._config = self._make_config()
            try:
                housekeeper = self._housekeeper or self._start_housekeeper()
                server = ForkServer(interpreter(self._python), self._config, housekeeper.handles, self._journal)
            except (OSError, RuntimeError) as exc:  # RuntimeError: no more threads
                text = f"a worker could not be started: no fork server: {exc}"
                raise InstantiationError(text, cause=Cause.HOST) from exc
            self.fork_server = server
            housekeeper.adopt(server)
            return server, housekeeper

    def _start_housekeeper(self) -> Housekeeper:
        housekeeper = Housekeeper(_weakly(weakref.ref(self)))
        housekeeper.start()
        self._housekeeper = housekeeper
        self._finalizer = weakref.finalize(self, housekeeper.later, housekeeper.stop_soon)
        self._finalizer.atexit = False
        return housekeeper

    def _make_config(self) -> c.Config:
        try:
            library, version = wasmtime_library()
        except (ImportError, OSError) as exc:
            raise InstantiationError(f"a worker could not be started: {exc}", cause=Cause.HOST) from exc
        limits, engine = self._limits, self._engine
        self.versions = f"pdsandbox {__version__}, wasmtime {version}"
        self.fingerprint = _fingerprint(self.versions, engine, limits)
        # A report has to be complete.
        brief = launch.is_ahead() and not self._hardening.required
        return config(
            limits, engine, self._hardening, library, cgroup=self._cgroup or "", instances=self._instances, brief=brief
        )

    def tick(self) -> None:
        """The housekeeper's regular duty: spares, and the memory and standard error of idle workers."""
        if self.closed:
            return
        if self._lock.acquire(timeout=PATIENCE_S):
            try:
                self._keep_spares()
            finally:
                self._lock.release()
        housekeeper = self._housekeeper
        if housekeeper is not None:
            for handle in list(housekeeper.handles):
                handle.look_when_idle(self._limits.rss_bytes if handle.role == c.Role.WORKER else None)

    def _keep_spares(self) -> None:
        server = self.fork_server
        if self.closed or server is None or server.lost:
            return
        for pair in [pair for pair in self.spares if not pair[0].alive]:
            self.spares.remove(pair)
            pair[0].release_when_idle()
        try:
            while len(self.spares) < self._spare_count:
                handle = server.spawn(c.Role.WORKER, self, wait=False)
                self.spares.append((handle, Channel(handle)))
        except (OSError, InstantiationError):
            pass  # no spare now; who needs a worker asks, and hears why not

    def hardening_report(self) -> HardeningReport:
        """What the fork server saw; waits until it is warm. InstantiationError, HOST, when it cannot be started."""
        server, _ = self.started()
        seen = server.wait_warm(cputime.START_TIMEOUT_S)
        rows = {
            role: tuple(LayerReport(item.layer, item.state, item.detail) for item in seen if item.role == role)
            for role in (c.Role.WORKER, c.Role.COMPILER)
        }
        system = ", ".join(os_.system())
        return HardeningReport(self._hardening, system, rows[c.Role.WORKER], rows[c.Role.COMPILER])

    def take_worker(
        self, server: ForkServer, artifact: int, owner: object, *, late: bool, unpickler: str
    ) -> tuple[Handle, Channel, bool]:
        """A worker, and whether it is a spare; else one was asked for now, and has the artifact.

        `late`: one that is not locked down yet, because it is to take in functions of the user's, or directories.
        `unpickler`: see `control.Spawn`.
        """
        with self._lock:
            most = self._max_workers
            if most is not None:
                spares = {id(handle) for handle, _ in self.spares}
                used = sum(h.alive and h.role == c.Role.WORKER and id(h) not in spares for h in server.handles())
                if used >= most:
                    text = f"max_workers of {most} reached: close an instance first"
                    raise InstantiationError(text, cause=Cause.USAGE, limit=most)
            while self.spares and not late:
                handle, channel = self.spares.popleft()
                if handle.running():
                    handle.owner = weakref.ref(owner)
                    return handle, channel, True
                # How it died may have yet to be reported: then the housekeeper lets go of it, and it is told.
                if handle.ended:
                    handle.release_when_idle()
            try:
                handle = server.spawn(c.Role.WORKER, owner, artifact=artifact, late=late, unpickler=unpickler)
            except OSError as exc:
                raise monitor.host_failure(exc) from exc
            except InstantiationError as exc:
                if server.lost:
                    raise NeverRan(exc) from exc
                raise
        return handle, Channel(handle), False

    def census(self, *, memory: bool) -> dict[str, int | None]:
        """How many of each kind there are now, by the names of `HostStats`. `memory`: also look at theirs."""
        with self._lock:
            server = None if self.closed else self.fork_server
            spares = {id(handle) for handle, _ in self.spares}
        alive = [] if server is None else [handle for handle in server.handles() if handle.alive]
        workers = [handle for handle in alive if handle.role == c.Role.WORKER and id(handle) not in spares]
        owners = [handle.owner() for handle in workers]
        return {
            "workers": len(workers),
            "spares": sum(id(handle) in spares for handle in alive),
            "compilers": sum(handle.role == c.Role.COMPILER for handle in alive),
            "instances": sum(owner.instances for owner in owners if isinstance(owner, Worker)),
            "busy": sum(handle.busy is not None for handle in workers),
            "resident_bytes": sum(handle.read_resident() for handle in alive) if memory else None,
            "fork_server": None if server is None or server.lost else server.pid,
        }

    def respawn(self) -> None:
        """A spare may have been handed out: replace it soon."""
        if self._spare_count and self._housekeeper is not None:
            self._housekeeper.tick_in(RESPAWN_S)

    def close(self) -> None:
        """End them all, and wait until they have ended. Twice is allowed."""
        with self._lock:
            self.closed = True
            housekeeper = self._housekeeper
            spares, self.spares = list(self.spares), collections.deque()
        for handle, _ in spares:
            handle.condemn(monitor.closed())
            handle.release_when_idle()
        if housekeeper is not None:
            housekeeper.stop()


def _fingerprint(versions: str, engine: EngineConfig, limits: Limits) -> bytes:
    """Equal for supervisors that may share compiled code.

    Of what the engine is configured with (`runtime.engine.Engine`), three things may be chosen; the rest is fixed for a
    revision. The limits on compiling decide whether there is code, not which.
    """
    chosen = f"{engine.fuel} {engine.interruptible} {limits.stack_bytes}"
    return f"{versions}, revision {ENGINE_REVISION}; {chosen}; ".encode() + os_.cpu_features()


def _weakly(processes: weakref.ref[Processes]) -> Callable[[], None]:
    """The housekeeper's duty without a reference that would keep a dropped supervisor's."""

    def tick() -> None:
        alive = processes()
        if alive is not None:
            alive.tick()

    return tick
