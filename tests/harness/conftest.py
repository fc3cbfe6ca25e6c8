"""Reports made of samples that were made up: what the harness does with figures needs no measuring."""

from __future__ import annotations

import importlib
import io
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent

Build = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session", autouse=True)
def _fonts_stay_open() -> None:
    """matplotlib keeps the files of the fonts that it has used open: no test of ours has opened them."""
    canvas = pytest.importorskip(
        "matplotlib.backends.backend_svg", reason="needs matplotlib: pip install -e '.[bench]'"
    )
    figure = pytest.importorskip("matplotlib.figure").Figure()
    canvas.FigureCanvasSVG(figure)
    for weight in ("normal", "bold"):
        figure.text(0, 0, "text", fontfamily="DejaVu Sans", fontweight=weight)
    figure.savefig(io.BytesIO(), format="svg")


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Any:
    """harness(name): a module of the harness, imported in this process."""
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


MACHINE = {
    "cpu": "An Imagined CPU",
    "cores": 8,
    "memory_bytes": 16 << 30,
    "system": "Linux",
    "kernel": "6.1.0-test",
    "architecture": "x86_64",
    "governor": None,
    "virtual": False,
}
VERSIONS = {
    "python": "CPython 3.11.7",
    "pdsandbox": "0.1.0",
    "commit": "0123456789ab",
    "wasmtime": "50.0.1",
    "extism": None,
}


@pytest.fixture
def assemble(harness: Any) -> Build:
    """assemble(groups, samples, …): the report on them, from a quiet machine unless `load` says otherwise."""

    def make(
        groups: Sequence[Any],
        samples: Mapping[str, Sequence[float]],
        *,
        unmeasured: Mapping[str, str] | None = None,
        load: float = 0.0,
        passes: Sequence[int] = (100, 100, 100),
        quick: bool = False,
        machine: Mapping[str, Any] = MACHINE,
        versions: Mapping[str, Any] = VERSIONS,
    ) -> dict[str, Any]:
        session, report, host = harness("session"), harness("report"), harness("machine")
        taken = {
            group.key: session.Taken(
                planned=group.rounds,
                samples={s.key: list(samples[s.key]) for s in group.series if s.key in samples},
                passes=list(passes),
                duration_s=1.0,
            )
            for group in groups
        }
        moment = host.Load((load, load, load), 0.0, 1.0)
        made: dict[str, Any] = report.build(
            groups,
            session.Session(taken, unmeasured=dict(unmeasured or {})),
            machine=machine,
            versions=versions,
            before=moment,
            after=moment,
            date=datetime(2026, 1, 2, tzinfo=UTC),
            duration_s=1.0,
            quick=quick,
        )
        return made

    return make


@pytest.fixture
def build(harness: Any, assemble: Build) -> Build:
    """build(samples, …): the report on one row, subject "a" against baseline "b"; an empty list is not measured."""

    def make(
        samples: Mapping[str, Sequence[float]],
        *,
        unit: str = "s",
        statistic: str = "p50",
        chart: str = "bars",
        bar: Mapping[str, Any] | None = None,
        **facts: Any,
    ) -> dict[str, Any]:
        m = harness("measure")
        row = m.Row("row", "a row", "a", "b", statistic=statistic, bar=m.Bar(**bar) if bar else None)
        series = (m.Series("a", "the subject", unit), m.Series("b", "the baseline", unit))
        group = m.Group("group", "a group", series, (row,), lambda: None, rounds=9, quick_rounds=1, chart=chart)
        return assemble([group], samples, **facts)

    return make


@pytest.fixture
def made_up(harness: Any, assemble: Build) -> dict[str, Any]:
    """A report with all that there is: every unit and chart, bars met and missed, a group that was not measured."""
    m, chance = harness("measure"), random.Random(1)

    def around(middle: float, count: int = 30, spread: float = 0.1) -> list[float]:
        return [middle * chance.lognormvariate(0, spread) for _ in range(count)]

    def group(key: str, series: Sequence[Any], rows: Sequence[Any], **more: Any) -> Any:
        return m.Group(key, f"title of {key}", tuple(series), tuple(rows), lambda: None, 30, 5, **more)

    samples = {
        "ours.call": around(7e-6),
        "pool.call": around(3e-4),
        "plain.call": around(26e-6),
        "late.raised": around(9e-4, 500),
        "late.poll": around(2e-4, 500),
        "over.rss": around(2e6, 500, 0.8),
        "over.none": around(1e6, 500, 0.8),
        "rate.many": around(9e4),
        "rate.few": around(1e5),
        "cpu.idle": [0.004],
        "cpu.core": [1.0],
        "apart.difference": [-0.001, 0.002, 0.001],
        "apart.baseline": [0.004, 0.005, 0.004],
    }
    groups = [
        group(
            "others",
            (
                m.Series("ours.call", "Supervisor: instance.call()", short="ours, isolated"),
                m.Series("pool.call", "a pool", short="pool <of> processes"),
                m.Series("plain.call", "in-process & plain", short="in-process"),
            ),
            (
                m.Row("call.plain", "isolated call", "ours.call", "plain.call", bar=m.Bar(0.3, "issue 4")),
                m.Row("call.pool", "isolated call", "ours.call", "pool.call"),
            ),
            caption="What else one could do, 5 < 6.",
            hero=("ours.call", "pool.call", "plain.call"),
        ),
        group(
            "late",
            (
                m.Series("late.raised", "raised after the deadline"),
                m.Series("late.poll", "poll", short="poll(100 ms)"),
                m.Series("over.rss", "over its RSS", "bytes"),
                m.Series("over.none", "nothing over its RSS", "bytes"),
            ),
            (
                m.Row("late.p99", "late, p99", "late.raised", "late.poll", "p99", m.Bar(1e-5, "issue 2", of="value")),
                m.Row("over.max", "over, maximum", "over.rss", "over.none", statistic="max"),
            ),
            chart="distribution",
        ),
        group(
            "rates",
            (m.Series("rate.many", "32 workers", "per_s"), m.Series("rate.few", "2 workers", "per_s")),
            (m.Row("rate", "32 workers", "rate.many", "rate.few", bar=m.Bar(0.8, "issue 4", least=True)),),
        ),
        group(
            "idle",
            (m.Series("cpu.idle", "CPU of 50 workers", "share"), m.Series("cpu.core", "a core", "share")),
            (m.Row("idle", "idle", "cpu.idle", "cpu.core", bar=m.Bar(0.01, "issue 4", of="value")),),
        ),
        group(
            "apart",
            (m.Series("apart.difference", "with less without"), m.Series("apart.baseline", "without")),
            (m.Row("apart", "the difference", "apart.difference", "apart.baseline"),),
        ),
        group(
            "gone",
            (m.Series("gone.a", "what was not measured"), m.Series("gone.b", "its baseline")),
            (m.Row("gone", "not measured", "gone.a", "gone.b", bar=m.Bar(1.0, "issue 4")),),
        ),
    ]
    made: dict[str, Any] = assemble(groups, samples, unmeasured={"gone": "no such <file>"}, load=9.0)
    return made
