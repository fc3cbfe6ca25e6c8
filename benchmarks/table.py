"""The report in a terminal: a line about the machine, one table with a heading a group, and what to distrust."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from . import units

# Narrower than this, the quartiles of the ratio make way for the names.
_ROOMY = 120
# There, a baseline's name is cut before a row's is broken.
_NARROW_NAME = 23
# More reasons than this tell nobody more; all are in the report's file.
_MOST_REASONS = 6


def show(report: Mapping[str, Any], console: Console) -> None:
    """Print `report`, as `report.build` made it."""
    console.print(_machine(report))
    console.print()
    console.print(_table(report, roomy=console.width >= _ROOMY))
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


def by_group(report: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """The rows of each group that has any, in the report's order."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in report["rows"]:
        groups.setdefault(row["group"], []).append(row)
    return groups


def _table(report: Mapping[str, Any], *, roomy: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2 if roomy else 1, 0, 0))
    table.add_column("what", min_width=30)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("ratio", justify="right", no_wrap=True)
    if roomy:
        table.add_column("quartiles", no_wrap=True)
    table.add_column("bar", no_wrap=True)
    table.add_column("of", justify="right", no_wrap=True)
    table.add_column("baseline", no_wrap=True, overflow="ellipsis", max_width=None if roomy else _NARROW_NAME)
    for key, rows in by_group(report).items():
        table.add_row(Text(report["groups"][key]["title"], style="bold"))
        for row in rows:
            table.add_row(*_cells(report, row, roomy=roomy))
        table.add_row()
    return table


def _cells(report: Mapping[str, Any], row: Mapping[str, Any], *, roomy: bool) -> Sequence[RenderableType]:
    baseline = report["series"].get(row["baseline"])
    return [
        Padding(Text(row["title"]), (0, 0, 0, 2)),
        units.amount(row["value"], row["unit"]),
        Text(units.ratio(row["ratio"]), style="bold"),
        *([_quartiles(row)] if roomy else []),
        _bar(row),
        Text(units.amount(row["baseline_value"], row["unit"]), style="dim"),
        Text(baseline["short"] if baseline else row["baseline"], style="dim"),
    ]


def _quartiles(row: Mapping[str, Any]) -> Text:
    if row["ratio_p25"] is None:
        return Text("")
    return Text(f"{units.ratio(row['ratio_p25'])}–{units.ratio(row['ratio_p75'])}", style="dim")


def _bar(row: Mapping[str, Any]) -> Text:
    """The verdict as a word's first sign too: colours are no information to everybody."""
    if row["bar"] is None:
        return Text("")
    mark, style = {True: ("✓", "green"), False: ("✗", "bold red"), None: ("?", "yellow")}[row["met"]]
    return Text(f"{mark} {units.bar(row)}", style=style)


def _closing(report: Mapping[str, Any]) -> RenderableType:
    lines = [
        Text(f"{report['groups'][group]['title']}: not measured, because {why}", style="yellow")
        for group, why in report["unmeasured"].items()
    ]
    reasons = report["noise"]
    if reasons:
        lines.append(Text("A noisy machine: do not rely on these figures.", style="bold yellow"))
        lines += [Text(f"  {reason}", style="yellow") for reason in reasons[:_MOST_REASONS]]
        if len(reasons) > _MOST_REASONS:
            lines.append(Text(f"  … and {len(reasons) - _MOST_REASONS} more such", style="yellow"))
    bars = report["bars"]
    total = sum(bars.values())
    if total:
        verdict = f"{bars['met']} of {total} bars met"
        if bars["unmeasured"]:
            verdict += f", {bars['unmeasured']} not measured"
        lines.append(Text(verdict + ".", style="bold red" if bars["missed"] else "bold"))
    return Group(*lines)
