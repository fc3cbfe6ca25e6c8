"""The report in a terminal: a line about the machine, one table a group, and what to distrust."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

_MIB = 1 << 20


def amount(value: float | None, unit: str) -> str:
    """A figure with three significant digits and the unit that suits it."""
    if value is None:
        return "–"
    if unit == "bytes":
        return f"{_digits(value / _MIB)} MiB"
    if unit == "per_s":
        return f"{value:,.0f} /s"
    if unit == "count":
        return f"{value:,.0f}"
    if unit == "share":
        return f"{_digits(100 * value)} %"
    for factor, name in ((1.0, "s"), (1e3, "ms")):
        if abs(value) * factor >= 1:
            return f"{_digits(value * factor)} {name}"
    return f"{_digits(value * 1e6)} µs"


def _digits(number: float) -> str:
    """Three significant digits, never in exponents."""
    size = abs(number)
    return f"{number:.0f}" if size >= 100 else f"{number:.1f}" if size >= 10 else f"{number:.2f}"


def show(report: Mapping[str, Any], console: Console) -> None:
    """Print `report`, as `report.build` made it."""
    console.print(_machine(report))
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in report["rows"]:
        groups.setdefault(row["group"], []).append(row)
    console.print(_table(report, groups))
    console.print(_closing(report))


def _machine(report: Mapping[str, Any]) -> Text:
    machine, versions = report["machine"], report["versions"]
    before = report["load"]["average_before"][0]
    parts = [
        f"{machine['cpu']}, {machine['cores']} cores" + (", virtual" if machine["virtual"] else ""),
        f"{machine['system']} {machine['kernel']}",
        versions["python"],
        f"wasmtime {versions['wasmtime']}",
        f"pdsandbox {versions['pdsandbox']}" + (f" ({versions['commit']})" if versions["commit"] else ""),
        f"load {before:.2f} before",
        f"{report['date']}, {report['duration_s']:.0f} s" + (", quick" if report["quick"] else ""),
    ]
    return Text(" · ".join(parts), style="dim")


def _table(report: Mapping[str, Any], groups: Mapping[str, list[Mapping[str, Any]]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("what")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("against")
    table.add_column("baseline", justify="right", no_wrap=True)
    table.add_column("ratio", justify="right", no_wrap=True)
    table.add_column("(quartiles)", no_wrap=True)
    table.add_column("bar", no_wrap=True)
    table.add_column("met", no_wrap=True)
    for rows in groups.values():
        table.add_section()
        for row in rows:
            baseline = report["series"].get(row["baseline"])
            table.add_row(
                Text(row["title"]),
                amount(row["value"], row["unit"]),
                Text(baseline["short"] if baseline else row["baseline"], style="dim"),
                amount(row["baseline_value"], row["unit"]),
                _ratio(row["ratio"]),
                _quartiles(row),
                _bar(row),
                _met(row),
            )
        table.add_row()
    return table


def _quartiles(row: Mapping[str, Any]) -> Text:
    if row["ratio_p25"] is None:
        return Text("")
    return Text(f"{_ratio(row['ratio_p25'])}–{_ratio(row['ratio_p75'])}", style="dim")


def _ratio(ratio: float | None) -> str:
    """At least two significant digits, never in exponents."""
    if ratio is None:
        return "–"
    places = 2 if ratio <= 0 else max(2, 1 - math.floor(math.log10(ratio)))
    return _digits(ratio) if ratio >= 0.1 else f"{ratio:.{min(places, 6)}f}"


def _bar(row: Mapping[str, Any]) -> str:
    bar = row["bar"]
    if bar is None:
        return ""
    sign = "≥" if bar["least"] else "≤"
    return f"{sign} {bar['bound']:.2f}" if bar["of"] == "ratio" else f"{sign} {amount(bar['bound'], row['unit'])}"


def _met(row: Mapping[str, Any]) -> Text:
    if row["bar"] is None:
        return Text("")
    if row["met"] is None:
        return Text("?", style="yellow")
    return Text("yes", style="green") if row["met"] else Text("NO", style="bold red")


def _closing(report: Mapping[str, Any]) -> RenderableType:
    lines = [Text(f"{group} was not measured: {why}", style="yellow") for group, why in report["unmeasured"].items()]
    if report["noise"]:
        lines.append(Text("A noisy machine: do not rely on these figures.", style="bold yellow"))
        lines += [Text(f"  {reason}", style="yellow") for reason in report["noise"]]
    bars = report["bars"]
    total = sum(bars.values())
    if total:
        verdict = f"{bars['met']} of {total} bars met"
        if bars["unmeasured"]:
            verdict += f", {bars['unmeasured']} not measured"
        lines.append(Text(verdict + ".", style="bold red" if bars["missed"] else "bold"))
    return Group(*lines)
