"""The help of `pdsandbox run`, by click, out of the table in `options`. What it does is in `running`."""

from __future__ import annotations

from typing import Any, Final

import click

from ..limits import Limits
from . import options, units
from .directories import WRITABLE_BYTES
from .session import PROGRAM_WALL_S

__all__ = ["command"]

_EPILOG: Final = f"""\b
What comes after FILE:
  a program   (a module with `_start` that imports WASI) gets it as arguments
  any other   EXPORT ARGS: an export to call, and what to call it with; EXPORT
              may be left out if there is `_start` or only one function
Words that begin with two dashes are options, up to a --; everything after
that is the guest's. With --invoke EXPORT, all words are ARGS.

\b
ARGS are typed by the export's signature, and results printed one a line:
  i32, i64   -7, 42, or a bit pattern such as 0xffffffff (i32: -1)
  f32, f64   1.5, -2e3, inf, nan, nan:0x400001

\b
A program gets this command's standard input, output and error, its arguments,
a clock and random numbers, and nothing else: no variable, no directory.
  --dir SRC[::DST][:ro|:rw[:SIZE]]
      SRC, which it sees as DST (default: the same name), for reading unless
      :rw is said, and then to grow by SIZE (default {units.size(WRITABLE_BYTES).replace(" ", "")}; none: no limit)

\b
Limits:
  UNITS  500k, 10M, 1G  (about one unit per instruction)
  TIME   250ms, 2s, 1m
  SIZE   64MiB, 1GiB; 500MB counts in powers of 1000
  none   no limit
A program is given {units.duration(PROGRAM_WALL_S)} and any amount of fuel, unless --wall or --fuel says
otherwise.

\b
The exit code is the guest's own (its low eight bits, as of any program); an
error that is not the guest's is one line on standard error, with an exit code
that says its cause: see `pdsandbox --help`. A guest may use those codes, too;
--json tells them apart.

\b
Examples:
  pdsandbox run prog.wasm -- --verbose input.txt
  pdsandbox run --dir .::/work:rw:100MiB --env LANG=C prog.wasm
  cat photo.png | pdsandbox run --wall 1m --rss 1GiB resize.wasm 640 > small.png
  pdsandbox run add.wasm add -1 0x7fffffff --json
  pdsandbox run --invoke add add.wasm 1 2
  cat plugin.wasm | pdsandbox run - main

\b
--json prints one object: ok, export, results, exit_code, error, stdout,
stderr (text, or base64: see stdout_encoding), truncated, fuel_consumed,
wall_s, cpu_s, peak_rss_bytes, compile_s, instantiate_s, start_s, pid.
"""


class _Run(click.Command):
    """Takes no words apart itself, so that there is one way to understand them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if options.wants_help(args):
            return super().parse_args(ctx, ["--help"])
        ctx.args = list(args)
        return ctx.args

    def invoke(self, ctx: click.Context) -> Any:
        from . import running

        return running.main(ctx.args)


def _params() -> list[click.Parameter]:
    found: list[click.Parameter] = [
        click.Argument(["file"]),
        click.Argument(["words"], nargs=-1, metavar="[EXPORT] [ARGS]..."),
    ]
    for option in options.OPTIONS:
        text = option.text
        if option.field:
            text += f" [default: {_default(option.field)}]"
        if option.metavar:
            found.append(click.Option([option.name], metavar=option.metavar, multiple=option.many, help=text))
        else:
            found.append(click.Option([option.name], is_flag=True, help=text))
    return found


def _default(field: str) -> str:
    show = {"s": units.duration, "bytes": units.size, "fuel": units.fuel, "count": units.fuel}[units.kind_of(field)]
    return show(getattr(Limits(), field))


command = _Run(
    "run",
    params=_params(),
    epilog=_EPILOG,
    short_help="Run a program, or call an export, in a sandboxed worker process.",
    help="""Run the WebAssembly module in FILE in a sandboxed worker process: a WASI program, or one export.

    FILE is a .wasm (binary) or .wat (text) module; - reads standard input.
    """,
)
