"""The command line of `pdsandbox run`, taken apart: which words are ours, and which the guest's.

Our options are all long, and what stands after FILE is the guest's wherever the two could be mistaken for each other:
see `parse`. Pure, and without click, which takes as long to import as a whole small program takes to run; click makes
the help out of the same table (`run_command`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .exits import BAD_OPTION
from .output import Failure, printable

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["OPTIONS", "Line", "Option", "misuse", "parse", "wants_help"]

_HARDENINGS: Final = ("default", "strict", "off")


class Option(NamedTuple):
    """One option.

    metavar   what it takes; empty for a switch
    field     of `Limits` that it sets, or empty
    grant     it gives the guest something, so that it must come before FILE
    many      it may be given more than once
    """

    name: str
    metavar: str
    text: str
    field: str = ""
    grant: bool = False
    many: bool = False


OPTIONS: Final = (
    Option("--invoke", "EXPORT", "Call this export, with the words after FILE as its arguments."),
    Option("--dir", "DIR", "Grant a directory, and all beneath it: see below.", grant=True, many=True),
    Option("--env", "NAME[=VALUE]", "Give it a variable; without =VALUE, yours.", grant=True, many=True),
    Option("--argv0", "NAME", "The program's name for itself. [default: FILE's]"),
    Option("--fuel", "UNITS", "Fuel for starting the module, and for the call.", "fuel"),
    Option("--wall", "TIME", "Time for starting the module, and for the call.", "wall_s"),
    Option("--rss", "SIZE", "Memory of the worker process, about 25 MiB of its own included.", "rss_bytes"),
    Option("--memory", "SIZE", "Each linear memory; growing beyond it fails inside the module.", "memory_bytes"),
    Option("--memories", "COUNT", "Linear memories of the module.", "memories"),
    Option("--table-elements", "COUNT", "Elements of each table.", "table_elements"),
    Option("--stack", "SIZE", "The module's stack.", "stack_bytes"),
    Option("--host-calls", "COUNT", "Calls of pd_* functions, which do nothing here.", "host_calls"),
    Option("--module-bytes", "SIZE", "The module's file.", "module_bytes"),
    Option("--compile-wall", "TIME", "Time for compiling.", "compile_wall_s"),
    Option("--compile-rss", "SIZE", "Memory for compiling.", "compile_rss_bytes"),
    Option("--hardening", "|".join(_HARDENINGS), "How the worker is locked down; strict: nothing less. See `doctor`."),
    Option("--clock", "START[+STEP]", "A clock of the guest's own, in ns since 1970: it moves by STEP a look."),
    Option("--seed", "NUMBER", "Random numbers that follow from this, instead of the kernel's."),
    Option("--no-cache", "", "Neither take compiled code from this user's cache, nor put it there."),
    Option("--stats", "", "At the end, say on standard error what it took."),
    Option("--json", "", "At the end, print one object, with what the guest wrote in it, and nothing else."),
    Option("--stdout-bytes", "SIZE", "With --json: how much of standard output is kept. [default: 1 MiB]"),
    Option("--stderr-bytes", "SIZE", "With --json: the same for standard error. [default: 1 MiB]"),
)
_BY_NAME: Final = {option.name: option for option in OPTIONS}


class Line:
    """A command line of `run`.

    file    the module's
    words   what comes after it
    values  by the options' names; a list where an option may be given more than once
    limits  the fields of `Limits` that were given
    """

    __slots__ = ("file", "limits", "values", "words")

    def __init__(self) -> None:
        self.file = ""
        self.words: list[str] = []
        self.values: dict[str, Any] = {}
        self.limits: dict[str, Any] = {}

    def given(self, name: str) -> bool:
        """Whether a switch was."""
        return name in self.values


def misuse(message: str, hint: str = "`pdsandbox run --help` lists the options") -> Failure:
    """The command line cannot be meant."""
    return Failure(message, code=BAD_OPTION, kind="UsageError", cause="usage", hint=hint)


def wants_help(args: list[str]) -> bool:
    """Whether this asks for help: with --help among our options, or -h before FILE."""
    try:
        ours = args[: args.index("--")]
    except ValueError:
        ours = args
    return "--help" in ours or ours[:1] == ["-h"]


def parse(args: list[str]) -> Line:
    """Take `args`, the words after `run`, apart. Failure for what cannot be meant.

    Before FILE every word that begins with a dash is an option. After it, up to a `--`, our options are still ours,
    but for grants: those are refused, since they may have been meant for the guest. Other words with two dashes are
    refused, too (they may be our options, mistyped); all the rest, `-c` and `-1` too, is the guest's, and so is
    everything after `--`.
    """
    line = Line()
    words: list[str] = []
    at, open_ = 0, True
    while at < len(args):
        word = args[at]
        at += 1
        if not open_ or not word.startswith("-") or word == "-" or (words and not word.startswith("--")):
            words.append(word)
        elif word == "--":
            open_ = False
        else:
            at = _take(line, word, args, at, after=words)
    if not words or not words[0]:
        raise misuse("Missing argument 'FILE': the module to run")
    line.file, line.words = words[0], words[1:]
    _agree(line)
    return line


def _take(line: Line, word: str, args: list[str], at: int, *, after: list[str]) -> int:
    """One option; where the next word is."""
    name, equals, value = word.partition("=")
    option = _BY_NAME.get(name)
    if option is None:
        raise _unknown(name, after)
    if option.grant and after:
        text = f"{name} after FILE: is it a grant, or the guest's argument?"
        file = printable(after[0])
        raise misuse(text, f"a grant comes before FILE, the guest's arguments after --: {file} -- {name} ...")
    if not option.metavar:
        if equals:
            raise misuse(f"{name} takes no value")
        value = ""
    elif not equals:
        if at == len(args):
            raise misuse(f"{name} needs a value: {name} {option.metavar}")
        value, at = args[at], at + 1
    try:
        _keep(line, option, value)
    except ValueError as exc:
        raise misuse(f"invalid value for {name}: {exc}") from None
    return at


def _unknown(name: str, after: list[str]) -> Failure:
    import difflib  # for this alone

    near = difflib.get_close_matches(name, _BY_NAME, 1)
    meant = f"did you mean {near[0]}? " if near else ""
    if after:
        file = printable(after[0])
        hint = f"{meant}What is the guest's comes after --: pdsandbox run {file} -- {printable(name)} ..."
    else:
        hint = meant.strip() or "`pdsandbox run --help` lists the options"
    return misuse(f"no such option: {printable(name)}", hint)


def _keep(line: Line, option: Option, value: str) -> None:
    """ValueError for what is no value of this option."""
    name = option.name
    if option.field:
        from . import units

        line.limits[option.field] = units.limit(option.field, value)
        return
    kept = _READERS.get(name, str)(value)
    if option.many:
        line.values.setdefault(name, []).append(kept)
    else:
        line.values[name] = kept


def _agree(line: Line) -> None:
    if not line.given("--json"):
        for name in ("--stdout-bytes", "--stderr-bytes"):
            if name in line.values:
                raise misuse(f"{name} needs --json: what is written as it comes is not limited")


def _hardening(text: str) -> str:
    if text not in _HARDENINGS:
        raise ValueError(f"{printable(text)!r} is none of {', '.join(_HARDENINGS)}")
    return text


def _size(text: str) -> int:
    from . import units

    return units.amount_of_bytes(text)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) < 1 << 64):
        raise ValueError(f"{printable(text, 40)!r} is not a number from 0 to 2**64 - 1")
    return int(text)


def _clock(text: str) -> tuple[int, int]:
    start, plus, step = text.partition("+")
    return _number(start), _number(step) if plus else 0


def _dir(text: str) -> Any:
    from . import directories

    return directories.parse(text)


def _env(text: str) -> tuple[str, str]:
    import os

    name, equals, value = text.partition("=")
    if not name:
        raise ValueError(f"{printable(text, 40)!r} has no name")
    if equals:
        return name, value
    if name not in os.environ:
        raise ValueError(f"there is no variable {printable(name, 60)} to give it; {printable(name, 60)}=VALUE sets one")
    return name, os.environ[name]


_READERS: Final[dict[str, Callable[[str], Any]]] = {
    "--hardening": _hardening,
    "--stdout-bytes": _size,
    "--stderr-bytes": _size,
    "--seed": _number,
    "--clock": _clock,
    "--dir": _dir,
    "--env": _env,
}
