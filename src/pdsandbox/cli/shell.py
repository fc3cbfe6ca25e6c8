"""Around every command: what it ends with becomes an exit code, and click or rich that are missing one clear line.

Imports nothing at its top that a bare installation may lack.
"""

from __future__ import annotations

import os
import sys

from ..text import one_line
from .exits import BAD_OPTION, BROKEN_PIPE, BUG, NO_OUTPUT
from .options import wants_help
from .output import Failure, OutputGone, note

__all__ = ["run"]

_COMPLETION = "_PDSANDBOX_COMPLETE"


def run(args: list[str]) -> int:
    """Run the command line `args` and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            # A name that the terminal's encoding lacks is shown escaped, not as a traceback.
            stream.reconfigure(errors="backslashreplace")
    try:
        return _run(args)
    except Failure as exc:
        from .report import error_lines

        for line in error_lines(exc, ""):
            note(line)
        return exc.code
    except OutputGone as gone:
        _silence(1)
        if gone.broken:
            return BROKEN_PIPE
        note(f"pdsandbox: cannot write to standard output: {one_line(str(gone))}")
        return NO_OUTPUT
    except ModuleNotFoundError as exc:
        missing = (exc.name or "").partition(".")[0]
        if missing not in {"click", "rich"}:
            return _bug()
        note(f"pdsandbox: the command line needs {missing}: pip install 'pdsandbox[cli]'")
        return BAD_OPTION
    except Exception:
        return _bug()


def _run(args: list[str]) -> int:
    if args[:1] == ["run"] and not wants_help(args[1:]) and _COMPLETION not in os.environ:
        from . import running  # without click, whose import takes 20 ms

        return running.main(args[1:])
    import click

    from .app import cli

    try:
        if _COMPLETION in os.environ:
            cli.main(args, "pdsandbox", standalone_mode=False)
            return 0
        # Not cli.main(): that would turn Ctrl-C into its own Abort and a broken pipe into exit code 1.
        with cli.make_context("pdsandbox", [*args]) as context:
            return int(cli.invoke(context) or 0)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.UsageError as exc:
        if not args:
            note(exc.format_message())  # the whole help, as click 8.2 has it
            return exc.exit_code
        command = exc.ctx.command_path if exc.ctx else "pdsandbox"
        note(f"pdsandbox: {one_line(exc.format_message())}")
        note(f"  hint: `{command} --help` lists the options")
        return exc.exit_code


def _bug() -> int:
    import traceback

    for line in traceback.format_exc().splitlines():
        note("".join(char if char.isprintable() else ascii(char)[1:-1] for char in line))
    note("pdsandbox: this is a bug in pdsandbox; please report it with the lines above")
    return BUG


def _silence(fd: int) -> None:
    """Let Python's flush at exit succeed, into nothing."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        if null != fd:
            os.dup2(null, fd)
            os.close(null)
    except OSError:
        pass
