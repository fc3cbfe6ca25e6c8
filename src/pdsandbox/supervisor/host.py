"""`Supervisor`: the host whose guests run in worker processes. Compiles, instantiates, and closes everything.

Threads: all of it may be called from any thread. What they share lies in `Processes`, `CompileCache` and
`CompilerSlots`, each with its own lock, held for bookkeeping and never while waiting for a worker.
"""

from __future__ import annotations

import hashlib
import os
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ..errors import Cause, CompileError, InstantiationError, WasmError
from ..hardening import Hardening, HardeningReport, hardening_of
from ..imports import WasmImports
from ..interfaces import Capability, WasmHost, WasmModule
from ..limits import EngineConfig, Limits, config_of
from ..protocol import control as c
from ..source import source_of
from ..values import _short
from . import compiling, reports
from .cache import CompileCache
from .calling import Cores
from .forkclient import ForkServer
from .instance import Instance
from .journal import Journal
from .loading import Loader
from .module import Artifact, Compiled, Module
from .processes import NeverRan, Processes
from .sharing import MOST_INSTANCES
from .slots import CompilerSlots

if TYPE_CHECKING:
    from ..events import Event
    from ..stats import HostStats
    from ..wasi import Wasi
    from .disk import DiskCache
    from .granting import Granted
    from .handle import Handle

MIB: Final = 1 << 20
DEFAULT_CACHE_BYTES: Final = 256 * MIB


class Supervisor(WasmHost):
    """A host whose guests run in worker processes, one each or one a module.

    limits        what each guest may use (`Limits`)
    engine        how compiled code is metered (`EngineConfig`)
    isolation     "instance": one worker per instance. "module": instances of the same bytes share a worker, those of
                  different modules never. That saves memory and time to start; but they wait for each other's calls
                  as those of one instance do (`Capability.INDEPENDENCE` is in `missing`), whatever ends the worker
                  ends all of them with the same error, a missed deadline and `kill()` among it, and `rss_bytes` is
                  for all together. A worker takes in up to 100, and nobody else once it has half of the memory that
                  it may have; then the next instance gets a new one. So does one with `in_worker` functions or
                  directories, which is alone in it, one that finds its worker busy for all of `wall_s`, and one that
                  is made inside a host function of an instance of its module
    spares        workers kept ready before they are asked for (default 1, at most 64)
    max_workers   workers at once; one more is an InstantiationError (default: none)
    max_compilers compilations at once; further ones wait (default: the number of usable cores)
    cache_dir     a directory in which compiled code is kept for later supervisors: this user's, mode 0700, made where
                  it is missing. What is in it is checked before it is loaded, with a key of the user's that lies in
                  $XDG_STATE_HOME/pdsandbox (by default ~/.local/state/pdsandbox). Where it cannot be used, one warning
                  says why, and modules are compiled (default: none)
    cache_bytes   bytes of compiled code kept in memory, least recently used out first (default 256 MiB; 100 modules);
                  and, by themselves, in `cache_dir` (1,000 modules)
    hardening     "default": every layer that this machine offers; "strict": refuse to start unless all are to be had
                  (InstantiationError, cause HOST, naming what is missing and how to get it); "off": none, for
                  debugging; or a `Hardening`
    cgroup        a cgroup directory (version 2 or 1) that was delegated to this process with the memory controller:
                  each worker gets a leaf of its own with `rss_bytes` as its limit, which the kernel keeps without
                  sampling; it adds milliseconds to each start (default: none)
    on_event      called with what happens (`pdsandbox.events`), one event at a time, in the order in which it happened,
                  in a thread of its own. It may use this host. What it raises is logged and counted; while it takes
                  its time, 4,096 events wait, and what comes on top is dropped, counted, and told as `EventsDropped`.
                  `close` waits for it for up to a second (default: none; see also `stats`, and the loggers below
                  `pdsandbox`)
    python        the Python to run workers with, a path or a name on PATH, where `sys.executable` is none (frozen or
                  embedding programs)

    Raises ValueError for what makes no sense. Nothing is started before the first use, but for `hardening="strict"`.
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
        hardening: str | Hardening | None = None,
        cgroup: str | os.PathLike[str] | None = None,
        on_event: Callable[[Event], object] | None = None,
        python: str | os.PathLike[str] | None = None,
    ) -> None:
        self.limits = config_of("limits", limits, Limits)
        self.engine = config_of("engine", engine, EngineConfig)
        if isolation not in ("instance", "module"):
            raise ValueError(f'isolation must be "instance" or "module", not {_short(isolation)}')
        self.hardening = hardening_of(hardening)
        if on_event is not None and not callable(on_event):
            raise TypeError(f"on_event takes a function of one event, not {type(on_event).__name__}")
        #: Where what happens is published; for our own pools and policies (`reports`).
        self.journal = Journal(on_event)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        compilers = cores if max_compilers is None else _count("max_compilers", max_compilers, 1, 1024)
        self._processes = Processes(
            limits=self.limits,
            engine=self.engine,
            instances=MOST_INSTANCES if isolation == "module" else 1,
            spares=_count("spares", spares, 0, 64),
            max_workers=None if max_workers is None else _count("max_workers", max_workers, 1, 100_000),
            python=_program("python", python),
            hardening=self.hardening,
            cgroup=_path("cgroup", cgroup),
            journal=self.journal,
        )
        self._compilers = CompilerSlots(compilers)
        self._cache = CompileCache(_count("cache_bytes", cache_bytes, 0, 1 << 44))
        self._disk = _disk(_path("cache_dir", cache_dir), cache_bytes)
        shared = isolation == "module"
        if shared:
            self.missing = frozenset({Capability.INDEPENDENCE})
        self._loader = Loader(self._processes, self.limits, self.engine, Cores(cores), self.journal, by_module=shared)
        self._artifacts: weakref.WeakSet[Artifact] = weakref.WeakSet()
        if self.hardening.required:
            self._require()

    def _require(self) -> None:
        """Refuse to start unless all that was asked for holds: see `Hardening.required`."""
        try:
            lacks = self.hardening_report().lacks
            if lacks:
                text = f"workers cannot be locked down as required: {'; '.join(lacks)}"
                raise InstantiationError(text, cause=Cause.HOST)
        except BaseException:
            self.close()
            raise

    def hardening_report(self) -> HardeningReport:
        """Which layers are between native code in a worker and this machine, seen from inside a worker and a compiler.

        Starts the fork server if need be. Raises InstantiationError, cause HOST, when it cannot be started.
        """
        self._processes.own()
        return self._processes.hardening_report()

    # --- compiling ---

    def compile(self, wasm: bytes | str) -> Module:
        """See `WasmHost.compile`. Runs in a compiler process; equal modules compile once, also those of other
        supervisors with the same `cache_dir`."""
        source, text = source_of(wasm, self.limits.module_bytes)
        sha256 = hashlib.sha256(source)
        try:
            self._processes.own()
            _, housekeeper = self._processes.started()
        except InstantiationError as exc:
            raise _as_compile_error(exc) from exc
        key = hashlib.sha256(b"%d%b%b" % (text, sha256.digest(), self._processes.fingerprint)).digest()
        disk, fresh, led = self._disk, False, False
        asked, name = time.monotonic(), sha256.hexdigest()

        def find() -> Compiled:
            nonlocal fresh, led
            led = True
            found = None if disk is None else disk.load(key, len(source), housekeeper.later)
            fresh = found is None
            return self._compile(source, text=text) if found is None else self._keep(found)

        try:
            compiled = self._cache.get(key, find)
        except CompileError as exc:
            if led:
                reports.compile_failed(self.journal, name, exc, asked)
            raise
        if fresh:
            reports.compiled(self.journal, name, compiled, asked)
        else:
            reports.cache_hit(self.journal, name, disk=led)
        if fresh and disk is not None:  # and others who waited for it have it already
            disk.store(key, sha256.digest(), self._processes.versions, compiled)
        return Module(self, compiled, name)

    def _compile(self, source: bytes, *, text: bool) -> Compiled:
        """In a compiler process; once more if the fork server died on the way, since compiling has no side effects."""
        try:
            compiled = self._compile_once(source, text=text)
        except NeverRan:
            try:
                compiled = self._compile_once(source, text=text)
            except NeverRan as exc:
                raise _as_compile_error(exc.error) from exc
        return self._keep(compiled)

    def _keep(self, compiled: Compiled) -> Compiled:
        """Have `close` close it."""
        self._artifacts.add(compiled.artifact)
        if self._processes.closed:  # `close` may have gone through the artifacts before this one was there
            compiled.artifact.close()
            raise CompileError("the supervisor is closed", cause=Cause.CLOSED)
        return compiled

    def _compile_once(self, source: bytes, *, text: bool) -> Compiled:
        server: ForkServer | None = None
        try:
            place = self._compilers.take()
            try:
                server, housekeeper = self._processes.started()
                handle = server.spawn(c.Role.COMPILER, place)
                leave = housekeeper.later
                return compiling.run(handle, source, text=text, limits=self.limits, leave=leave)
            finally:
                self._compilers.give(place)
        except (CompileError, InstantiationError) as exc:
            if exc.cause is Cause.HOST and server is not None and server.lost:
                raise NeverRan(exc) from exc
            if isinstance(exc, CompileError):
                raise
            raise _as_compile_error(exc) from exc
        except OSError as exc:
            raise CompileError(f"a compiler could not be started: {exc}", cause=Cause.HOST) from exc

    # --- instantiating ---

    def instantiate(
        self, module: WasmModule, imports: WasmImports | None = None, *, wasi: Wasi | None = None
    ) -> Instance:
        """See `WasmHost.instantiate`. Each instance gets a worker process of its own, unless it may share one.

        Raises InstantiationError, cause HOST, when this machine refuses another process; USAGE beyond `max_workers`.
        """
        return self.start(module, imports, wasi, lambda _handle: None)

    def start(self, module: object, imports: object, wasi: Wasi | None, begun: Callable[[Handle], None]) -> Instance:
        """`instantiate`; `begun` is told of the worker, whose end it may want, before anything is said to it."""
        if not isinstance(module, Module) or module.host is not self:
            raise InstantiationError("the module was compiled by another host", cause=Cause.USAGE)
        offered: object = WasmImports() if imports is None else imports
        if not isinstance(offered, WasmImports):
            text = f"imports must be WasmImports, not {type(offered).__name__}"
            raise InstantiationError(text, cause=Cause.USAGE)
        granted: Granted | None = None
        if wasi is not None:
            from .granting import grant  # most guests need none of it

            granted = grant(wasi)
        try:
            self._processes.own()
            return self._loader.instantiate(module, offered, granted, begun)
        finally:
            if granted is not None:
                granted.close()

    def close(self) -> None:
        """See `WasmHost.close`. Running calls end with CallError, CLOSED. Returns when every process has ended."""
        if not self._processes.ours:
            return  # the parent's processes are the parent's to end
        self._compilers.close()
        self._processes.close()
        for artifact in list(self._artifacts):
            artifact.close()
        self._cache.clear()
        self.journal.close()

    def _on_quarantine(self, module: WasmModule, failures: int, error: WasmError, left_s: float | None) -> None:
        reports.quarantined(self.journal, module.sha256, failures, error, left_s)

    def stats(self, *, memory: bool = False) -> HostStats:
        """What there is now, and what there was so far: see `HostStats`. Any thread, also after `close`.

        Some 15 us, and 0.5 us for each worker; no system call, unless `memory` asks for `resident_bytes`, which takes
        one for each process. Raises InstantiationError, USAGE, in a fork of the process whose supervisor this is.
        """
        from .census import stats_of

        return stats_of(self._processes, self._cache, self.journal, memory=memory)


def _as_compile_error(exc: WasmError) -> CompileError:
    return CompileError(exc.message.replace("worker", "compiler"), cause=exc.cause)


def _path(name: str, value: object) -> str | None:
    if value is None:
        return None
    path = value if isinstance(value, str) else os.fspath(value) if isinstance(value, os.PathLike) else None
    if not isinstance(path, str):
        raise TypeError(f"{name} takes a str or a path, not {type(value).__name__}")
    if "\0" in path or not path:
        raise ValueError(f"{name} is not a path: {path!r}")
    return path


def _program(name: str, value: object) -> str | None:
    """The fork server starts in "/" and without PATH: a relative path, or a bare name, means what it means here and
    now."""
    path = _path(name, value)
    if path is None:
        return None
    import shutil  # for this alone

    return os.path.abspath(path) if os.path.dirname(path) else shutil.which(path) or path


def _disk(path: str | None, most_bytes: int) -> DiskCache | None:
    if path is None:
        return None
    from . import disk, diskplace  # most programs need none of it

    try:
        place = diskplace.Place(os.path.abspath(path), diskplace.default_secret())
    except FileNotFoundError as exc:
        raise ValueError(f"cache_dir {path!r} is relative, and there is no working directory") from exc
    return disk.DiskCache(place, most_bytes)


def _count(name: str, value: object, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} must be an integer from {low:,} to {high:,}, not {_short(value)}")
    return value
