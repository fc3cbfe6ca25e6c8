"""Fixtures of the tests on event loops: each runs on asyncio's own loop, on uvloop, and on anyio's asyncio backend.

A test is a plain function that gives `on_loop` a coroutine function `(host) -> None`: that makes the loop, a fresh host
on it (`on_loop(main, engine=…, **limits)`), and closes both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
import uvloop

from pdsandbox import AsyncSupervisor, EngineConfig, Limits


def _uvloop(main: Callable[[], Any]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


LOOPS: dict[str, Callable[[Callable[[], Any]], None]] = {
    "asyncio": lambda main: asyncio.run(main()),
    "uvloop": _uvloop,
    "anyio": lambda main: anyio.run(main, backend="asyncio"),
}


def pytest_configure() -> None:
    """libuv makes a pipe for signals with its first loop, and keeps it: before anybody counts descriptors."""
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
