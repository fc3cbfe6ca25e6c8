"""`Supervisor`: the host whose guests run in worker processes. Compiles, hands out workers, and closes everything.

Threads: all of it may be called from any thread. `_lock` guards the fork server, the spares and the list of what to
close; it is held for bookkeeping and while a fork server is started, never while waiting for a worker. The supervisor
belongs to the process that first uses it; nothing is started before that, so one that was made before a server
forked its processes works in each of them.
"""

from __future__ import annotations

import collections
import hashlib
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Final

from .. import generation
from ..callbacks import Callback
from ..calls import FuelMeter
from ..errors import CallError, Cause, CompileError, InstantiationError, WasmError, WorkerCrashed
from ..imports import WasmImports
from ..interfaces import WasmHost, WasmModule
from ..limits import EngineConfig, Limits
from ..locate import wasmtime_library
from ..platform import os_
from ..protocol import control as c
from ..protocol import messages as m
from . import compiling, linking, monitor
from .cache import CompileCache
from .channel import Channel
from .conversation import Conversation, Spin
from .forkclient import ForkServer, interpreter
from .handle import Handle
from .housekeeper import Housekeeper
from .instance import Instance
from .module import Artifact, Compiled, Module
from .slots import CompilerSlots

MIB: Final = 1 << 20
# Above what a guest may use, for the engine's own structures and the interpreter: RLIMIT_DATA also charges memory
# that was reserved and never touched, so it must not be what stops a guest that keeps its limits.
_DATA_SLACK: Final = 64 * MIB
# A growing vector in the code generator reserves up to twice what it holds at once.
_COMPILER_SLACK: Final = 256 * MIB
# A spare that was handed out is replaced a little later: a fork at once would compete with the first call for a core.
RESPAWN_S: Final = 0.02
DEFAULT_CACHE_BYTES: Final = 256 * MIB


class Supervisor(WasmHost):
    """A host whose guests run in worker processes, one each.

    limits        what each guest may use (`Limits`)
    engine        how compiled code is metered (`EngineConfig`)
    isolation     "instance": one worker per instance
    spares        workers kept ready before they are asked for (default 1, at most 64)
    max_workers   instances at once; one more is an InstantiationError (default: none)
    max_compilers compilations at once; further ones wait (default: the number of usable cores)
    cache_bytes   bytes of compiled code kept in memory, least recently used out first (default 256 MiB; 100 modules)
    python        the Python to run workers with, where `sys.executable` is none (frozen or embedding programs)

    Raises ValueError for what makes no sense, and for what a later version will bring. Nothing is started before the
    first use.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        engine: EngineConfig | None = None,
        isolation: str = "instance",
        spares: int = 1,
        max_workers: int | None = None,
        max_compilers: int | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        hardening: object = None,
        python: str | os.PathLike[str] | None = None,
    ) -> None:
        self.limits = _instance_of("limits", limits, Limits)
        self.engine = _instance_of("engine", engine, EngineConfig)
        if isolation != "instance":
            known = "" if isolation == "module" else f"; {isolation!r} is unknown"
            raise ValueError(f'isolation must be "instance"; "module" is not available yet in this version{known}')
        if cache_dir is not None:
            raise ValueError("cache_dir: the disk cache is not available yet in this version")
        if hardening is not None:
            raise ValueError("hardening: lock-down profiles are not available yet in this version")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._spare_count = _count("spares", spares, 0, 64)
        self._max_workers = None if max_workers is None else _count("max_workers", max_workers, 1, 100_000)
        self._compilers = CompilerSlots(
            cores if max_compilers is None else _count("max_compilers", max_compilers, 1, 1024)
        )
        self._python = _path("python", python)
        self._cache = CompileCache(_count("cache_bytes", cache_bytes, 0, 1 << 44))
        self._spin = Spin(cores)
        self._lock = threading.RLock()
        self._closed = False
        self._generation: int | None = None
        self._fork_server: ForkServer | None = None
        self._housekeeper: Housekeeper | None = None
        self._config: c.Config | None = None
        self._spares: collections.deque[tuple[Handle, Channel]] = collections.deque()
        self._artifacts: weakref.WeakSet[Artifact] = weakref.WeakSet()
        self._fingerprint = b""
        self._finalizer: weakref.finalize[Any, Any] | None = None

    # --- compiling ---

    def compile(self, wasm: bytes | str) -> Module:
        """See `WasmHost.compile`. Runs in a compiler process; equal modules compile once."""
        source, text = compiling.source_of(wasm, self.limits)
        sha256 = hashlib.sha256(source)
        try:
            self._own()
        except InstantiationError as exc:
            raise _as_compile_error(exc) from exc
        key = hashlib.sha256(b"%d%b%b" % (text, sha256.digest(), self._fingerprint)).digest()
        compiled = self._cache.get(key, lambda: self._compile(source, text=text))
        return Module(self, compiled, sha256.hexdigest())

    def _compile(self, source: bytes, *, text: bool) -> Compiled:
        """In a compiler process; once more if the fork server died on the way, since compiling has no side effects."""
        try:
            compiled = self._compile_once(source, text=text)
        except _NeverRan:
            try:
                compiled = self._compile_once(source, text=text)
            except _NeverRan as exc:
                raise _as_compile_error(exc.error) from exc
        with self._lock:
            if self._closed:
                compiled.artifact.close()
                raise CompileError("the supervisor is closed", cause=Cause.CLOSED)
            self._artifacts.add(compiled.artifact)
        return compiled

    def _compile_once(self, source: bytes, *, text: bool) -> Compiled:
        server: ForkServer | None = None
        try:
            with self._compilers:
                server, housekeeper = self._started()
                handle = server.spawn(c.Role.COMPILER)
                leave = housekeeper.later
                return compiling.run(handle, source, text=text, limits=self.limits, leave=leave)
        except (CompileError, InstantiationError) as exc:
            if exc.cause is Cause.HOST and server is not None and server.lost:
                raise _NeverRan(exc) from exc
            if isinstance(exc, CompileError):
                raise
            raise _as_compile_error(exc) from exc
        except OSError as exc:
            raise CompileError(f"a compiler could not be started: {exc}", cause=Cause.HOST) from exc

    # --- instantiating ---

    def instantiate(self, module: WasmModule, imports: WasmImports | None = None, *, wasi: object = None) -> Instance:
        """See `WasmHost.instantiate`. Each instance gets a worker process of its own.

        Raises InstantiationError, cause HOST, when this machine refuses another process; USAGE beyond `max_workers`.
        """
        if wasi is not None:
            raise InstantiationError("WASI is not available yet in this version", cause=Cause.USAGE)
        if not isinstance(module, Module) or module.host is not self:
            raise InstantiationError("the module was compiled by another host", cause=Cause.USAGE)
        offered: object = WasmImports() if imports is None else imports
        if not isinstance(offered, WasmImports):
            text = f"imports must be WasmImports, not {type(offered).__name__}"
            raise InstantiationError(text, cause=Cause.USAGE)
        self._own()
        load, callbacks = linking.plan(module.compiled.imports, offered, self.limits)
        for _ in range(2):
            try:
                return self._instantiate(module, load, callbacks)
            except _NeverRan:
                pass
        try:
            return self._instantiate(module, load, callbacks)
        except _NeverRan as exc:
            raise exc.error from exc

    def _instantiate(self, module: Module, load: m.Load, callbacks: list[Callback]) -> Instance:
        server, housekeeper = self._started()
        limits = self.limits
        try:
            artifact = module.compiled.artifact.duplicate()
        except OSError as exc:
            raise monitor.host_failure(exc) from exc
        try:
            handle, channel, spare = self._take_worker(server, artifact)
        except BaseException:
            os.close(artifact)
            raise
        fuel = FuelMeter(limits.fuel, metered=self.engine.fuel)
        talk = Conversation(
            channel,
            callbacks,
            limits=limits,
            fuel=fuel,
            housekeeper=housekeeper,
            spin=self._spin,
            interruptible=self.engine.interruptible,
        )
        # The turn is ours until the instance stands: a host function of the start function cannot re-enter.
        handle.turn.acquire()
        try:
            start = monitor.start_watch(time.monotonic())
            handle.watch = start
            try:
                talk.send_load(load, artifact if spare else None, start)
            finally:
                os.close(artifact)
            channel.receive(start)  # READY
            talk.await_loaded(talk.begin(time.monotonic(), limits.wall_s))
            if not handle.wait_settled(monitor.START_TIMEOUT_S):
                raise InstantiationError("the fork server does not answer", cause=Cause.HOST)
            if self._closed:
                raise handle.condemn(monitor.closed())
            instance = Instance(talk, module, limits, housekeeper)
        except BaseException as exc:
            handle.condemn(monitor.abandoned())
            never_ran = spare and handle.read_nothing(len(load.frame()))
            handle.release()
            told = _while_instantiating(exc, talk.served, never_ran=never_ran)
            if told is exc:
                raise
            raise told from exc
        finally:
            handle.turn.release()
        if self._spare_count:
            housekeeper.tick_in(RESPAWN_S)
        return instance

    def _take_worker(self, server: ForkServer, artifact: int) -> tuple[Handle, Channel, bool]:
        """A worker, and whether it is a spare; else one was asked for now, and has the artifact."""
        with self._lock:
            most = self._max_workers
            if most is not None:
                spares = {id(handle) for handle, _ in self._spares}
                used = sum(h.alive and h.role == c.Role.WORKER and id(h) not in spares for h in server.handles())
                if used >= most:
                    text = f"max_workers of {most} reached: close an instance first"
                    raise InstantiationError(text, cause=Cause.USAGE, limit=most)
            while self._spares:
                handle, channel = self._spares.popleft()
                if handle.running():
                    return handle, channel, True
                handle.condemn(monitor.closed())
                handle.release_when_idle()
            try:
                handle = server.spawn(c.Role.WORKER, artifact=artifact)
            except OSError as exc:
                raise monitor.host_failure(exc) from exc
            except InstantiationError as exc:
                if server.lost:
                    raise _NeverRan(exc) from exc
                raise
        return handle, Channel(handle), False

    # --- processes ---

    def _own(self) -> None:
        """This process's supervisor from now on; InstantiationError when it is another's, or closed."""
        current = generation.current()
        if self._generation is None:
            self._generation = current
        if self._generation != current:
            text = "this supervisor belongs to the process that used it first: make another one after a fork"
            raise InstantiationError(text, cause=Cause.USAGE)
        if self._closed:
            raise InstantiationError("the supervisor is closed", cause=Cause.CLOSED)
        self._started()

    def _started(self) -> tuple[ForkServer, Housekeeper]:
        """The fork server, started if there is none or the last one died."""
        with self._lock:
            if self._closed:
                raise InstantiationError("the supervisor is closed", cause=Cause.CLOSED)
            server = self._fork_server
            if server is not None and self._housekeeper is not None and not server.lost:
                return server, self._housekeeper
            if os_.MISSING is not None:
                raise InstantiationError(os_.MISSING, cause=Cause.HOST)
            if self._config is None:
                self._config = self._make_config()
            try:
                housekeeper = self._housekeeper or self._start_housekeeper()
                server = ForkServer(interpreter(self._python), self._config, housekeeper.handles)
            except (OSError, RuntimeError) as exc:  # RuntimeError: no more threads
                text = f"a worker could not be started: no fork server: {exc}"
                raise InstantiationError(text, cause=Cause.HOST) from exc
            self._fork_server = server
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
        limits, engine = self.limits, self.engine
        self._fingerprint = f"{version} {engine.fuel} {engine.interruptible}".encode()
        bounds = (limits.rss_bytes, limits.memory_bytes)
        data = None if None in bounds else max(b for b in bounds if b is not None) + _DATA_SLACK
        rss = limits.compile_rss_bytes
        compiler = None if rss is None else rss + max(_COMPILER_SLACK, 2 * rss)
        return c.Config(
            library,
            engine.fuel,
            engine.interruptible,
            limits.stack_bytes,
            data,
            compiler,
            limits.memory_bytes,
            limits.memories,
            limits.table_elements,
            limits.host_calls,
            limits.host_call_bytes,
            limits.message_bytes,
        )

    def tick(self) -> None:
        """The housekeeper's regular duty: spares, and the memory and standard error of idle workers."""
        with self._lock:
            server = self._fork_server
            if self._closed or server is None or server.lost:
                return
            for pair in [pair for pair in self._spares if not pair[0].alive]:
                self._spares.remove(pair)
                pair[0].release_when_idle()
            try:
                while len(self._spares) < self._spare_count:
                    handle = server.spawn(c.Role.WORKER, wait=False)
                    self._spares.append((handle, Channel(handle)))
            except (OSError, InstantiationError):
                pass  # no spare now; who needs a worker asks, and hears why not
            housekeeper = self._housekeeper
        if housekeeper is not None:
            for handle in list(housekeeper.handles):
                handle.look_when_idle(self.limits.rss_bytes if handle.role == c.Role.WORKER else None)

    # --- closing ---

    def close(self) -> None:
        """See `WasmHost.close`. Running calls end with CallError, CLOSED. Returns when every process has ended."""
        if self._generation is not None and self._generation != generation.current():
            return  # the parent's processes are the parent's to end
        with self._lock:
            self._closed = True
            housekeeper = self._housekeeper
            self._compilers.close()
            spares, self._spares = list(self._spares), collections.deque()
        for handle, _ in spares:
            handle.condemn(monitor.closed())
            handle.release_when_idle()
        if housekeeper is not None:
            housekeeper.stop()
        for artifact in list(self._artifacts):
            artifact.close()
        self._cache.clear()


class _NeverRan(Exception):
    """The fork server died before the guest could have been seen doing anything, or a spare died before it read LOAD.

    Trying again runs nothing twice. `error` is what to raise when that does not help.
    """

    def __init__(self, error: WasmError) -> None:
        self.error = error
        if isinstance(error, WorkerCrashed):
            what = error.message.removeprefix("worker crashed: ")
            self.error = InstantiationError(f"a worker could not be started: {what}", cause=Cause.HOST)


def _while_instantiating(exc: BaseException, served: int, *, never_ran: bool) -> BaseException:
    """What `instantiate` raises for `exc`; `served` host calls were made, `never_ran`: the worker had not read LOAD."""
    if isinstance(exc, OSError):
        return monitor.host_failure(exc)
    if isinstance(exc, CallError) and exc.cause is Cause.CLOSED:
        return InstantiationError("the supervisor is closed", cause=Cause.CLOSED)
    if isinstance(exc, WorkerCrashed) and (never_ran or (exc.cause is Cause.HOST and not served)):
        return _NeverRan(exc)
    return exc


def _as_compile_error(exc: WasmError) -> CompileError:
    return CompileError(exc.message.replace("worker", "compiler"), cause=exc.cause)


def _weakly(supervisor: weakref.ref[Supervisor]) -> Callable[[], None]:
    """The housekeeper's duty without a reference that would keep a dropped supervisor."""

    def tick() -> None:
        alive = supervisor()
        if alive is not None:
            alive.tick()

    return tick


def _instance_of(name: str, value: Any, cls: type[Any]) -> Any:
    if value is None:
        return cls()
    if not isinstance(value, cls):
        raise TypeError(f"{name} takes {cls.__name__}, not {type(value).__name__}")
    return value


def _path(name: str, value: object) -> str | None:
    if value is None:
        return None
    path = value if isinstance(value, str) else os.fspath(value) if isinstance(value, os.PathLike) else None
    if not isinstance(path, str):
        raise TypeError(f"{name} takes a str or a path, not {type(value).__name__}")
    if "\0" in path or not path:
        raise ValueError(f"{name} is not a path: {path!r}")
    return path


def _count(name: str, value: object, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} must be an integer from {low:,} to {high:,}, not {value!r}")
    return value
