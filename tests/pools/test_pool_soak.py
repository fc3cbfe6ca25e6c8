"""The harness's soak (`python -m benchmarks soak`) for seconds instead of minutes: what it looks for, it looks for here
as well. How long anything takes is the harness's business."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent

pytestmark = [pytest.mark.deaths, pytest.mark.hammer]


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Any:
    """harness(name): a module of the harness, imported in this process."""
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def figures(found: Any) -> dict[str, Any]:
    """By title; what is not as it should be fails the test, but for times."""
    assert found.faults == []
    assert [figure for figure in found.figures if figure.met is False and figure.unit != "s"] == []
    return {figure.title: figure.value for figure in found.figures}


def test_deaths_under_load_lose_and_double_no_call_and_leave_nothing(harness):
    """By their time, their memory, native crashes, and SIGKILL at any moment."""
    found = figures(harness("deaths").soak(100, warm_up=20, threads=6, workers=3, seconds=90.0, kill_every=8, seed=1))
    assert found["workers that died"] >= 100
    assert {"calls without an end", "executions after the call's end"} <= found.keys()


@pytest.mark.orphans
def test_a_killed_fork_server_costs_the_running_calls_and_no_other(harness):
    """Killed when it serves, and again before it does; each running call has one error, and the next are answered."""
    found = figures(harness("outages").strike(1, threads=6, workers=3, seed=1))
    assert found["fork servers killed"] == 3


def test_swaps_under_load_fail_no_call(harness):
    """And each is answered by a version that may answer."""
    found = figures(harness("swaps").turn(2, pause_s=0.2, threads=6, workers=3, seed=1))
    assert (found["swaps"], found["… right"]) == (2, found["calls"])
