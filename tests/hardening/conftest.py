"""What the tests of the lock-down share: programs on machines of another kind, and supervisors that are closed."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from elsewhere import HERE, on_machine

from pdsandbox import Limits, Supervisor


@pytest.fixture(scope="session")
def machine() -> Callable[..., Any]:
    """machine("no-seccomp ordinary"): what `probe.py` saw there, the first time that it was asked for."""

    @functools.cache
    def run(conditions: str, hardening: str = "Hardening()") -> Any:
        ended = on_machine(conditions, str(HERE / "probe.py"), hardening)
        assert (ended.returncode, ended.stderr) == (0, "")
        return json.loads(ended.stdout)

    return run


@pytest.fixture
def make_supervisor() -> Iterator[Callable[..., Supervisor]]:
    """make_supervisor(hardening=…): a supervisor without spares, closed after the test."""
    made: list[Supervisor] = []

    def make(hardening: Any, **options: Any) -> Supervisor:
        made.append(Supervisor(hardening=hardening, limits=Limits(wall_s=60.0), spares=0, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()
