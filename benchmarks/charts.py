"""What goes into each chart of a report: marks, their order, their scale. Pure, and knows no group or row by name.

Every group gets a chart of its series, one for each unit among them. How it is drawn is `plot`'s business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from . import units

# Beyond this a linear axis shows the small ones as nothing.
_LOG_FROM = 20.0
# More dots than this hide each other.
_MOST_DOTS = 400

Side = Literal["ours", "peer", "met", "missed"]


@dataclass(frozen=True, slots=True)
class Mark:
    """One line of a chart: a median between quartiles, or a ratio on its own; `dots` are samples."""

    label: str
    side: Side
    middle: float
    low: float
    high: float
    text: str
    dots: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Chart:
    """kind "bounds": ratios to a bar, which is 1; `middle` is what share of it was used."""

    key: str
    kind: Literal["bars", "distribution", "bounds"]
    unit: str
    log: bool
    marks: tuple[Mark, ...]
    title: str = ""

    @property
    def direction(self) -> str:
        """Which way is better."""
        return "more is better" if self.unit in units.MORE_IS_BETTER else "less is better"

    @property
    def description(self) -> str:
        """The chart in words, for those who do not see it."""
        return "; ".join(f"{mark.label}: {mark.text}" for mark in self.marks)


def of_group(report: Mapping[str, Any], key: str) -> list[Chart]:
    """A group's charts, one a unit; none where nothing was measured."""
    return _by_unit(report, key, [name for name, entry in report["series"].items() if entry["group"] == key])


def hero(report: Mapping[str, Any]) -> Chart | None:
    """The chart that leads: the series that groups name for it, else those of the group that has most rivals."""
    named = [
        name
        for group in report["groups"].values()
        for name in group["hero"]
        if name in report["series"] and report["series"][name]["samples"]
    ]
    if not named:
        rivals = dict.fromkeys(report["groups"], 0)
        for entry in report["series"].values():
            rivals[entry["group"]] += entry["side"] == "peer" and entry["unit"] == "s"
        best = max(rivals, key=lambda group: rivals[group], default=None)
        named = [name for name, entry in report["series"].items() if entry["group"] == best]
    charts = _by_unit(report, "hero", named)
    return max(charts, key=lambda chart: len(chart.marks), default=None)


def of_bars(report: Mapping[str, Any]) -> Chart | None:
    """What share of its bar each row uses; none without bars. What does not make sense on a log axis stays out."""
    marks = []
    for row in report["rows"]:
        bar = row["bar"]
        judged = None if bar is None else row["ratio"] if bar["of"] == "ratio" else row["value"]
        if bar is None or judged is None or judged <= 0 or bar["bound"] <= 0:
            continue
        used = bar["bound"] / judged if bar["least"] else judged / bar["bound"]
        figure = units.ratio(judged) if bar["of"] == "ratio" else units.amount(judged, row["unit"])
        baseline = report["series"].get(row["baseline"])
        against = f" / {baseline['short'] if baseline else row['baseline']}" if bar["of"] == "ratio" else ""
        side: Side = "met" if row["met"] else "missed"
        text = f"{'✓' if row['met'] else '✗'} {figure} {units.bar(row)}"
        marks.append(Mark(row["title"] + against, side, used, used, used, text))
    return Chart("bounds", "bounds", "ratio", True, tuple(marks)) if marks else None


def labels(report: Mapping[str, Any]) -> dict[str, str]:
    """What a series is called in a chart: its short name, else as the first row about its median, else its title."""
    titles: dict[str, str] = {}
    for row in report["rows"]:
        if row["statistic"] == "p50":
            titles.setdefault(row["series"], row["title"])
    return {
        name: entry["short"] if entry["short"] != entry["title"] else titles.get(name, entry["title"])
        for name, entry in report["series"].items()
    }


def _by_unit(report: Mapping[str, Any], key: str, names: Sequence[str]) -> list[Chart]:
    called, found = labels(report), {name: report["series"][name] for name in names}
    charts = []
    for unit in dict.fromkeys(entry["unit"] for entry in found.values()):
        chosen = {name: entry for name, entry in found.items() if entry["unit"] == unit}
        group = report["groups"][next(iter(chosen.values()))["group"]]
        kind: Literal["bars", "distribution"] = "distribution" if group["chart"] == "distribution" else "bars"
        taken = [called[name] for name in chosen]
        marks = [
            _mark(entry, called[name] if taken.count(called[name]) == 1 else entry["title"], kind)
            for name, entry in chosen.items()
        ]
        marks.sort(key=lambda mark: mark.middle, reverse=unit in units.MORE_IS_BETTER)
        charts.append(Chart(f"{key}-{unit}", kind, unit, _is_log(marks), tuple(marks), group["title"]))
    return charts


def _mark(entry: Mapping[str, Any], label: str, kind: str) -> Mark:
    text = units.amount(entry["p50"], entry["unit"])
    dots: tuple[float, ...] = ()
    if kind == "distribution":
        dots = _thinned(entry["samples"])
        text = f"median {text}, p99 {units.amount(entry['p99'], entry['unit'])}"
    return Mark(label, entry["side"], entry["p50"], entry["p25"], entry["p75"], text, dots)


def _thinned(samples: Sequence[float]) -> tuple[float, ...]:
    """All, or as many evenly spread over their order; both extremes are among them. In the order they were taken."""
    if len(samples) <= _MOST_DOTS:
        return tuple(samples)
    order = sorted(range(len(samples)), key=lambda index: samples[index])
    step = (len(order) - 1) / (_MOST_DOTS - 1)
    return tuple(samples[index] for index in sorted(order[round(n * step)] for n in range(_MOST_DOTS)))


def _is_log(marks: Sequence[Mark]) -> bool:
    figures = [figure for mark in marks for figure in (mark.dots or (mark.middle,))]
    smallest, largest = min(figures), max(figures)
    return smallest > 0 and largest / smallest > _LOG_FROM and math.isfinite(largest / smallest)
