"""`AsyncPlugin`: a `Plugin` for the tasks of one event loop.

As there, one instance serves, and is replaced when it is gone, as a `RestartPolicy` says. What decides about starts is
`restarts`; here is what a caller's task does. Everything happens in the loop's thread: only starting takes turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

from .. import generation
from ..again import Attempt
from ..errors import CallError, Cause, WasmError
from ..imports import WasmImports
from ..interfaces import WasmModule
from ..post import Post, closed_error
from ..restarts import RestartPolicy
from ..supervisor import monitor
from ..values import WasmVal
from .belonging import Kind, check_loop, claims, while_it
from .ending import let_go, wait_gone, why_gone
from .hosted import Start
from .instance import AsyncInstance

if TYPE_CHECKING:
    from ..wasi import Wasi
    from .host import AsyncSupervisor

__all__ = ["AsyncPlugin"]

_T = TypeVar("_T")


class AsyncPlugin(Post[AsyncInstance]):
    """A module that is served by one instance at a time, for the tasks of the event loop that it was made on; made by
    `AsyncSupervisor.plugin`. See `Plugin`. An asynchronous context manager that closes it.

    Cancelling a task whose call runs ends the instance, unless its guest can be interrupted. Those whose calls waited
    for their turn in it get a new one: nothing of them has run.
    """

    def __init__(
        self,
        host: AsyncSupervisor,
        loop: asyncio.AbstractEventLoop,
        module: WasmModule,
        imports: WasmImports | None = None,
        *,
        wasi: Wasi | None = None,
        restart: RestartPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
        rand: Callable[[], float] = random.random,
    ) -> None:
        """`clock` and `rand` are the policy's."""
        super().__init__(host, module, restart, clock, rand, contextlib.nullcontext())
        self._host = host
        self._loop = loop
        self._generation = generation.now
        self._imports = imports
        self._wasi = wasi
        self._starting = asyncio.Lock()
        self._start_under_way: Start | None = None
        self._last: AsyncInstance | None = None  # one that was lost, and may be on its way out

    def _own(self) -> None:
        check_loop("plugin", self._loop, self._generation)

    # --- calls ---

    async def call(
        self,
        func: str,
        args: Sequence[WasmVal | int | float] = (),
        *,
        fuel: int | None = None,
        wall_s: float | None = None,
        idempotent: bool = False,
        default: Any = None,
    ) -> list[WasmVal] | Any:
        """See `Plugin.call`."""
        attempt = Attempt(self._host, wall_s, idempotent=idempotent)

        async def operation(instance: AsyncInstance) -> Any:
            return await instance._call(func, args, fuel, attempt.wall_s, False, attempt)

        return await self._use(operation, attempt, default)

    async def use(
        self, operation: Callable[[AsyncInstance], Awaitable[_T]], *, idempotent: bool = False, default: Any = None
    ) -> _T | Any:
        """`await operation(instance)`, as `Plugin.use`."""
        attempt = Attempt(None, None, idempotent=idempotent)

        async def begun(instance: AsyncInstance) -> _T:
            attempt.began = time.monotonic()
            return await operation(instance)

        return await self._use(begun, attempt, default)

    async def _use(
        self, operation: Callable[[AsyncInstance], Awaitable[_T]], attempt: Attempt, default: Any
    ) -> _T | Any:
        self._own()
        while True:
            instance: AsyncInstance | None = None
            try:
                instance = await self._ready()
                result = await operation(instance)
            except WasmError as exc:
                lost = instance is not None and not instance.alive
                if lost:
                    assert instance is not None
                    self._lose(instance, exc)
                    if attempt.began is None:
                        continue  # it ended before this call's turn in it, and so nothing has run
                    if self._may_start() and attempt.again(exc, time.monotonic()):
                        attempt.began = None
                        continue
                if (lost or instance is None) and self._does_without(exc):
                    return default
                raise
            except BaseException:
                # Whoever leaves a call in the middle has ended the instance.
                if instance is not None and not instance.alive:
                    self._lose(instance, None)
                raise
            self._served()
            return result

    # --- instances ---

    async def _ready(self) -> AsyncInstance:
        """The instance; a new one if need be, and if that is allowed."""
        instance = self._instance
        if instance is not None and instance.alive:
            return instance
        if claims(self, Kind.STARTS):
            raise CallError("a plugin cannot be used from inside a host function while it is being started")
        async with self._starting:
            instance = self._instance
            if instance is not None:
                if instance.alive:
                    return instance
                self._lose(instance, why_gone(instance))
            self._book()
            return await self._start()

    async def _start(self) -> AsyncInstance:
        """A start that was booked."""
        try:
            instance = await self._make()
        except BaseException as exc:
            self._failed(exc)
            raise
        self._fill(instance)
        return instance

    async def _make(self) -> AsyncInstance:
        last, self._last = self._last, None
        if last is not None:
            await wait_gone(last)  # or there might be one worker more than there may be
        with while_it(self, Kind.STARTS):
            self._start_under_way = start = Start(self._loop)
            try:
                instance = await self._host._begin(self._module, self._imports, self._wasi, start)
            except WasmError as exc:
                if self._closed and exc.cause is Cause.CLOSED:
                    raise closed_error() from None
                raise
            finally:
                self._start_under_way = None
        if self._closed:
            let_go(instance)
            raise closed_error()
        return instance

    def _lose(self, instance: AsyncInstance, error: WasmError | None) -> None:
        if self._vacate(instance, error) and let_go(instance):
            self._last = instance

    # --- the rest ---

    def reset(self) -> None:
        """Forget its failures and end a quarantine."""
        self._own()
        super().reset()

    async def close(self) -> None:
        """End its instance; later calls raise CallError, cause CLOSED. Twice is allowed. A plugin whose loop is closed
        may be closed on any other."""
        if self._generation != generation.now:
            return  # the parent's worker is the parent's to end
        gone = self._loop.is_closed()
        if not gone:
            self._own()
        self._closed = True
        if self._start_under_way is not None:
            self._start_under_way.stop(monitor.closed())
        instance, self._instance = self._instance, None
        if instance is not None:
            await instance.close()
        if not gone and not claims(self, Kind.STARTS):  # a start cannot wait for its own end
            async with self._starting:
                pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()
