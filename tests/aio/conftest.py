"""Fixtures of the tests on event loops: each runs on asyncio's own loop, on uvloop, and on anyio's asyncio backend.

A test is a plain function that gives `on_loop` a coroutine function `(host) -> None`: that makes the loop, a fresh host
on it (`on_loop(main, engine=…, **limits)`), and closes both. In a module of pools or plugins they share a loop of each
kind, and the processes of a host: `on_pool(main, **options)` makes a pool for `(scene) -> None`, `on_plugin` a plugin.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import anyio.from_thread
import pytest
import uvloop
from looping_pools import Scene

from pdsandbox import AsyncPlugin, AsyncSupervisor, EngineConfig, Limits, RestartPolicy, Supervisor


def _uvloop(main: Callable[[], Any]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


LOOPS: dict[str, Callable[[Callable[[], Any]], None]] = {
    "asyncio": lambda main: asyncio.run(main()),
    "uvloop": _uvloop,
    "anyio": lambda main: anyio.run(main, backend="asyncio"),
}


# libuv makes a pipe for signals with its first loop, and keeps it: now, before anybody counts descriptors.
uvloop.new_event_loop().close()


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Any]], None]:
    """run(main): a loop of each kind, for as long as `await main()` takes."""
    return LOOPS[request.param]


@pytest.fixture
def on_loop(run: Any) -> Callable[..., None]:
    """See the module's text."""

    def on_loop(
        main: Callable[[AsyncSupervisor], Awaitable[None]],
        *,
        engine: EngineConfig | None = None,
        isolation: str = "instance",
        **limits: Any,
    ) -> None:
        async def with_host() -> None:
            wanted = Limits(**{"fuel": None, "wall_s": 60.0, **limits})
            async with AsyncSupervisor(limits=wanted, engine=engine, isolation=isolation, spares=0) as host:
                await main(host)

        run(with_host)

    return on_loop


@contextlib.contextmanager
def _portal() -> Iterator[Callable[[Callable[[], Any]], None]]:
    with anyio.from_thread.start_blocking_portal(backend="asyncio") as portal:
        yield portal.call


@contextlib.contextmanager
def _runner(factory: Callable[[], asyncio.AbstractEventLoop] | None) -> Iterator[Callable[[Callable[[], Any]], None]]:
    with asyncio.Runner(loop_factory=factory) as runner:
        yield lambda main: runner.run(main())


@pytest.fixture(scope="module", params=LOOPS)
def lasting(request: pytest.FixtureRequest) -> Iterator[Callable[[Callable[[], Any]], None]]:
    """lasting(main): as `run`, on a loop that lasts."""
    kind = request.param
    factory = uvloop.new_event_loop if kind == "uvloop" else None
    with _portal() if kind == "anyio" else _runner(factory) as run:
        yield run


@pytest.fixture(scope="module")
def processes() -> Iterator[Supervisor]:
    """What the hosts of all loops are over, warm: it stands before any test's baseline, and costs seconds on a busy
    machine. Not the session's, which would be there when another directory's `host` goes and counts what is left."""
    with Supervisor(limits=Limits(fuel=None, wall_s=60.0), spares=0) as shared:
        shared.instantiate(shared.compile('(module (func (export "f")))')).close()
        yield shared


@pytest.fixture
def host(processes: Supervisor) -> AsyncSupervisor:
    """A host for one test, on whatever loop that has."""
    made = AsyncSupervisor(limits=processes.limits, spares=0)
    made._host = processes
    return made


@pytest.fixture
def on_pool(lasting: Any, host: AsyncSupervisor) -> Callable[..., None]:
    """See the module's text."""

    def on_pool(main: Callable[[Scene], Awaitable[None]], *source: str, **options: Any) -> None:
        async def with_pool() -> None:
            scene = Scene(host, lambda *made: host.pool(*made, **options))
            async with await scene.begin(*source):
                try:
                    await main(scene)
                finally:
                    scene.release()

        lasting(with_pool)

    return on_pool


@pytest.fixture
def on_plugin(lasting: Any, host: AsyncSupervisor) -> Callable[..., None]:
    """on_plugin(main, source=…, **policy): as `on_pool`, with a plugin whose policy's clock is `scene.now`."""

    def on_plugin(main: Callable[[Scene], Awaitable[None]], *source: str, **options: Any) -> None:
        async def with_plugin() -> None:
            restart = RestartPolicy(**{"jitter": 0} | options)
            made = {"restart": restart, "clock": lambda: scene.now, "rand": lambda: 0.0}
            scene = Scene(host, lambda *what: AsyncPlugin(host, asyncio.get_running_loop(), *what, **made))
            async with await scene.begin(*source):
                try:
                    await main(scene)
                finally:
                    scene.release()

        lasting(with_plugin)

    return on_plugin
