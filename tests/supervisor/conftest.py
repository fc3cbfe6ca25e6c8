"""Fixtures of the supervisor's own tests: one shared supervisor for what needs no limits of its own, and a maker.

The shared one is called `host`, as everywhere, so that the leak fixture knows that its cache may grow. It has no
spares: then no process comes or goes but those that a test asks for.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
from leaks import Holdings
from supervising import SpawnLog

from pdsandbox import Limits, Supervisor
from pdsandbox.supervisor.forkclient import ForkServer


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "hammer: many threads on one shared thing, for a bounded time")


class TrackingSupervisor(Supervisor):
    """Knows which instances live, so that a test's are closed after it even if a traceback still holds them."""

    made: ClassVar[weakref.WeakSet[Any]] = weakref.WeakSet()

    def instantiate(self, *args: Any, **options: Any) -> Any:
        instance = super().instantiate(*args, **options)
        self.made.add(instance)
        return instance


@pytest.fixture(autouse=True)
def _instances_closed() -> Iterator[None]:
    yield
    for instance in list(TrackingSupervisor.made):
        instance.close()


@pytest.fixture(scope="session")
def host() -> Iterator[Any]:
    """A warm supervisor for the whole session; no fuel limit, plenty of time."""
    before = Holdings()
    shared = TrackingSupervisor(limits=Limits(fuel=None, wall_s=60.0), spares=0)
    shared.instantiate(shared.compile('(module (func (export "warm")))')).close()
    yield shared
    shared.close()
    left = before.extra()
    assert not left, "closing the shared supervisor left behind:\n  " + "\n  ".join(left)


@pytest.fixture
def make_supervisor() -> Iterator[Callable[..., Any]]:
    """make_supervisor(spares=0, max_workers=…, isolation=…, **limits): a supervisor, closed after the test."""
    made: list[Any] = []

    def make(
        *,
        spares: int = 0,
        max_workers: int | None = None,
        max_compilers: int | None = None,
        cache_bytes: int = 256 << 20,
        hardening: str = "default",
        isolation: str = "instance",
        engine: Any = None,
        **limits: Any,
    ) -> Any:
        limits = {"fuel": None, "wall_s": 60.0, **limits}
        made.append(
            TrackingSupervisor(
                limits=Limits(**limits),
                spares=spares,
                max_workers=max_workers,
                max_compilers=max_compilers,
                cache_bytes=cache_bytes,
                hardening=hardening,
                isolation=isolation,
                engine=engine,
            )
        )
        return made[-1]

    yield make
    for each in reversed(made):
        each.close()


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> SpawnLog:
    """Every child that any fork server is asked for from now on."""
    log, spawn = SpawnLog(), ForkServer.spawn

    def logging_spawn(self: ForkServer, role: int, *args: Any, **options: Any) -> Any:
        handle = spawn(self, role, *args, **options)
        log.add(role, handle)
        return handle

    monkeypatch.setattr(ForkServer, "spawn", logging_spawn)
    return log
