"""The command line: what is measured and where the report goes, the commands on reports, and the exit status."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from . import (
    bulk,
    calls,
    checkout,
    commands,
    compiling,
    deadlines,
    density,
    files,
    hosting,
    idle,
    looping,
    memory,
    metering,
    onecore,
    overrun,
    peers,
    peerstarts,
    ramp,
    realwork,
    shell,
    soak,
    spaced,
    starts,
    together,
)
from .machine import Load, machine, versions
from .measure import Group
from .report import build
from .session import FULL_S, QUICK_S, Session, legs, run
from .table import show

# Memory first: its workers are forked before anything else has run.
GROUPS: tuple[Group, ...] = (
    memory.GROUP,
    density.GROUP,
    ramp.GROUP,
    calls.GROUP,
    checkout.GROUP,
    onecore.GROUP,
    spaced.GROUP,
    looping.GROUP,
    hosting.GROUP,
    bulk.GROUP,
    bulk.PIPE_GROUP,
    starts.GROUP,
    shell.GROUP,
    deadlines.GROUP,
    compiling.GROUP,
    peers.GROUP,
    peerstarts.GROUP,
    metering.GROUP,
    metering.PROFILES,
    together.PAIR,
    together.CROWD,
    idle.GROUP,
    overrun.GROUP,
    realwork.GROUP,
)
# The bar moves between rounds only, and no more often than an eye can follow.
_REFRESH_S = 0.2


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="Fewer rounds: done in less than a minute.")
@click.option("--rounds", type=click.IntRange(1, 100_000), help="Rounds of each group, however long they take.")
@click.option("--only", "only", multiple=True, metavar="GROUP", type=click.Choice([g.key for g in GROUPS]),
              help=f"Only this group, and others so named: {', '.join(g.key for g in GROUPS)}.")  # fmt: skip
@click.option("--json", "json_file", type=files.OUT, help="Write the report here; - is standard output.")
@click.option("--html", "html_file", type=files.OUT, help="Write the report as a page with charts here.")
@click.option("--svg", "svg_file", type=files.OUT, help="Write the page's first chart here.")
@click.option("--check", is_flag=True, help="Exit with 1 if a bar is missed or could not be measured.")
@click.pass_context
def cli(
    context: click.Context,
    quick: bool,
    rounds: int | None,
    only: Sequence[str],
    json_file: str | None,
    html_file: str | None,
    svg_file: str | None,
    check: bool,
) -> None:
    """Measure pdsandbox on this machine, each figure beside its baseline from the same run.

    Close other programs first. A full run takes six to eight minutes. A ratio compares medians over interleaved
    rounds (p99 and maximum where a row says so); less is better, except of rates. The exit status is 0 whatever the
    figures are, unless --check is given; 1 when a group failed, and 2 for a wrong command.
    """
    if context.invoked_subcommand is not None:
        if any((quick, rounds, only, json_file, html_file, svg_file, check)):
            raise click.UsageError(f"{context.invoked_subcommand} takes no options of a measurement")
        return
    outputs = {"--json": json_file, "--html": html_file, "--svg": svg_file}
    if [*outputs.values()].count("-") > 1:
        raise click.UsageError("standard output takes one of --json, --html and --svg")
    # Better now than after minutes.
    for option, file in outputs.items():
        if file is not None:
            files.check_writable(file, option)
    if html_file or svg_file:
        files.check_drawable()
    # What goes to standard output is there alone.
    console = Console(stderr="-" in outputs.values(), markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = 160  # rich takes 80 for what is no terminal, and would break every line
    groups = [group for group in GROUPS if not only or group.key in only]
    report, session = measure(groups, quick=quick, rounds=rounds, console=console)
    if json_file is not None:
        files.write(json_file, files.to_json(report))
    show(report, console)
    if html_file is not None or svg_file is not None:
        # Here, because loading a plotting library would make this process larger while peers fork it.
        from . import page

        if html_file is not None:
            files.write(html_file, page.html(report))
        if svg_file is not None:
            try:
                files.write(svg_file, page.hero(report))
            except page.Nothing as exc:
                raise click.ClickException(str(exc)) from exc
    for key, text in session.failed.items():
        click.echo(f"\n{key} failed:\n{text}", err=True)
    missed = check and bool(report["bars"]["missed"] or report["bars"]["unmeasured"])
    if missed or session.failed:
        sys.exit(1)


for command in (commands.html, commands.chart, commands.compare, soak.soak):
    cli.add_command(command)


def measure(
    groups: Sequence[Group], *, quick: bool, rounds: int | None, console: Console
) -> tuple[dict[str, Any], Session]:
    """Take all samples; the report, and what it is made of."""
    before, started = Load.now(), time.monotonic()
    plan = legs(groups, quick=quick, rounds=rounds)
    budget_s = None if rounds is not None else QUICK_S if quick else FULL_S
    with _progress([leg.group.warmup + leg.rounds for leg in plan], console) as (after_round, after_leg):
        session = run(plan, budget_s=budget_s, after_round=after_round, after_leg=after_leg)
    report = build(
        groups,
        session,
        machine=machine(),
        versions=versions(package for group in groups for package in group.packages),
        before=before,
        after=Load.now(),
        date=datetime.now(UTC),
        duration_s=time.monotonic() - started,
        quick=quick,
    )
    return report, session


@contextmanager
def _progress(rounds: Sequence[int], console: Console) -> Iterator[tuple[Callable[[str], None], Callable[[], None]]]:
    """A progress bar in a terminal, nothing elsewhere; what to call after each round, and after each leg of so many
    `rounds` or fewer. It has no thread of its own, which would take part in what is measured: it is drawn between
    rounds."""
    columns = (TextColumn("{task.description:<36}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=console, auto_refresh=False, transient=True, disable=not console.is_terminal)
    drawn = 0.0
    ends = itertools.accumulate(rounds)
    with bar:
        task = bar.add_task("", total=sum(rounds))

        def after_round(title: str) -> None:
            nonlocal drawn
            now = time.monotonic()
            bar.update(task, advance=1, description=title)
            if now - drawn > _REFRESH_S:
                drawn = now
                bar.refresh()

        def after_leg() -> None:
            bar.update(task, completed=next(ends))  # some rounds may have been left out

        yield after_round, after_leg
