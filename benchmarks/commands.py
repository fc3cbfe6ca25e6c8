"""What can be done with reports that are there already: make the page or the chart again."""

from __future__ import annotations

import click

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
