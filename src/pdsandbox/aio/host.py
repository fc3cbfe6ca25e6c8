"""`AsyncSupervisor`: `Supervisor` for the tasks of one event loop.

Compiling, starting and closing are its own `Supervisor`'s, in a few threads; they are no part of a call. Calls are made
by their tasks, on the loop.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Self

from ..errors import CallError, Cause, CompileError, InstantiationError, WasmError
from ..hardening import Hardening, HardeningReport
from ..imports import WasmImports
from ..interfaces import Capability, WasmModule
from ..limits import EngineConfig, Limits
from ..sizes import Sizes, usable_cores
from ..supervisor import monitor
from ..supervisor.host import DEFAULT_CACHE_BYTES, Supervisor
from ..supervisor.instance import Instance
from ..supervisor.module import Module
from .hosted import Start, on_loop
from .instance import AsyncInstance
from .port import Port
from .starters import Starters
from .talk import Talk
from .watchman import Watchman

if TYPE_CHECKING:
    from ..events import Event
    from ..restarts import RestartPolicy
    from ..stats import HostStats
    from ..wasi import Wasi
    from .plugin import AsyncPlugin
    from .pool import AsyncPool

__all__ = ["AsyncSupervisor"]

# A start takes some 3 ms, most of it waiting; a compilation waits for a compiler, of which there are as many as cores.
_STARTING: Final = 16
# Guests that wait at the same time for a descriptor that their streams lead to.
_STREAMING: Final = 64


class AsyncSupervisor:
    """`Supervisor` for asyncio: the same options, limits and errors; what waits there is awaited here.

    It belongs to the event loop that it is first used on, and so do its instances: another loop, or another thread,
    gets CallError, USAGE. Host functions are plain or coroutine functions. Both run in the loop's thread: a plain one
    holds up everything else there, a coroutine function only its guest. Functions and file objects that `Wasi` leads
    streams to may be called in another thread.

    Cancelling a task that instantiates ends the worker; one that compiles leaves the compilation to its limits, and the
    result to the cache. An asynchronous context manager that closes it.
    """

    #: Capabilities that this host lacks.
    missing: frozenset[Capability] = Supervisor.missing

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
        """See `Supervisor`. `on_event` is called in a thread of its own here, too, not on the loop."""
        self._host = Supervisor(
            limits=limits,
            engine=engine,
            isolation=isolation,
            spares=spares,
            max_workers=max_workers,
            max_compilers=max_compilers,
            cache_dir=cache_dir,
            cache_bytes=cache_bytes,
            hardening=hardening,
            cgroup=cgroup,
            on_event=on_event,
            python=python,
        )
        self.missing = self._host.missing
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watchman: Watchman | None = None
        self._closed = False
        self._starting = Starters(_STARTING)
        self._streaming = Starters(_STREAMING)
        # By the identity of the worker, which a port holds.
        self._ports: weakref.WeakValueDictionary[int, Port] = weakref.WeakValueDictionary()

    @property
    def limits(self) -> Limits:
        """What each guest may use."""
        return self._host.limits

    @property
    def engine(self) -> EngineConfig:
        """How compiled code is metered."""
        return self._host.engine

    def _own(self, error: type[WasmError] = CallError) -> asyncio.AbstractEventLoop:
        """This loop's from now on; CallError when it is another's, `error` when it is closed."""
        if self._closed:
            raise error("the supervisor is closed", cause=Cause.CLOSED)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise CallError("an AsyncSupervisor can be used only by a task of its event loop") from None
        if self._loop is None:
            self._loop, self._watchman = loop, Watchman(loop)
        if self._loop is not loop:
            raise CallError("this AsyncSupervisor belongs to another event loop: the one that it was first used on")
        return loop

    async def hardening_report(self) -> HardeningReport:
        """See `Supervisor.hardening_report`."""
        self._own(InstantiationError)
        return await self._starting.run(self._host.hardening_report)

    async def compile(self, wasm: bytes | str) -> Module:
        """See `Supervisor.compile`."""
        self._own(CompileError)
        host = self._host
        return await self._starting.run(lambda: host.compile(wasm))

    async def instantiate(
        self, module: WasmModule, imports: WasmImports | None = None, *, wasi: Wasi | None = None
    ) -> AsyncInstance:
        """See `Supervisor.instantiate`."""
        return await self._begin(module, imports, wasi, Start(self._own(InstantiationError)))

    async def _begin(
        self, module: WasmModule, imports: WasmImports | None, wasi: Wasi | None, start: Start
    ) -> AsyncInstance:
        """`start`: what whoever wants it may stop it by."""
        loop, host = self._own(InstantiationError), self._host
        offered: Any = on_loop(imports, start) if isinstance(imports, WasmImports) else imports
        try:
            job = self._starting.run(lambda: host.start(module, offered, wasi, start.begun), Instance.close)
            instance = await job
        except asyncio.CancelledError:
            start.stop(monitor.abandoned())
            raise
        finally:
            start.over()
        return self._adopt(instance, loop)

    def plugin(
        self,
        module: WasmModule,
        imports: WasmImports | None = None,
        *,
        wasi: Wasi | None = None,
        restart: RestartPolicy | None = None,
    ) -> AsyncPlugin:
        """See `WasmHost.plugin`."""
        from .plugin import AsyncPlugin

        return AsyncPlugin(self, self._own(), module, imports, wasi=wasi, restart=restart)

    def pool(
        self,
        module: WasmModule,
        imports: WasmImports | None = None,
        *,
        min: int = 1,  # noqa: A002 - as other pools call it
        max: int | None = None,  # noqa: A002
        queue: int = 100,
        timeout: float | None = 30.0,
        reset: str = "never",
        max_calls: int | None = None,
        max_idle_s: float | None = None,
        tenant_running: int | None = None,
        tenant_queue: int | None = None,
        restart: RestartPolicy | None = None,
        wasi: Wasi | None = None,
    ) -> AsyncPool:
        """See `WasmHost.pool`."""
        from .pool import AsyncPool

        sizes = Sizes(
            min=min,
            max=usable_cores(min) if max is None else max,
            queue=queue,
            reset=reset,
            max_calls=max_calls,
            max_idle_s=max_idle_s,
            tenant_running=tenant_running,
            tenant_queue=tenant_queue,
        )
        return AsyncPool(self, self._own(), module, imports, sizes, timeout=timeout, wasi=wasi, restart=restart)

    def stats(self, *, memory: bool = False) -> HostStats:
        """See `Supervisor.stats`. Nothing is awaited; any thread may ask."""
        return self._host.stats(memory=memory)

    def _on_quarantine(self, module: WasmModule, failures: int, error: WasmError, left_s: float | None) -> None:
        self._host._on_quarantine(module, failures, error, left_s)

    def _adopt(self, instance: Instance, loop: asyncio.AbstractEventLoop) -> AsyncInstance:
        """A new instance, for the tasks of this loop."""
        assert self._watchman is not None
        worker, housekeeper = instance._worker, instance._housekeeper
        port = self._ports.get(id(worker))
        if port is None:
            self._ports[id(worker)] = port = Port(worker, loop, self._watchman, housekeeper)
        talk = Talk(instance._talk, port, housekeeper, self._streaming)
        return AsyncInstance(instance, talk, self._starting)

    async def close(self) -> None:
        """See `WasmHost.close`. Goes on to its end also when the task that waits for it is cancelled."""
        self._closed = True
        await self._starting.run(self._host.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()
