"""What changed between two reports beyond noise. Pure, and gives the same answer each time.

A row is compared by its ratio to its baseline, so that a machine that is slower today cancels out. It has changed when
the change is large enough (`least`, or some times that where the runs deserve distrust) and significant: at 1 % for all
rows together, since among sixty rows one in a hundred looks significant by chance alone. Tails (p99, maximum) rest on a
few samples whose spread nobody knows: they have changed when more of one run's samples lie beyond the other's tail than
chance would put there, and by far more than medians must.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from . import significance
from .machine import LEAST_FREE_CORES
from .stats import nearest_rank, quartiles
from .units import MORE_IS_BETTER

# Of a false alarm anywhere in a comparison of two runs of the same code.
_ALPHA = 0.01
# What is called the wobble of one row on its own.
_ALPHA_ROW = 0.01
# Of the same code, p99 and maximum varied by half from run to run where medians varied by 5 %.
_TAIL_FACTOR = 10.0
# A quick run measures a group for some seconds: what lasts longer cannot show within it. Two of the same code, one
# beside other programs, differed by 30 % in three rows of a hundred.
_ONE_PASS = 4.0
_TAILS = {"p99": 0.99, "max": 1.0}
_SAME_FIELDS = ("series", "baseline", "statistic", "unit")

Verdict = Literal["worse", "better", "same", "unjudged"]


@dataclass(frozen=True, slots=True)
class Change:
    """One row of both reports. old, new: ratios as they are compared, which are not quite the report's: of medians the
    median of the rounds' own ratios, of tails the ratio to the baseline's median. change: as a share of the old; None
    where there is none. wobble: how large a change noise alone would make, as a share; why: why it was not judged."""

    key: str
    title: str
    group: str
    baseline: str
    old: float | None
    new: float | None
    verdict: Verdict = "unjudged"
    change: float | None = None
    wobble: float | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows that both reports have, and what to know beside them. least: the change that counts, as a share."""

    changes: tuple[Change, ...]
    notes: tuple[str, ...]
    least: float

    @property
    def worse(self) -> list[Change]:
        """The regressions."""
        return [change for change in self.changes if change.verdict == "worse"]


@dataclass(frozen=True, slots=True)
class _Judged:
    """What speaks for a change, before it is known how many rows there are: how likely it is by chance alone, and
    whether it is large enough to count."""

    old: float
    new: float
    change: float
    wobble: float
    chance: float
    counts: bool


class _CannotJudge(Exception):
    """A row cannot be judged; the text says why."""


def compare(old: Mapping[str, Any], new: Mapping[str, Any], *, least: float = 0.05) -> Comparison:
    """Compare two reports, as `reading.parse` gives them."""
    factor, notes = _distrust(old, new)
    before = {row["key"]: row for row in old["rows"]}
    after = {row["key"]: row for row in new["rows"]}
    changes: list[Change] = []
    judged: dict[int, _Judged] = {}
    for key, row in after.items():
        if key not in before:
            continue
        baseline = new["series"].get(row["baseline"])
        change = Change(
            key,
            row["title"],
            new["groups"][row["group"]]["title"],
            baseline["short"] if baseline else row["baseline"],
            before[key]["ratio"],
            row["ratio"],
        )
        try:
            judged[len(changes)] = _judge((before[key], old), (row, new), least * factor)
        except _CannotJudge as exc:
            change = replace(change, why=str(exc))
        changes.append(change)
    significant = significance.step_down([found.chance for found in judged.values()], _ALPHA)
    for (index, found), is_significant in zip(judged.items(), significant, strict=True):
        verdict: Verdict = "same"
        if is_significant and found.counts:
            less_is_better = after[changes[index].key]["unit"] not in MORE_IS_BETTER
            verdict = "worse" if (found.change > 0) == less_is_better else "better"
        changes[index] = replace(
            changes[index],
            verdict=verdict,
            old=found.old,
            new=found.new,
            change=found.change,
            wobble=found.wobble,
        )
    return Comparison(tuple(changes), (*notes, *_differences(before, after)), least * factor)


def _judge(old: tuple[Mapping[str, Any], Any], new: tuple[Mapping[str, Any], Any], least: float) -> _Judged:
    """Judge a row of each of two reports."""
    rows = (old[0], new[0])
    for name, row in zip(("OLD", "NEW"), rows, strict=True):
        if row["ratio"] is None:
            raise _CannotJudge(f"no ratio in {name}")
    for field in _SAME_FIELDS:
        if rows[0][field] != rows[1][field]:
            raise _CannotJudge(f"another {field} in each")
    samples = []
    for row, report in (old, new):
        pair = [report["series"].get(row[name]) for name in ("series", "baseline")]
        if None in pair:
            raise _CannotJudge("no samples")
        samples.append([entry["samples"] for entry in pair])
    if min(len(values) for pair in samples for values in pair) < significance.FEWEST:
        raise _CannotJudge(f"fewer than {significance.FEWEST} samples")
    statistic = rows[1]["statistic"]
    if statistic in _TAILS:
        return _judge_tail(samples, _TAILS[statistic], least * _TAIL_FACTOR)
    passes = [report["groups"][row["group"]]["passes"] for row, report in (old, new)]
    return _judge_middle(samples, passes, statistic, least)


def _judge_middle(
    samples: Sequence[Sequence[Sequence[float]]], passes: Sequence[Sequence[int]], statistic: Any, least: float
) -> _Judged:
    before, after = (
        significance.ratio(subject, baseline, statistic, parts)
        for (subject, baseline), parts in zip(samples, passes, strict=True)
    )
    if before is None or after is None or (not before.logarithm and not before.value):
        raise _CannotJudge("a ratio to zero")
    if before.logarithm != after.logarithm:
        raise _CannotJudge("around zero in one of them")
    distance = after.value - before.value
    error, freedom = significance.difference(before, after)
    chance = significance.by_chance(distance, error, freedom)
    reach = significance.reach(error, freedom, _ALPHA_ROW)
    if before.logarithm:
        counts = abs(distance) >= math.log1p(least)
        old, new = math.exp(before.value), math.exp(after.value)
        return _Judged(old, new, math.expm1(distance), math.expm1(min(reach, 100.0)), chance, counts)
    share = distance / abs(before.value)  # a difference that noise carries over zero
    return _Judged(before.value, after.value, share, reach / abs(before.value), chance, abs(share) >= least)


def _judge_tail(samples: Sequence[Sequence[Sequence[float]]], share: float, least: float) -> _Judged:
    """Samples in units of their baseline's median. What happened to the baseline's own tail, the machine did: twice
    that much does not count."""
    tails, bases, runs = [], [], []
    for subject, baseline in samples:
        _, middle, _ = quartiles(baseline)
        if middle <= 0:
            raise _CannotJudge("a ratio to zero")
        run = sorted(value / middle for value in subject)
        runs.append(run)
        tails.append(nearest_rank(run, share))
        bases.append(nearest_rank(sorted(baseline), share) / middle)
    if min(tails) <= 0:
        raise _CannotJudge("around zero in one of them")
    distance = math.log(tails[1] / tails[0])
    lower, higher = (0, 1) if distance >= 0 else (1, 0)
    chance = significance.beyond_by_chance(runs[higher], runs[lower], tails[lower])
    wobble = max(math.log1p(least), 2 * abs(math.log(bases[1] / bases[0])))
    return _Judged(tails[0], tails[1], math.expm1(distance), math.expm1(wobble), chance, abs(distance) >= wobble)


def _distrust(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[float, list[str]]:
    """(by what to multiply the change that counts, what to say)."""
    factor, notes = 1.0, []
    for name, report in (("OLD", old), ("NEW", new)):
        if report["noise"]:
            beside = f", beside other programs (load average {_load(report):.2f})" if _busy(report) else ""
            notes.append(f"{name} was measured on a noisy machine{beside}")
        if _one_pass(report):
            notes.append(f"{name} went through its groups once: a slow minute may have been one group's alone")
    if old["noise"] or new["noise"]:
        factor *= 2
    if _busy(old) or _busy(new):
        factor *= 2  # contenders need one core or two: where others take them, not all slow down alike
    if _one_pass(old) or _one_pass(new):
        factor *= _ONE_PASS
    differing = [name for name in ("cpu", "cores", "architecture", "virtual") if _differ(old, new, "machine", name)]
    if differing:
        factor *= 2
        notes.append(f"not the same machine ({', '.join(differing)}): ratios carry over only roughly")
    if old["schema"] != new["schema"]:
        notes.append(f"schema: {old['schema']}, then {new['schema']}")
    if _differ(old, new, "machine", "kernel"):
        notes.append(f"kernel: {old['machine']['kernel']}, then {new['machine']['kernel']}")
    notes += [
        f"{name}: {old['versions'].get(name) or 'none'}, then {new['versions'].get(name) or 'none'}"
        for name in dict.fromkeys((*old["versions"], *new["versions"]))
        if _differ(old, new, "versions", name)
    ]
    return factor, notes


def _load(report: Mapping[str, Any]) -> float:
    return float(report["load"]["average_before"][0])


def _busy(report: Mapping[str, Any]) -> bool:
    return bool(report["machine"]["cores"] - _load(report) < LEAST_FREE_CORES)


def _one_pass(report: Mapping[str, Any]) -> bool:
    """Quick runs, and those with a given number of rounds."""
    return all(len(group["passes"]) < 2 for group in report["groups"].values())


def _differ(old: Mapping[str, Any], new: Mapping[str, Any], part: str, name: str) -> bool:
    return bool(old[part].get(name) != new[part].get(name))


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Rows that one report lacks, and bars that are no longer met, or are now."""
    notes = []
    for name, here, there in (("OLD", before, after), ("NEW", after, before)):
        if only := [key for key in here if key not in there]:
            notes.append(f"only in {name}: {', '.join(only)}")
    for key, row in after.items():
        was = before.get(key, row)
        if was["met"] is not row["met"] and was["bar"] == row["bar"] is not None:
            words = {True: "met", False: "missed", None: "not measured"}
            notes.append(f"the bar of {key}: {words[was['met']]}, then {words[row['met']]}")
    return notes
