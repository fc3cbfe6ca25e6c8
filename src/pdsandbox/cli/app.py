"""The command group and the options that commands share. A command's room is imported when it is named."""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from .. import __version__
from ..limits import Limits
from . import units
from .exits import exit_code_table

__all__ = ["LimitType", "NumbersCommand", "cli", "hardening_option", "limit_option", "limits_from"]

_COMMANDS: Final = ("run", "inspect", "doctor", "cache", "demo")

# Marks an argument that looks like an option and is a number; an argument of a process cannot hold a NUL.
_MARK: Final = "\0"
_NEGATIVE: Final = re.compile(r"-(?:\.?[0-9]|inf|nan)", re.IGNORECASE)


if TYPE_CHECKING:
    from collections.abc import Callable

    _ParamType = click.ParamType[Any]
    _Callback = TypeVar("_Callback", bound=Callable[..., Any])
else:
    _ParamType = click.ParamType  # not generic before click 8.5


class LimitType(_ParamType):
    """The value of one field of `Limits`, in people's units."""

    def __init__(self, field: str) -> None:
        self.field = field
        self.name = field

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        kind = "s" if self.field.endswith("_s") else "bytes" if self.field.endswith("_bytes") else "fuel"
        return {"s": "TIME", "bytes": "SIZE", "fuel": "UNITS"}[kind]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return Given(units.limit(self.field, value.removeprefix(_MARK)))
        except ValueError as exc:
            raise click.BadParameter(str(exc), ctx, param) from None


class Given:
    """A limit as given: tells "none" (no limit) from an option that was left out."""

    def __init__(self, value: float | None) -> None:
        self.value = value


class NumbersCommand(click.Command):
    """A command whose arguments may be negative numbers: `run FILE add -1 2` needs no `--`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        plain = args.index("--") if "--" in args else len(args)
        marked = [_MARK + arg if _NEGATIVE.match(arg) else arg for arg in args[:plain]]
        rest = super().parse_args(ctx, marked + args[plain:])
        for name, value in ctx.params.items():
            if isinstance(value, str):
                ctx.params[name] = value.removeprefix(_MARK)
            elif isinstance(value, tuple):
                ctx.params[name] = tuple(item.removeprefix(_MARK) for item in value)
        return rest


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
    "pdsandbox run add.wasm add 2 3",
    "pdsandbox run --wall 500ms --rss 64MiB plugin.wat",
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

    A module gets fuel, time and memory up to limits that you set, nothing of your files, environment or network,
    and whatever happens to it ends in one line that says exactly what and why.
    """


def limit_option(flag: str, field: str, text: str) -> Callable[[_Callback], _Callback]:
    """A click option for the field `field` of `Limits`; its help names the default."""
    default = getattr(Limits(), field)
    kind = units.duration if field.endswith("_s") else units.size if field.endswith("_bytes") else units.fuel
    return click.option(flag, field, type=LimitType(field), help=f"{text} [default: {kind(default)}]")


def limits_from(options: dict[str, Given | None]) -> Limits:
    """`Limits` with the options that were given."""
    return Limits(**{name: given.value for name, given in options.items() if given is not None})  # type: ignore[arg-type]


def hardening_option(text: str) -> Callable[[_Callback], _Callback]:
    """The click option --hardening, by the names that `Supervisor(hardening=...)` takes."""
    return click.option(
        "--hardening", type=click.Choice(["default", "strict", "off"]), default="default", show_default=True, help=text
    )
