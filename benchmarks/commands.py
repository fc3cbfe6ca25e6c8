"""What can be done with reports that are there already: make the page or the chart again, compare two runs."""

from __future__ import annotations

import sys

import click
from rich.console import Console

from . import files


@click.command()
@click.argument("report", type=files.IN)
@click.argument("out", type=files.OUT)
def html(report: str, out: str) -> None:
    """Make the page OUT from the file REPORT, as --html does; - is standard input or output."""
    files.check_drawable()
    files.check_writable(out, "OUT")
    data = files.read(report)
    from . import page

    files.write(out, page.html(data))


@click.command()
@click.argument("report", type=files.IN)
@click.argument("out", type=files.OUT)
def chart(report: str, out: str) -> None:
    """Make the page's first chart as a file OUT (SVG, for light and dark), as --svg does."""
    files.check_drawable()
    files.check_writable(out, "OUT")
    data = files.read(report)
    from . import page

    try:
        drawn = page.hero(data)
    except page.Nothing as exc:
        raise files.BadReport(str(exc)) from exc
    files.write(out, drawn)


@click.command()
@click.argument("old", type=files.IN)
@click.argument("new", type=files.IN)
@click.option(
    "--least",
    "least_percent",
    type=click.FloatRange(0, 1000),
    default=5.0,
    show_default=True,
    help="Changes of fewer percent do not count.",
)
def compare(old: str, new: str, least_percent: float) -> None:
    """What changed from the report OLD to the report NEW, beyond noise.

    Exits with 1 when a row got worse, with 2 when the files cannot be compared. Ratios to the baseline are compared,
    so that a slower hour of the machine cancels out: of medians the median of the rounds' own ratios, of tails the
    ratio to the baseline's median. Noise: the change that one row would show by chance, in one of a hundred.
    """
    from . import changes, comparing

    if old == new == "-":
        raise click.UsageError("standard input is one report")
    before, after = files.read(old), files.read(new)
    comparison = comparing.compare(before, after, least=least_percent / 100)
    if not comparison.changes:
        raise files.BadReport("the two reports have no row in common")
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = 140
    changes.show(comparison, console)
    if comparison.worse:
        sys.exit(1)
