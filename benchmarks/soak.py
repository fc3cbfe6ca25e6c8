"""The command `soak`: a service under load that loses workers by the thousand, its fork server, and its module.

Nothing is compared with anything here, so it is no group of the report: what counts is that nothing is lost, doubled or
left behind.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import click
from rich.console import Console

from . import deaths, files, outages, swaps
from .findings import Findings, show


@click.command()
@click.option("--deaths", "death_count", type=click.IntRange(0, 1_000_000), default=10_000, show_default=True,
              help="Workers that die after the warm-up; 0 leaves this part out.")  # fmt: skip
@click.option("--warm-up", type=click.IntRange(1, 100_000), default=500, show_default=True,
              help="Workers that die before anything is counted.")  # fmt: skip
@click.option("--kills", type=click.IntRange(0, 1000), default=10, show_default=True,
              help="How often the fork server is killed, every other time twice; 0 leaves this part out.")  # fmt: skip
@click.option("--swaps", "swap_count", type=click.IntRange(0, 1000), default=20, show_default=True,
              help="How often a pool's module is replaced; 0 leaves this part out.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(1, 86_400), default=900.0, show_default=True,
              help="After so many, too few deaths are a failure.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1, 256), default=8, show_default=True, help="Threads that call.")
@click.option("--workers", type=click.IntRange(1, 256), default=4, show_default=True, help="Instances in the pool.")
@click.option("--kill-every", type=click.IntRange(1, 1_000_000), default=8, show_default=True, metavar="CALLS",
              help="A worker is killed from outside after every so many calls, on average.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 1 << 30), default=1, show_default=True, help="Which calls are made.")
@click.option("--json", "json_file", type=files.OUT, help="Write the figures here; - is standard output.")
def soak(
    death_count: int,
    warm_up: int,
    kills: int,
    swap_count: int,
    seconds: float,
    threads: int,
    workers: int,
    kill_every: int,
    seed: int,
    json_file: str | None,
) -> None:
    """Kill workers, and the fork server, under load, and replace modules; look whether any call is lost or doubled.

    Several minutes: a worker starts within milliseconds, but ten thousand have to. Exits with 1 when anything is not
    as it should be.
    """
    if json_file is not None:
        files.check_writable(json_file, "--json")
    # That fork servers die is no news here.
    logging.getLogger("pdsandbox").addHandler(logging.NullHandler())
    console = Console(stderr=json_file == "-", markup=False, emoji=False, highlight=False)
    parts: list[Findings] = []

    def part(found: Findings) -> None:
        parts.append(found)
        show(found, console)

    if death_count:
        part(
            deaths.soak(
                death_count,
                warm_up=warm_up,
                threads=threads,
                workers=workers,
                seconds=seconds,
                kill_every=kill_every,
                seed=seed,
            )
        )
    if kills:
        part(outages.strike(kills, threads=threads, workers=workers, seed=seed))
    if swap_count:
        part(swaps.turn(swap_count, pause_s=0.2, threads=threads, workers=workers, seed=seed))
    if json_file is not None:
        report: dict[str, Any] = {"kind": "pdsandbox-soak", "parts": [found.as_json() for found in parts]}
        files.write(json_file, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    if any(found.failed for found in parts):
        sys.exit(1)
