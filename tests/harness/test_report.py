"""The report: it judges as it says, and a group that cannot be measured costs only itself."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest


@pytest.mark.parametrize(("bound", "met"), [(2.0, True), (1.999, False)])
def test_a_ratio_at_its_bar_meets_it_and_one_above_misses_it(build: Any, bound: float, met: bool) -> None:
    """The bar is the largest ratio that is good enough, of medians."""
    report = build({"a": [1.0, 4.0, 9.0], "b": [2.0, 1.0, 3.0]}, bar={"bound": bound, "source": "test"})
    (row,) = report["rows"]
    assert (row["ratio"], row["met"]) == (2.0, met)
    assert report["bars"] == {"met": int(met), "missed": int(not met), "unmeasured": 0}


@pytest.mark.parametrize(("bound", "met"), [(2.0, True), (2.001, False)])
def test_of_rates_a_bar_asks_for_at_least_as_much(build: Any, bound: float, met: bool) -> None:
    """The bar is the smallest ratio that is good enough."""
    report = build({"a": [4.0], "b": [2.0]}, unit="per_s", bar={"bound": bound, "source": "test", "least": True})
    assert report["rows"][0]["met"] is met


def test_a_bar_on_the_value_ignores_the_baseline(build: Any) -> None:
    """Deadlines and memory have bars in seconds and bytes."""
    report = build({"a": [5.0], "b": [1.0]}, bar={"bound": 5.0, "of": "value", "source": "test"})
    assert report["rows"][0]["met"] is True


def test_what_could_not_be_measured_is_neither_met_nor_missed(build: Any) -> None:
    """No figure, no verdict, and the reason is in the report."""
    report = build({"a": [], "b": []}, bar={"bound": 1.0, "source": "test"}, unmeasured={"group": "no such file"})
    (row,) = report["rows"]
    assert (row["value"], row["ratio"], row["met"]) == (None, None, None)
    assert report["bars"] == {"met": 0, "missed": 0, "unmeasured": 1}
    assert report["unmeasured"] == {"group": "no such file"}


def test_a_baseline_that_spreads_is_called_noise(build: Any) -> None:
    """More than 30 % of the median between the quartiles, and the report warns."""
    quiet = build({"a": [1.0] * 4, "b": [1.0, 1.0, 1.1, 1.1]})
    noisy = build({"a": [1.0] * 4, "b": [1.0, 1.0, 2.0, 2.0]})
    assert quiet["noise"] == []
    assert any("baseline b" in reason for reason in noisy["noise"])


def test_a_busy_machine_is_called_noise(harness: Any, build: Any) -> None:
    """Fewer than one and a half idle cores before it began."""
    cores = harness("machine").cores()
    assert build({"a": [1.0], "b": [1.0]}, load=max(cores - 1.5, 0.0))["noise"] == [] or cores == 1
    (reason,) = build({"a": [1.0], "b": [1.0]}, load=cores - 1.4)["noise"]
    assert "load average" in reason


def test_stolen_time_is_called_noise(harness: Any) -> None:
    """More than a hundredth of all CPU time."""
    machine = harness("machine")
    idle = (0.0, 0.0, 0.0)
    before = machine.Load(idle, stolen_s=1.0, total_s=100.0)
    for stolen, noisy in ((1.9, False), (2.1, True)):
        after = machine.Load(idle, stolen_s=stolen, total_s=200.0)
        assert any("hypervisor" in reason for reason in machine.noise(before, after, {})) is noisy


def test_a_high_percentile_is_a_sample_that_was_seen(harness: Any) -> None:
    """Nearest rank: p99 of 50 samples is their maximum, of 200 the second largest but one."""
    summary = harness("stats").summary
    assert summary([float(n) for n in range(1, 51)]).p99 == 50.0
    assert summary([float(n) for n in range(1, 201)]).p99 == 198.0
    assert summary([7.0]).p99 == summary([7.0]).p25 == 7.0


def test_whose_a_series_is_follows_from_the_rows_unless_it_says_so(harness: Any, assemble: Any) -> None:
    """The subject of a row is ours, what is only a baseline is not."""
    m = harness("measure")
    series = (m.Series("a", "a"), m.Series("b", "b"), m.Series("c", "c", side="ours"), m.Series("d", "d", side="peer"))
    rows = (m.Row("ab", "ab", "a", "b"), m.Row("dc", "dc", "d", "c"))
    group = m.Group("g", "g", series, rows, lambda: None, rounds=1, quick_rounds=1)
    report = assemble([group], {key: [1.0] for key in "abcd"})
    assert {key: entry["side"] for key, entry in report["series"].items()} == {
        "a": "ours",
        "b": "peer",
        "c": "ours",
        "d": "peer",
    }


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (7.449e-6, "s", "7.45 µs"),
        (9.996e-6, "s", "10.0 µs"),
        (99.97e-6, "s", "100 µs"),
        (-3e-4, "s", "-300 µs"),
        (2e-8, "s", "20.0 ns"),
        (12.0, "s", "12.0 s"),
        (0.0, "s", "0.00 µs"),
        (4 << 20, "bytes", "4.00 MiB"),
        (3 << 30, "bytes", "3.00 GiB"),
        (2048, "bytes", "2.00 KiB"),
        (912.4, "per_s", "912 /s"),
        (91_240, "per_s", "91.2 k/s"),
        (0.0048, "share", "0.48 %"),
        (98.0, "count", "98"),
        (None, "s", "–"),
    ],
)
def test_figures_have_three_digits_and_the_unit_that_suits(
    harness: Any, value: float | None, unit: str, text: str
) -> None:
    """As a person would write them."""
    assert harness("units").amount(value, unit) == text


class Recorder:
    """A group that notes how it was opened and what it was asked for."""

    def __init__(self, harness: Any, key: str = "g", **more: Any) -> None:
        m = harness("measure")
        self.events: list[str] = []
        self.sample: Callable[[], float] = lambda: 1.0
        series = (m.Series(f"{key}.a", "a"), m.Series(f"{key}.b", "b"))
        rows = (m.Row(f"{key}.row", "row", f"{key}.a", f"{key}.b"),)
        options = {"rounds": 9, "quick_rounds": 4, "warmup": 1} | more
        self.group = m.Group(key, f"title {key}", series, rows, self._open, **options)

    @contextlib.contextmanager
    def _open(self) -> Iterator[Sequence[Callable[[], Mapping[str, float]]]]:
        self.events.append("open")
        key = self.group.key

        def contender(name: str) -> Mapping[str, float]:
            self.events.append(name)
            return {f"{key}.{name}": self.sample()}

        try:
            yield (lambda: contender("a"), lambda: contender("b"))
        finally:
            self.events.append("close")


def go(harness: Any, recorders: Sequence[Recorder], *, quick: bool = False, rounds: int | None = None) -> Any:
    session = harness("session")
    plan = session.legs([r.group for r in recorders], quick=quick, rounds=rounds)
    return session.run(plan, budget_s=None, after_round=lambda _title: None, after_leg=lambda: None)


def test_contenders_take_turns_and_warm_up_each_time(harness: Any) -> None:
    """Three passes, each opened anew, each with a round that does not count; all rounds are shared out."""
    recorder = Recorder(harness, rounds=7)
    session = go(harness, [recorder])
    one = [["open", *["a", "b"] * (1 + rounds), "close"] for rounds in (3, 2, 2)]
    assert recorder.events == one[0] + one[1] + one[2]
    assert session.groups["g"].passes == [3, 2, 2]
    assert len(session.samples["g.a"]) == len(session.samples["g.b"]) == 7


def test_passes_go_through_all_groups_in_turn(harness: Any) -> None:
    """A slow minute falls on a part of each group; a fixed group is opened once, and quick runs open each once."""
    first, fixed = Recorder(harness, "first"), Recorder(harness, "fixed", fixed=True)
    session = harness("session")
    groups = [first.group, fixed.group]
    keys = [leg.group.key for leg in session.legs(groups, quick=False, rounds=None)]
    assert keys == ["first", "fixed", "first", "first"]
    quick = session.legs(groups, quick=True, rounds=None)
    assert [(leg.group.key, leg.rounds) for leg in quick] == [("first", 4), ("fixed", 9)]
    given = session.legs(groups, quick=True, rounds=2)
    assert [(leg.group.key, leg.rounds, leg.least) for leg in given] == [("first", 2, 2), ("fixed", 9, 9)]


def test_a_group_stops_when_its_time_is_up_but_not_before_it_has_enough(
    harness: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that each sample moves on: rounds are left out, the least number is taken, what others leave is used."""
    session = harness("session")
    now = 0.0
    # Theirs alone: other threads of this process have supervisors to look after, by the real one.
    for module in (session, harness("measure")):
        monkeypatch.setattr(module, "time", types.SimpleNamespace(monotonic=lambda: now))

    def takes(seconds: float) -> Callable[[], float]:
        def sample() -> float:
            nonlocal now
            now += seconds
            return 1.0

        return sample

    brisk, slow, fixed = (
        Recorder(harness, "brisk", passes=1),
        Recorder(harness, "slow", passes=1, least_rounds=3, rounds=100),
        Recorder(harness, "fixed", fixed=True, rounds=6),
    )
    brisk.sample, slow.sample, fixed.sample = takes(0.0), takes(1.0), takes(1.0)
    groups = [brisk.group, slow.group, fixed.group]

    def passes(budget_s: float) -> dict[str, list[int]]:
        plan = session.legs(groups, quick=False, rounds=None)
        done = session.run(plan, budget_s=budget_s, after_round=lambda _title: None, after_leg=lambda: None)
        return {key: taken.passes for key, taken in done.groups.items()}

    # 30 s: brisk leaves its ten; of the rest slow may use half: seven rounds of 2 s and the one that warms up.
    assert passes(30.0) == {"brisk": [9], "slow": [7], "fixed": [6]}
    assert passes(0.0) == {"brisk": [5], "slow": [3], "fixed": [6]}


def test_what_cannot_be_measured_is_left_out_of_later_passes_too(harness: Any) -> None:
    """Its reason is told; the other groups are measured all the same."""
    bad, good = Recorder(harness, "bad"), Recorder(harness, "good")
    unmeasurable = harness("measure").Unmeasurable

    def refuse() -> float:
        raise unmeasurable("not on this\nmachine")

    bad.sample = refuse
    session = go(harness, [bad, good])
    assert session.unmeasured == {"bad": "not on this machine"}
    assert session.failed == {}
    assert bad.events == ["open", "a", "close"]
    assert len(session.samples["good.a"]) == 9
    assert "bad.a" not in session.samples


def test_a_sample_that_is_no_number_is_a_failure(harness: Any) -> None:
    """It would only show when the report is written, after minutes."""
    bad = Recorder(harness, "bad")
    bad.sample = lambda: float("inf")
    session = go(harness, [bad])
    assert session.unmeasured == {"bad": "it failed: ValueError: a sample of bad.a is no finite number"}
    assert session.samples == {}


def test_a_group_that_fails_is_told_with_its_traceback(harness: Any) -> None:
    """Minutes of measuring are not lost for one group; nor is the failure."""
    bad, good = Recorder(harness, "bad"), Recorder(harness, "good")

    def fail() -> float:
        raise RuntimeError("1 + 2 gave 4")

    bad.sample = fail
    session = go(harness, [bad, good])
    assert session.unmeasured == {"bad": "it failed: RuntimeError: 1 + 2 gave 4"}
    assert "Traceback" in session.failed["bad"]
    assert len(session.samples["good.a"]) == 9
