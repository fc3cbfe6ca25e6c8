"""`pdsandbox doctor`: whether workers run here, and what stands between a guest that broke out and the machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

from .app import hardening_option
from .output import emit

if TYPE_CHECKING:
    from .checkup import Checkup

__all__ = ["command"]

_EPILOG: Final = """\b
Exit codes:
  0   everything that was asked for is active
  78  workers run, and something that was asked for is missing
  71  workers cannot run at all; the report says why

\b
States:
  active      seen to hold, by a process that went through the whole lock-down
  MISSING     asked for, and not to be had here: why, what that costs and what
              to do stands below the table
  not needed  it has nothing to act on here
  off         not asked for

\b
Examples:
  pdsandbox doctor
  pdsandbox doctor --hardening strict && exec my-service
  pdsandbox doctor --json | python -m json.tool

From Python: Supervisor(hardening="strict") refuses to start unless this command exits with 0;
Supervisor.hardening_report() returns the same table. With --json, standard output gets one object: ok, exit_code,
runs, error, machine, system, complete, missing, open_to, hardening, workers, compilers.
"""

_STYLES: Final = {"active": "green", "MISSING": "bold red", "not needed": "dim", "off": "yellow"}


@click.command("doctor", epilog=_EPILOG, short_help="Show how workers are locked down on this machine.")
@hardening_option("What to ask for: all that this machine has; the same, and nothing less; nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def command(hardening: str, as_json: bool) -> int:
    """Show whether guests can run on this machine, and how their processes are locked down.

    Starts what a service would start, runs a guest of its own, and reports each layer as it was seen from inside a
    worker (which runs guests) and a compiler (which reads them): whether it holds, or why not, what that costs in
    safety, and what to do about it.
    """
    from . import checkup, report

    plain = as_json or not sys.stdout or not sys.stdout.isatty()
    if not plain:
        from . import terminal  # noqa: F401 - without rich, say so before the work, not after it

    found = checkup.examine(hardening)
    if as_json:
        emit(report.as_json(found.document()))
    elif plain:
        emit("\n".join(found.lines()))
    else:
        emit(_render(found))
    return found.exit_code


def _render(found: Checkup) -> str:
    from rich.table import Table
    from rich.text import Text

    from .terminal import console, rendered

    parts: list[Table | Text] = [Text(line, "" if n else "bold") for n, line in enumerate(found.head())]
    if found.report is not None:
        table = Table("layer", "worker", "compiler", "as seen from inside")
        for name, worker, compiler, details in found.rows():
            states = (Text(state, _STYLES[state]) for state in (worker, compiler))
            table.add_row(Text(name), *states, Text("\n".join(details)))
        parts.append(table)
    parts += [Text(line, "" if line.startswith(" ") else "bold") for line in found.tail()]
    return rendered(console(), *parts)
