"""`pdsandbox run`: one call of one export of a stranger's module, in a worker process of its own."""

from __future__ import annotations

from typing import Final

import click

from .app import Given, NumbersCommand, hardening_option, limit_option, limits_from
from .output import emit, note

__all__ = ["command"]

_EPILOG: Final = """\b
Arguments are typed by the export's signature:
  i32, i64   -7, 42, or a bit pattern such as 0xffffffff (i32: -1)
  f32, f64   1.5, -2e3, inf, nan, nan:0x400001
Results go to standard output, one a line, and can be typed in again.

\b
Limits:
  UNITS  500k, 10M, 1G  (about one unit per instruction)
  TIME   250ms, 2s, 1m
  SIZE   64MiB, 1GiB; 500MB counts in powers of 1000
  none   no limit

\b
Examples:
  pdsandbox run add.wasm add 2 3
  pdsandbox run add.wasm add -1 0x7fffffff --json
  pdsandbox run --fuel 10M --wall 2s --rss 64MiB plugin.wat
  cat plugin.wasm | pdsandbox run - main

An error is one line on standard error; the exit code says its cause: see `pdsandbox --help`. With --json,
standard output gets one object: ok, export, results, error, fuel_consumed, wall_s, pid.
"""


@click.command(
    "run",
    cls=NumbersCommand,
    epilog=_EPILOG,
    short_help="Call an export of a module in a sandboxed worker process.",
)
@click.argument("file")
@click.argument("export", required=False)
@click.argument("args", nargs=-1)
@limit_option("--fuel", "fuel", "Fuel for starting the module, and for the call.")
@limit_option("--wall", "wall_s", "Time for starting the module, and for the call.")
@limit_option("--rss", "rss_bytes", "Memory of the worker process, about 25 MiB of its own included.")
@limit_option("--memory", "memory_bytes", "Each linear memory; growing beyond it fails inside the module.")
@hardening_option("How the worker is locked down; strict: not at all less than asked for. See `pdsandbox doctor`.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def command(
    file: str, export: str | None, args: tuple[str, ...], hardening: str, as_json: bool, **limits: Given | None
) -> int:
    """Call EXPORT of the WebAssembly module in FILE with ARGS, in a sandboxed worker process.

    FILE is a .wasm (binary) or .wat (text) module; - reads standard input. EXPORT may be left out if there is
    `_start` or only one exported function.
    """
    from . import report, session

    outcome = session.run(file, export, args, limits_from(limits), hardening)
    if as_json:
        emit(report.as_json(outcome.document()))
    elif outcome.error is None:
        from .numbers import show

        if outcome.results:
            emit("\n".join(show(value) for value in outcome.results))
    else:
        for line in report.error_lines(outcome.error, file):
            note(line)
    return 0 if outcome.error is None else report.exit_code(outcome.error)
