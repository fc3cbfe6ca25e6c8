"""The report as one HTML page, and its first chart as a file. From the report's data alone: neither measures, nor knows
any group or row by name.

The page needs nothing but itself: no script, no font, no image, nothing from another address. All text in it comes
from data and is escaped, by the template engine in the page and by an XML writer in the charts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from . import charts, plot, svg, units
from .table import by_group

_TEMPLATE = "page.html.jinja"
# More than two lines of them nobody takes in.
_MOST_TILES = 8
_OF = {"s": "of the time of", "bytes": "of the memory of", "per_s": "of the rate of", "share": "of the share of"}


class Nothing(Exception):
    """There is nothing to draw."""


def html(report: Mapping[str, Any]) -> str:
    """The page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["amount"] = units.amount
    environment.filters["ratio"] = units.ratio
    environment.filters["bar"] = units.bar
    rows = by_group(report)
    leading, bounds = charts.hero(report), charts.of_bars(report)
    return environment.get_template(_TEMPLATE).render(
        report=report,
        light=Markup(svg.properties(svg.LIGHT)),
        dark=Markup(svg.properties(svg.DARK)),
        font=Markup(svg.FONT),
        where=where(report),
        tiles=_tiles(rows),
        of=_OF,
        short=lambda row: report["series"].get(row["baseline"], {}).get("short", row["baseline"]),
        hero=_figure(leading),
        hero_title=hero_title(leading, report),
        bounds=_figure(bounds),
        sections=[_section(report, key, leading) for key in report["groups"]],
        rows=rows,
    )


def hero(report: Mapping[str, Any]) -> str:
    """The first chart as an SVG file. Raises Nothing."""
    chart = charts.hero(report)
    if chart is None:
        raise Nothing("the report has no figures to draw")
    return plot.standalone(chart, hero_title(chart, report), where(report))


def hero_title(chart: charts.Chart | None, report: Mapping[str, Any]) -> str:
    """The heading of the first chart: its group's own title."""
    return "" if chart is None else chart.title[:1].upper() + chart.title[1:]


def where(report: Mapping[str, Any]) -> str:
    """What it was measured on, in a line."""
    machine, versions = report["machine"], report["versions"]
    return ", ".join(
        (
            f"{machine['cpu']}, {machine['cores']} cores" + (" (virtual)" if machine["virtual"] else ""),
            f"{machine['system']} {machine['kernel'].partition('-')[0]}",
            f"{versions['python']}",
            f"pdsandbox {versions['pdsandbox']}",
            report["date"][:10],
        )
    )


def _figure(chart: charts.Chart | None) -> dict[str, Any] | None:
    if chart is None or not chart.marks:
        return None
    return {
        "chart": chart,
        "wide": Markup(plot.draw(chart)),
        "narrow": Markup(plot.draw(chart, narrow=True)),
    }


def _tiles(rows: Mapping[str, list[Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
    """The first row of each group that has a ratio; those with a bar before the others."""
    firsts = []
    for group in rows.values():
        usable = [row for row in group if row["ratio"] is not None and row["ratio"] > 0]
        if usable:
            firsts.append(next((row for row in usable if row["bar"] is not None), usable[0]))
    firsts.sort(key=lambda row: row["bar"] is None)
    return firsts[:_MOST_TILES]


def _section(report: Mapping[str, Any], key: str, leading: charts.Chart | None) -> dict[str, Any]:
    """A group's section; the chart that leads the page is not drawn twice."""
    group, shown = report["groups"][key], charts.of_group(report, key)
    return {
        "key": key,
        "group": group,
        "figures": [_figure(chart) for chart in shown if leading is None or chart.marks != leading.marks],
        "above": leading is not None and any(chart.marks == leading.marks for chart in shown),
        "series": {name: entry for name, entry in report["series"].items() if entry["group"] == key},
        "why_not": report["unmeasured"].get(key),
        "rounds": sum(group["passes"]),
    }
