"""The command line: which groups, how many rounds, where the report goes, and the exit status."""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from . import (
    bulk,
    calls,
    compiling,
    deadlines,
    hosting,
    idle,
    memory,
    metering,
    onecore,
    overrun,
    peers,
    peerstarts,
    ramp,
    realwork,
    spaced,
    starts,
    together,
)
from .machine import Load, machine, versions
from .measure import Group, Unmeasurable, take
from .report import build
from .table import show

# Memory first: its workers are forked before anything else has run.
GROUPS: tuple[Group, ...] = (
    memory.GROUP,
    ramp.GROUP,
    calls.GROUP,
    onecore.GROUP,
    spaced.GROUP,
    hosting.GROUP,
    bulk.GROUP,
    bulk.PIPE_GROUP,
    starts.GROUP,
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


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="Fewer rounds: done in less than 25 s.")
@click.option("--rounds", type=click.IntRange(1, 100_000), help="Rounds of each group, instead of its own number.")
@click.option("--only", "only", multiple=True, type=click.Choice([g.key for g in GROUPS]), help="Only this group.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, writable=True, allow_dash=True),
    help="Write the report here.",
)
@click.option("--check", is_flag=True, help="Exit with 1 if a bar is missed or could not be measured.")
def cli(quick: bool, rounds: int | None, only: Sequence[str], json_file: str | None, check: bool) -> None:
    """Measure pdsandbox on this machine, each figure beside its baseline from the same run.

    Close other programs first. A ratio compares medians over interleaved rounds (p99 and maximum where a row says
    so); smaller is better. The exit status is 0 whatever the figures are, unless --check is given.
    """
    to_stdout = json_file == "-"
    if json_file is not None and not to_stdout:
        try:
            open(json_file, "a", encoding="utf-8").close()  # better now than after two minutes
        except OSError as exc:
            raise click.BadParameter(f"{json_file}: {exc.strerror}", param_hint="--json") from exc
    # With `--json -` standard output is the report's alone.
    console = Console(stderr=to_stdout, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = 160  # rich takes 80 for what is no terminal, and would break every line
    groups = [group for group in GROUPS if not only or group.key in only]
    report = measure(groups, quick=quick, rounds=rounds, console=console)
    if json_file is not None:
        text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        if to_stdout:
            click.echo(text, nl=False)
        else:
            Path(json_file).write_text(text, encoding="utf-8")
    show(report, console)
    if check and (report["bars"]["missed"] or report["bars"]["unmeasured"]):
        sys.exit(1)


def measure(groups: Sequence[Group], *, quick: bool, rounds: int | None, console: Console) -> dict[str, Any]:
    """Take all samples, one group after the other; the report."""
    samples: dict[str, list[float]] = {}
    unmeasured: dict[str, str] = {}
    before, started = Load.now(), time.monotonic()
    planned = {group.key: group.planned(quick=quick, rounds=rounds) for group in groups}
    with _progress(sum(planned[group.key] + group.warmup for group in groups), console) as advance:
        for group in groups:
            try:
                samples |= take(group, planned[group.key], functools.partial(advance, group.title))
            except Unmeasurable as exc:
                unmeasured[group.key] = str(exc)
    return build(
        groups,
        samples,
        unmeasured,
        machine=machine(),
        versions=versions(),
        before=before,
        after=Load.now(),
        date=datetime.now(UTC),
        duration_s=time.monotonic() - started,
        quick=quick,
    )


@contextmanager
def _progress(total: int, console: Console) -> Iterator[Callable[[str], None]]:
    """A progress bar in a terminal, nothing elsewhere. It has no thread of its own, which would take part in what is
    measured: it is drawn between rounds."""
    columns = (TextColumn("{task.description:<22}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=console, auto_refresh=False, transient=True, disable=not console.is_terminal)
    drawn = 0.0
    with bar:
        task = bar.add_task("", total=total)

        def advance(title: str) -> None:
            nonlocal drawn
            now = time.monotonic()
            bar.update(task, advance=1, description=title)
            if now - drawn > _REFRESH_S:
                drawn = now
                bar.refresh()

        yield advance
