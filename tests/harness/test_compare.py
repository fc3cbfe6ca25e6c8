"""The comparison: it sees what changed, and never calls two runs of the same code a regression."""

from __future__ import annotations

import copy
import json
import math
import random
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Samples = dict[str, list[float]]


def drift(chance: random.Random, rounds: int) -> list[float]:
    """How slow the machine is in each round: phases of many rounds, up to twice as slow, as seen on shared machines."""
    slow, speeds = 1.0, []
    while len(speeds) < rounds:
        slow = chance.choice((1.0, 1.0, 1.3, 2.0))
        speeds += [slow] * chance.randint(5, 25)
    return speeds[:rounds]


def take(seed: int, *, factor: float = 1.0, rounds: int = 120, spread: float = 0.08) -> Samples:
    """A subject that takes 0.3 of its baseline, times `factor`; both are as slow as the machine is, more or less."""
    chance = random.Random(seed)
    speeds = drift(chance, rounds)
    return {
        "a": [7.5e-6 * factor * speed * chance.lognormvariate(0, spread) for speed in speeds],
        "b": [25e-6 * speed**0.9 * chance.lognormvariate(0, spread) for speed in speeds],
    }


def steady(seed: int, *, factor: float = 1.0) -> Samples:
    """300 rounds on a quiet machine."""
    chance = random.Random(seed)
    return {
        "a": [factor * chance.lognormvariate(0, 0.04) for _ in range(300)],
        "b": [chance.lognormvariate(0, 0.04) for _ in range(300)],
    }


@pytest.fixture
def judge(harness: Any, build: Any) -> Callable[..., Any]:
    """judge(old, new, …): the comparison's only row, of reports on these samples."""

    def compare(old: Samples, new: Samples, **options: Any) -> Any:
        comparison = harness("comparing").compare(build(old, **options), build(new, **options))
        (change,) = comparison.changes
        return change

    return compare


def test_a_report_is_the_same_as_itself(harness: Any, made_up: dict[str, Any]) -> None:
    """Whatever is in it; what has no figures is not judged."""
    comparison = harness("comparing").compare(made_up, copy.deepcopy(made_up))
    verdicts = {change.key: change.verdict for change in comparison.changes}
    unjudged = {key for key, verdict in verdicts.items() if verdict == "unjudged"}
    assert unjudged == {"idle", "apart", "gone"}  # one sample, three, none
    assert set(verdicts.values()) == {"same", "unjudged"}
    assert all(change.why for change in comparison.changes if change.verdict == "unjudged")


def test_two_runs_of_the_same_code_are_the_same(judge: Any) -> None:
    """Forty times over, on a machine that is up to twice as slow for a while, in either run."""
    for seed in range(40):
        change = judge(take(2 * seed), take(2 * seed + 1))
        assert change.verdict == "same", (seed, change)


def test_sixty_rows_of_the_same_code_are_the_same(harness: Any, assemble: Any) -> None:
    """Among many rows some look significant by chance alone; heavy tails and few rounds among them."""
    m = harness("measure")

    def report(seed: int) -> Any:
        groups, samples = [], {}
        for number in range(20):
            taken = take(1000 * seed + number, rounds=30 + 10 * number, spread=0.05 + 0.02 * number)
            taken["t"] = [value * random.Random(seed).paretovariate(3) for value in taken["a"]]
            keys = {name: f"{name}{number}" for name in taken}
            samples |= {keys[name]: values for name, values in taken.items()}
            rows = (
                m.Row(f"middle{number}", "middle", keys["a"], keys["b"]),
                m.Row(f"mean{number}", "mean", keys["t"], keys["b"], statistic="mean"),
                m.Row(f"tail{number}", "tail", keys["t"], keys["b"], statistic="p99"),
            )
            series = tuple(m.Series(key, key) for key in keys.values())
            groups.append(m.Group(f"g{number}", f"g{number}", series, rows, lambda: None, 1, 1))
        return assemble(groups, samples)

    for seed in range(3):
        comparison = harness("comparing").compare(report(2 * seed), report(2 * seed + 1))
        assert len(comparison.changes) == 60
        assert not comparison.worse


@pytest.mark.parametrize(("factor", "verdict"), [(1.4, "worse"), (1 / 1.4, "better"), (1.02, "same")])
@pytest.mark.parametrize("unit", ["s", "bytes", "share", "per_s", "count"])
def test_what_changed_is_seen_in_the_right_direction(judge: Any, unit: str, factor: float, verdict: str) -> None:
    """Less is better, except of rates and counts; 2 % is nothing."""
    more = unit in ("per_s", "count")
    change = judge(take(1), take(2, factor=1 / factor if more else factor), unit=unit)
    assert change.verdict == verdict
    if verdict == "worse" and not more:
        assert 0.3 < change.change < 0.5


def test_a_steady_row_shows_a_tenth(judge: Any) -> None:
    """On a quiet machine, with as many rounds as a full run takes."""
    assert judge(steady(1), steady(2, factor=1.1)).verdict == "worse"
    assert judge(steady(1, factor=1.1), steady(2)).verdict == "better"
    assert judge(steady(1), steady(2, factor=1.03)).verdict == "same"  # significant, but too little to count


def test_a_machine_twice_as_slow_changes_nothing(judge: Any) -> None:
    """It is the ratio to the baseline that counts."""
    slow = {key: [2 * value for value in values] for key, values in take(2).items()}
    assert judge(take(1), slow).verdict == "same"


def test_noise_widens(harness: Any, build: Any) -> None:
    """8 % count on a quiet machine, not on a noisy one, nor in a run of one pass; both are said."""
    compare, samples = harness("comparing").compare, [steady(1), steady(2, factor=1.08)]
    for options, least, worse, note in (
        ({}, 0.05, 1, ""),
        ({"load": 1e6}, 0.20, 0, "NEW was measured on a noisy machine, beside other programs"),
        ({"passes": [300]}, 0.20, 0, "NEW went through its groups once"),
        ({"load": 1e6, "passes": [300]}, 0.80, 0, "NEW went through its groups once"),
    ):
        comparison = compare(build(samples[0]), build(samples[1], **options))
        assert comparison.least == pytest.approx(least)
        assert len(comparison.worse) == worse
        assert note in "\n".join(comparison.notes)


def test_passes_that_differ_are_noise(harness: Any, build: Any) -> None:
    """A third of a run in which a worker lies badly in memory: 15 % more over the whole are no change of the code."""
    compare, old, new = harness("comparing").compare, steady(1), steady(2)
    for number in range(300):
        new["a"][number] *= (1.0, 1.15, 1.45)[number // 100]
    whole = harness("significance").ratio(new["a"], new["b"], "p50", ())
    parted = harness("significance").ratio(new["a"], new["b"], "p50", (100, 100, 100))
    assert parted.error >= whole.error
    assert not compare(build(old), build(new)).worse
    new = steady(2, factor=1.15)
    assert compare(build(old), build(new)).worse


def test_a_heavier_tail_is_seen_and_a_lucky_one_is_not(judge: Any) -> None:
    """p99 and maximum rest on few samples: one outlier is nothing, many are a change."""
    chance = random.Random(5)
    base = [chance.lognormvariate(0, 0.1) for _ in range(200)]
    old = {"a": base, "b": [1.0] * 200}
    one = {"a": [*base[:-1], 50.0], "b": [1.0] * 200}
    many = {"a": [value * (8 if number % 8 == 0 else 1) for number, value in enumerate(base)], "b": [1.0] * 200}
    for statistic in ("p99", "max"):
        assert judge(old, one, statistic=statistic).verdict == "same"
        assert judge(old, many, statistic=statistic).verdict == "worse"
        assert judge(many, old, statistic=statistic).verdict == "better"
    # The baseline's own tail grew as much: that was the machine.
    many["b"] = [8.0 if number % 8 == 0 else 1.0 for number in range(200)]
    assert judge(old, many, statistic="p99").verdict == "same"


def test_differences_around_zero_are_compared_without_logarithms(judge: Any) -> None:
    """A difference of two series may be negative; a clear one is still seen."""

    def around(middle: float, seed: int) -> Samples:
        chance = random.Random(seed)
        return {"a": [middle + chance.gauss(0, 0.5) for _ in range(200)], "b": [1.0] * 200}

    assert judge(around(0.05, 1), around(0.06, 2)).verdict == "same"
    assert judge(around(-0.01, 1), around(0.01, 2)).verdict == "same"
    assert judge(around(-0.5, 3), around(-1.5, 4)).verdict == "better"


def test_rows_of_one_report_only_and_other_circumstances_are_noted(
    harness: Any, build: Any, made_up: dict[str, Any]
) -> None:
    """Missing rows, machine, versions, schema, bars."""
    compare = harness("comparing").compare
    comparison = compare(made_up, build({"a": [1.0], "b": [1.0]}))
    assert comparison.changes == ()
    whole = "\n".join(comparison.notes)
    assert "only in OLD: call.plain, call.pool" in whole
    assert "only in NEW: row" in whole
    other = copy.deepcopy(made_up)
    other["machine"]["cpu"], other["machine"]["kernel"] = "Another CPU", "7.0"
    other["versions"]["wasmtime"], other["versions"]["extism"] = "51.0.0", "1.1.1"
    other["rows"][0]["met"] = not other["rows"][0]["met"]
    other["schema"] = 2
    comparison = compare(made_up, other)
    whole = "\n".join(comparison.notes)
    for part in (
        "not the same machine (cpu)",
        "kernel: 6.1.0-test, then 7.0",
        "wasmtime: 50.0.1, then 51.0.0",
        "extism: none, then 1.1.1",
        "schema: 3, then 2",
        "the bar of call.plain:",
    ):
        assert part in whole
    assert comparison.least > compare(made_up, made_up).least


def test_a_row_that_means_something_else_now_is_not_judged(harness: Any, build: Any) -> None:
    """Another statistic or unit under the same key, or no figures in one of them."""
    compare, samples = harness("comparing").compare, take(1)
    for options in ({"statistic": "mean"}, {"unit": "bytes"}):
        (change,) = compare(build(samples), build(samples, **options)).changes
        assert change.verdict == "unjudged"
        assert next(iter(options)) in change.why
    (change,) = compare(build(samples), build({"a": [], "b": []}, unmeasured={"group": "gone"})).changes
    assert (change.verdict, change.why) == ("unjudged", "no ratio in NEW")


def test_the_answer_is_the_same_each_time(harness: Any, build: Any) -> None:
    """Resampling is seeded."""
    old, new = build(take(1)), build(take(2, factor=1.2))
    compare = harness("comparing").compare
    assert compare(old, new) == compare(old, new)


def test_probabilities_are_those_of_the_books(harness: Any) -> None:
    """Student's distribution from printed tables; hypergeometric counts by hand; the error of a mean by theory."""
    significance = harness("significance")
    for freedom, point in ((1, 12.706), (5, 2.571), (14, 2.145), (30, 2.042), (1000, 1.962)):
        assert significance.by_chance(point, 1.0, freedom) == pytest.approx(0.05, rel=2e-3)
        assert significance.reach(1.0, freedom, 0.05) == pytest.approx(point, rel=1e-3)
    assert significance.by_chance(0.0, 0.0, 5) == 1.0
    assert significance.by_chance(1.0, 0.0, 5) == 0.0
    # All four samples above the mark come from one run of four: 1 in C(8, 4), either run.
    assert significance.beyond_by_chance([5, 6, 7, 8], [1, 2, 3, 4], 4) == pytest.approx(2 / math.comb(8, 4))
    assert significance.beyond_by_chance([1, 2], [1, 2], 2) == 1.0
    assert significance.step_down([0.04, 0.001, 0.02], 0.05) == [True, True, True]
    assert significance.step_down([0.03, 0.001, 0.03], 0.05) == [False, True, False]
    chance = random.Random(1)
    samples = [1 + 0.1 * chance.random() for _ in range(400)]
    estimate = significance.ratio(samples, [1.0] * 400, "mean")
    assert estimate.error == pytest.approx(statistics.stdev(samples) / 20 / statistics.mean(samples), rel=0.35)


@pytest.fixture
def invoke(harness: Any, tmp_path: Path) -> Callable[..., Any]:
    """invoke(command, *reports or texts): the finished command, each given as a file."""
    from click.testing import CliRunner

    def run(command: str, *contents: Any, options: tuple[str, ...] = ()) -> Any:
        files = []
        for number, content in enumerate(contents):
            path = tmp_path / f"{number}.json"
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            path.write_bytes(data)
            files.append(str(path))
        return CliRunner().invoke(harness("app").cli, [command, *options, *files])

    return run


def test_exit_status_and_words_of_the_command(invoke: Any, build: Any) -> None:
    """0 for the same and for better, 1 for worse, 2 where nothing can be compared."""
    old, slower = build(take(1)), build(take(2, factor=1.6))
    for before, after, status, word in (
        (old, old, 0, "1 the same"),
        (old, slower, 1, "1 worse"),
        (slower, old, 0, "1 better"),
    ):
        done = invoke("compare", before, after)
        assert (done.exit_code, word in done.output) == (status, True), done.output
    assert invoke("compare", old, slower, options=("--least", "900")).exit_code == 0
    strange = build(take(1))
    strange["rows"][0]["key"] = "another"
    done = invoke("compare", old, strange)
    assert done.exit_code == 2
    assert "no row in common" in done.output


def test_reports_of_the_schema_before_can_be_compared(invoke: Any, build: Any) -> None:
    """They lack what this one added, and the comparison says so."""
    old = build(take(1))
    old["schema"] = 2
    del old["groups"]
    for entry in old["series"].values():
        del entry["side"]
    done = invoke("compare", old, build(take(2)))
    assert done.exit_code == 0, done.output
    assert "schema: 2, then 3" in done.output
