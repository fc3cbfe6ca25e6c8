"""Disk caches below the test's own directory; the user's own cache and key are out of reach."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from caching import Shelf

from pdsandbox import Limits, Supervisor
from pdsandbox.protocol.control import Role
from pdsandbox.supervisor.forkclient import ForkServer


@pytest.fixture(autouse=True)
def _not_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg-state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg-cache"))


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """A disk cache, nothing in it yet."""
    return Shelf(tmp_path)


class Told:
    """The warnings that were logged."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    @property
    def warnings(self) -> list[str]:
        return [r.getMessage() for r in self._caplog.records if r.levelno >= logging.WARNING]

    def once(self, *parts: str) -> str:
        """There was one, and it holds these parts."""
        assert len(self.warnings) == 1, self.warnings
        for part in parts:
            assert part in self.warnings[0]
        return self.warnings[0]

    def forget(self) -> None:
        self._caplog.clear()


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Told:
    """What was told to the user."""
    caplog.set_level(logging.DEBUG, "pdsandbox")
    return Told(caplog)


@pytest.fixture
def make_supervisor(tmp_path: Path) -> Iterator[Callable[..., Supervisor]]:
    """make_supervisor(cache_dir=…, **options): one without spares, closed after the test."""
    made: list[Supervisor] = []

    def make(*, cache_dir: Any = tmp_path / "modules", limits: Any = None, **options: Any) -> Supervisor:
        limits = limits or Limits(wall_s=60.0)
        made.append(Supervisor(cache_dir=cache_dir, limits=limits, spares=0, **options))
        return made[-1]

    yield make
    for each in reversed(made):
        each.close()


@pytest.fixture
def compilers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One item for each compiler that was asked for."""
    asked: list[int] = []
    spawn = ForkServer.spawn

    def counting(self: ForkServer, role: int, *args: Any, **options: Any) -> Any:
        if role == Role.COMPILER:
            asked.append(role)
        return spawn(self, role, *args, **options)

    monkeypatch.setattr(ForkServer, "spawn", counting)
    return asked
