"""The harness: its report is whole, and judges as it says. What the figures are is nobody's business here."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import math
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("click", reason="the harness needs click: pip install -e '.[bench]'")
pytest.importorskip("rich", reason="the harness needs rich: pip install -e '.[bench]'")

ROOT = Path(__file__).parent.parent
# What is measured takes some 45 s; a busy machine may need many times that.
PATIENCE_S = 300
pytestmark = pytest.mark.timeout(PATIENCE_S + 20)

# key: whether an issue sets it a bar
ROWS = {
    "memory.pss.max": True,
    "memory.pss.mean": False,
    "memory.uss.mean": False,
    "ramp.fit": False,
    "ramp.each": False,
    "ramp.start": False,
    "call.wasmtime": True,
    "call_ints.wasmtime": True,
    "func.wasmtime": True,
    "call.pipe_spin": True,
    "func.pipe_spin": False,
    "call.pipe_block": False,
    "func.pipe_block": False,
    "call_many.wasmtime": True,
    "call.hardening": True,
    "local_call_ints.wasmtime": True,
    "local_call.wasmtime": False,
    "local_func.wasmtime": False,
    "onecore_call.pipe": False,
    "onecore_func.pipe": False,
    "onecore_call.wasmtime": False,
    "spaced_call.pipe": True,
    "spaced_func.pipe": False,
    "spaced_call.naive": False,
    "spaced_call.wasmtime": False,
    "host_worker.wasmtime": True,
    "host_supervisor.pipe_spin": True,
    "host_supervisor.pipe_block": False,
    "host_supervisor.wasmtime": False,
    "host_log.pipe_spin": False,
    "host_log.wasmtime": False,
    "host_local.wasmtime": False,
    "bulk_read_1KiB.process_vm": False,
    "bulk_write_1KiB.process_vm": False,
    "bulk_read_64KiB.process_vm": False,
    "bulk_write_64KiB.process_vm": False,
    "bulk_read_1MiB.process_vm": True,
    "bulk_write_1MiB.process_vm": True,
    "bulkpipe_read_1KiB.pipe": False,
    "bulkpipe_write_1KiB.pipe": False,
    "bulkpipe_read_64KiB.pipe": False,
    "bulkpipe_write_64KiB.pipe": False,
    "bulkpipe_read_1MiB.pipe": True,
    "bulkpipe_write_1MiB.pipe": True,
    "start_cold.python": True,
    "start_cold_off.python": True,
    "start.lockdown": True,
    "start_spare.python": True,
    "deadline.p99": True,
    "deadline.p50": False,
    "deadline.max": False,
    "deadline.ended.p99": False,
    "deadline.loaded.p50": False,
    "deadline.loaded.p99": False,
    "deadline.loaded.max": False,
    "compile_small.wasmtime": False,
    "compile_large.wasmtime": False,
    "compile_real.wasmtime": False,
    "compile_cached.wasmtime": False,
    "compile_cached.deserialize": False,
    "peer.wasmtime": False,
    "peer.extism": False,
    "peer.extism_limited": False,
    "peer.pipe": False,
    "peer.pool": False,
    "peer.pebble": False,
    "peer.futures": False,
    "peer.loky": False,
    "peerstart.wasmtime": False,
    "peerstart.extism": False,
    "peerstart.pipe_fork": False,
    "peerstart.pebble_fork": False,
    "peerstart.futures_fork": False,
    "peerstart.futures_spawn": False,
    "peerstart.loky": False,
    "peerstart.script": False,
    "peerstart_supervisor.futures_spawn": False,
    "peerstart_supervisor.script": False,
    "guest.wasmtime": True,
    "profile.worker.neither": False,
    "profile.worker.fuel": False,
    "profile.plain.fuel": False,
    "profile.worker.epochs": False,
    "profile.plain.epochs": False,
    "profile.worker.both": False,
    "profile.plain.both": False,
    "pair.throughput": True,
    "crowd.throughput": True,
    "idle.cpu": True,
    "rss.p50": False,
    "rss.p99": False,
    "rss.max": False,
    "work.hash": False,
    "work.terminal": False,
    "work.interpreter": False,
    "work.image": False,
    "compile_cold.vt100": False,
    "compile_cached.vt100": False,
    "compile_cold.micropython": False,
    "compile_cached.micropython": False,
    "compile_cold.htj2k": False,
    "compile_cached.htj2k": False,
}
# What a group takes as many samples of as it likes, whatever `--rounds` says; compiled cold is once per opening.
FIXED = {"memory": 20, "ramp": 10}
ONCE = ("compile.cold.", "compile.plain.")
SUMMARY = {"n", "mean", "min", "p25", "p50", "p75", "p90", "p99", "max"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One quick run with two rounds of everything."""
    path = tmp_path_factory.mktemp("benchmarks") / "report.json"
    done = run("--quick", "--rounds", "2", "--json", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bars met" in done.stdout
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def test_the_report_names_its_schema_and_what_it_was_measured_on(report: dict[str, Any]) -> None:
    """Kind, version, date in UTC, machine, versions and load average are there."""
    assert (report["kind"], report["schema"], report["quick"]) == ("pdsandbox-benchmarks", 3, True)
    assert report["date"].endswith("+00:00")
    assert report["machine"]["cpu"]
    assert report["machine"]["cores"] >= 1
    assert {"kernel", "system", "memory_bytes"} <= report["machine"].keys()
    assert report["versions"]["python"].endswith(".".join(map(str, sys.version_info[:2])) + f".{sys.version_info[2]}")
    assert report["versions"]["wasmtime"] == importlib.metadata.version("wasmtime")
    assert len(report["load"]["average_before"]) == len(report["load"]["average_after"]) == 3
    assert all(isinstance(reason, str) for reason in report["noise"])


def test_every_row_stands_beside_its_baseline(report: dict[str, Any]) -> None:
    """All rows are there, each with value, baseline and ratio from series of the same run."""
    assert [row["key"] for row in report["rows"]] == list(ROWS)
    assert report["unmeasured"] == {}
    for row in report["rows"]:
        subject, baseline = report["series"][row["series"]], report["series"][row["baseline"]]
        assert subject["group"] == baseline["group"] == row["group"]
        assert subject["unit"] == baseline["unit"] == row["unit"]
        assert row["value"] == subject[row["statistic"]]
        assert row["baseline_value"] == baseline[row["statistic"]]
        assert row["ratio"] == pytest.approx(row["value"] / row["baseline_value"])


def test_every_series_has_all_its_samples(report: dict[str, Any]) -> None:
    """As many samples as rounds, or as its group says; all positive but differences; and their summary."""
    used = {key for row in report["rows"] for key in (row["series"], row["baseline"])}
    assert used <= report["series"].keys()
    for key, series in report["series"].items():
        assert series.keys() >= SUMMARY | {"title", "short", "unit", "samples"}
        rounds = 1 if key.startswith(ONCE) else FIXED.get(series["group"], 2)
        assert series["n"] == len(series["samples"]) == rounds, key
        assert all(math.isfinite(sample) for sample in series["samples"]), key
        assert key == "start.lockdown" or min(series["samples"]) > 0, key
        assert series["min"] <= series["p25"] <= series["p50"] <= series["p75"] <= series["p99"] <= series["max"]


def test_each_bar_is_judged(report: dict[str, Any]) -> None:
    """A row has a verdict exactly if it has a bar, and the verdicts add up."""
    assert {row["key"]: row["bar"] is not None for row in report["rows"]} == ROWS
    for row in report["rows"]:
        bar = row["bar"]
        judged = None if bar is None else row["ratio"] if bar["of"] == "ratio" else row["value"]
        assert row["met"] == (
            None if bar is None else bool(judged >= bar["bound"] if bar["least"] else judged <= bar["bound"])
        )
    assert sum(report["bars"].values()) == sum(ROWS.values())
    assert report["bars"]["unmeasured"] == 0


def test_a_report_that_cannot_be_written_fails_before_measuring(tmp_path: Path) -> None:
    """A wrong path is a usage error at once, not after minutes."""
    done = run("--json", str(tmp_path / "missing" / "report.json"))
    assert done.returncode == 2
    assert "No such file or directory" in done.stderr


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Any:
    """harness(name): a module of the harness, imported in this process."""
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def judge(harness: Any, samples: dict[str, list[float]], **bar: Any) -> dict[str, Any]:
    """The report on one made-up row, subject "a" against baseline "b", on a quiet machine."""
    measure, machine, report, session = (harness(name) for name in ("measure", "machine", "report", "session"))
    row = measure.Row("row", "a row", "a", "b", bar=measure.Bar(**bar) if bar else None)
    series = (measure.Series("a", "subject"), measure.Series("b", "baseline"))
    group = measure.Group("group", "a group", series, (row,), lambda: None, rounds=1, quick_rounds=1)
    quiet = machine.Load((0.0, 0.0, 0.0), 0.0, 1.0)
    made: dict[str, Any] = report.build(
        [group],
        session.Session(
            {"group": session.Taken(planned=1, samples=samples, passes=[1])},
            unmeasured={} if samples["a"] else {"group": "no such file"},
        ),
        machine={},
        versions={},
        before=quiet,
        after=quiet,
        date=datetime.now(UTC),
        duration_s=1.0,
        quick=False,
    )
    return made


@pytest.mark.parametrize(("bound", "met"), [(2.0, True), (1.999, False)])
def test_a_ratio_at_its_bar_meets_it_and_one_above_misses_it(harness: Any, bound: float, met: bool) -> None:
    """The bar is the largest ratio that is good enough, of medians."""
    report = judge(harness, {"a": [1.0, 4.0, 9.0], "b": [2.0, 1.0, 3.0]}, bound=bound, source="test")
    (row,) = report["rows"]
    assert (row["ratio"], row["met"]) == (2.0, met)
    assert report["bars"] == {"met": int(met), "missed": int(not met), "unmeasured": 0}


def test_a_bar_on_the_value_ignores_the_baseline(harness: Any) -> None:
    """Deadlines and memory have bars in seconds and bytes."""
    report = judge(harness, {"a": [5.0], "b": [1.0]}, bound=5.0, of="value", source="test")
    assert report["rows"][0]["met"] is True


def test_what_could_not_be_measured_is_neither_met_nor_missed(harness: Any) -> None:
    """No figure, no verdict, and the reason is in the report."""
    report = judge(harness, {"a": [], "b": []}, bound=1.0, source="test")
    (row,) = report["rows"]
    assert (row["value"], row["ratio"], row["met"]) == (None, None, None)
    assert report["bars"] == {"met": 0, "missed": 0, "unmeasured": 1}
    assert report["unmeasured"] == {"group": "no such file"}


def test_a_baseline_that_spreads_is_called_noise(harness: Any) -> None:
    """More than 30 % of the median between the quartiles, and the report warns."""
    quiet = judge(harness, {"a": [1.0] * 4, "b": [1.0, 1.0, 1.1, 1.1]})
    noisy = judge(harness, {"a": [1.0] * 4, "b": [1.0, 1.0, 2.0, 2.0]})
    assert not any("baseline b" in reason for reason in quiet["noise"])
    assert any("baseline b" in reason for reason in noisy["noise"])


def test_a_high_percentile_is_a_sample_that_was_seen(harness: Any) -> None:
    """Nearest rank: p99 of 50 samples is their maximum, of 200 the second largest but one."""
    summary = harness("stats").summary
    assert summary([float(n) for n in range(1, 51)]).p99 == 50.0
    assert summary([float(n) for n in range(1, 201)]).p99 == 198.0
    assert summary([7.0]).p99 == summary([7.0]).p25 == 7.0
