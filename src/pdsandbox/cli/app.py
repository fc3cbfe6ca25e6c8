"""The command group and the options that commands share. A command's room is imported when it is named."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from .. import __version__
from .exits import exit_code_table

__all__ = ["cli", "hardening_option"]

_COMMANDS: Final = ("run", "inspect", "doctor", "cache", "demo")

if TYPE_CHECKING:
    from collections.abc import Callable

    _Callback = TypeVar("_Callback", bound=Callable[..., Any])


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f".{cmd_name}_command", __package__).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            known = ", ".join(_COMMANDS)
            message = f"no command {args[0]!r}: there are {known}"
            if "." in args[0]:
                message = f"no command {args[0]!r}; to run a file: pdsandbox run {args[0]}"
            raise click.UsageError(message, ctx)
        return super().resolve_command(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in exit_code_table()])
        with formatter.section("Examples"):
            for line in _EXAMPLES:
                formatter.write_text(line)


_EXAMPLES: Final = (
    "pdsandbox run prog.wasm -- --verbose input.txt",
    "pdsandbox run --dir src::/work:ro --wall 1m --rss 64MiB prog.wasm",
    "pdsandbox run add.wasm add 2 3",
    "pdsandbox inspect plugin.wasm",
    "pdsandbox doctor",
    "pdsandbox cache clear",
    "pdsandbox demo",
)


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        from .output import emit

        emit(f"pdsandbox {__version__}")
        ctx.exit()


@click.group(
    cls=_Lazy, no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version.")
def cli() -> None:
    """Run WebAssembly modules that you do not trust, each in a process of its own.

    A module gets fuel, time and memory up to limits that you set, and of your files and environment only what you
    grant, of the network nothing; whatever happens to it ends in one line that says exactly what and why.
    """


def hardening_option(text: str) -> Callable[[_Callback], _Callback]:
    """The click option --hardening, by the names that `Supervisor(hardening=...)` takes."""
    return click.option(
        "--hardening", type=click.Choice(["default", "strict", "off"]), default="default", show_default=True, help=text
    )
