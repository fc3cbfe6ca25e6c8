"""The report as data, which is also its JSON. Pure: samples and facts in, one dictionary out.

The schema (version 3). Times in seconds, memory in bytes, rates per second, shares of 1, counts; ratios as subject /
baseline. Of times, memory and shares less is better, of rates and counts more.

    kind, schema    "pdsandbox-benchmarks", 3
    date            when it ended, UTC, ISO 8601; duration_s: how long it took; quick: whether `--quick` was given
    machine, versions
    load            average_before, average_after (1, 5, 15 minutes), steal (share of CPU time)
    noise           sentences; empty on a quiet machine
    unmeasured      group -> why there are no figures
    groups          key -> title, caption, chart, hero (as in measure.Group), planned (rounds, had there been time),
                    passes (rounds taken each time that it was opened), duration_s
    series          key -> title, short, unit, side, group, n, mean, min, p25, p50, p75, p90, p99, max,
                    samples (in order)
    rows            each: key, title, group, statistic, unit, series, value, baseline, baseline_value, ratio,
                    ratio_p25, ratio_p75 (quartiles of the rounds' own ratios; null if they do not pair up),
                    bar (null, or of, bound, least, source), met (null without a bar, or unmeasured)
    bars            met, missed, unmeasured: how many
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from .machine import Load, noise, steal
from .measure import Bar, Group, Row
from .session import Session
from .stats import Summary, paired_ratios, quartiles, summary

KIND = "pdsandbox-benchmarks"
SCHEMA = 3


def build(
    groups: Sequence[Group],
    session: Session,
    *,
    machine: Mapping[str, Any],
    versions: Mapping[str, Any],
    before: Load,
    after: Load,
    date: datetime,
    duration_s: float,
    quick: bool,
) -> dict[str, Any]:
    """The report on `groups`, of which `session` has the samples."""
    samples = session.samples
    subjects = {row.series for group in groups for row in group.rows}
    figures = {key: summary(values) for key, values in samples.items() if values}
    baselines = {
        row.baseline: figures[row.baseline] for group in groups for row in group.rows if row.baseline in figures
    }
    rows = [_row(group, row, figures, samples) for group in groups for row in group.rows]
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "date": date.isoformat(timespec="seconds"),
        "duration_s": round(duration_s, 1),
        "quick": quick,
        "machine": dict(machine),
        "versions": dict(versions),
        "load": {"average_before": before.average, "average_after": after.average, "steal": steal(before, after)},
        "noise": noise(before, after, baselines),
        "unmeasured": dict(session.unmeasured),
        "groups": {
            group.key: {
                "title": group.title,
                "caption": group.caption,
                "chart": group.chart,
                "hero": list(group.hero),
                "planned": session.groups[group.key].planned,
                "passes": session.groups[group.key].passes,
                "duration_s": round(session.groups[group.key].duration_s, 1),
            }
            for group in groups
        },
        "series": {
            series.key: {
                "title": series.title,
                "short": series.short or series.title,
                "unit": series.unit,
                "side": series.side or ("ours" if series.key in subjects else "peer"),
                "group": group.key,
                **asdict(figures[series.key]),
                "samples": [float(f"{value:.6g}") for value in samples[series.key]],
            }
            for group in groups
            for series in group.series
            if series.key in figures
        },
        "rows": rows,
        "bars": _count(rows),
    }


def _row(
    group: Group, row: Row, figures: Mapping[str, Summary], samples: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    subject, baseline = figures.get(row.series), figures.get(row.baseline)
    value = None if subject is None else subject.get(row.statistic)
    baseline_value = None if baseline is None else baseline.get(row.statistic)
    ratio = value / baseline_value if value is not None and baseline_value else None
    low = high = None
    if row.statistic == "p50" and subject is not None and baseline is not None:
        pairs = paired_ratios(samples[row.series], samples[row.baseline])
        if pairs:
            low, _, high = quartiles(pairs)
    return {
        "key": row.key,
        "title": row.title,
        "group": group.key,
        "statistic": row.statistic,
        "unit": next(series.unit for series in group.series if series.key == row.series),
        "series": row.series,
        "value": value,
        "baseline": row.baseline,
        "baseline_value": baseline_value,
        "ratio": ratio,
        "ratio_p25": low,
        "ratio_p75": high,
        "bar": None if row.bar is None else asdict(row.bar),
        "met": None if row.bar is None else _met(row.bar, value, ratio),
    }


def _met(bar: Bar, value: float | None, ratio: float | None) -> bool | None:
    judged = ratio if bar.of == "ratio" else value
    return None if judged is None else bar.met(judged)


def _count(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    verdicts = [row["met"] for row in rows if row["bar"] is not None]
    return {"met": verdicts.count(True), "missed": verdicts.count(False), "unmeasured": verdicts.count(None)}
