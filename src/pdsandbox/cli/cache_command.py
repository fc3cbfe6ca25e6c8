"""`pdsandbox cache`: what the disk cache of compiled modules holds, and clearing it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import click

from ..errors import Cause
from .exits import EXIT_CODES
from .output import Failure, emit, note, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..supervisor.diskplace import Place
    from ..supervisor.diskview import Seen

__all__ = ["command"]

# A terminal's worth; --json has them all.
_ROWS: Final = 40

_EPILOG: Final = """\b
States:
  good          as it was written; it would be loaded
  damaged       it would be set aside and compiled anew; with the reason
  set aside     was found damaged, and is kept for you to look at
  other format  of another version of pdsandbox
  unfinished    being written now, or left by a process that was killed

\b
Examples:
  pdsandbox cache
  pdsandbox cache clear
  pdsandbox cache --dir /var/cache/my-service --json
"""


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    function = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(function)
    text = "Another cache: what Supervisor(cache_dir=...) was given. [default: the one of this command line]"
    return click.option("--dir", "directory", type=click.Path(), help=text)(function)


@click.group(
    "cache", invoke_without_command=True, epilog=_EPILOG, short_help="Show or clear the cache of compiled modules."
)
@_options
@click.pass_context
def command(context: click.Context, directory: str | None, as_json: bool) -> int:
    """Show the disk cache of compiled modules: where it is, what it holds, and what in it is damaged.

    Each module in it is checked as it would be before it is loaded; nothing is loaded.
    """
    if context.invoked_subcommand is not None:
        context.obj = (directory, as_json)
        return 0
    return _answer(directory, as_json, _show)


@command.command("clear", short_help="Remove every compiled module.")
@_options
@click.pass_obj
def clear(before: tuple[str | None, bool], directory: str | None, as_json: bool) -> int:
    """Remove every compiled module from the disk cache, damaged and unfinished ones too.

    Programs that run go on; modules are compiled when they are needed. Files that are not the cache's, and the key,
    stay.
    """
    return _answer(directory or before[0], as_json or before[1], _clear)


def _answer(directory: str | None, as_json: bool, action: Callable[[Place], tuple[dict[str, Any], list[str]]]) -> int:
    from . import report

    try:
        place = _place(directory)
        document, lines = action(place)
    except Failure as exc:
        if as_json:
            emit(report.as_json({"ok": False, "error": report.error_json(exc)}))
        else:
            for line in report.error_lines(exc, ""):
                note(line)
        return exc.code
    if as_json:
        emit(report.as_json({"ok": True, "directory": place.directory, **document}))
    else:
        emit("\n".join(lines))
    return 0


def _place(directory: str | None) -> Place:
    import os

    from ..supervisor import diskplace

    if directory is not None and (not directory or "\0" in directory):
        raise _failure("--dir is not a path")
    where = diskplace.default_directory() if directory is None else os.path.abspath(directory)
    if where is None:
        raise _failure("there is no home directory of this user's for a cache", "XDG_CACHE_HOME or --dir names another")
    return diskplace.Place(where, diskplace.default_secret())


def _failure(text: str, hint: str | None = None) -> Failure:
    return Failure(text, code=EXIT_CODES[Cause.HOST], kind="CacheUnusable", cause=Cause.HOST.value, hint=hint)


def _show(place: Place) -> tuple[dict[str, Any], list[str]]:
    from ..supervisor import diskplace, diskview

    try:
        seen = diskview.survey(place)
    except FileNotFoundError:
        facts = _document([])
        return facts | {"exists": False}, [f"{printable(place.directory)}: no cache yet"]
    except (OSError, diskplace.Unusable) as exc:
        raise _failure(f"the cache in {place.directory} cannot be used: {exc}") from exc
    return _document(seen) | {"exists": True}, _lines(place, seen)


def _document(seen: list[Seen]) -> dict[str, Any]:
    states = Counter(str(item.state) for item in seen)
    return {
        "bytes": sum(item.file.size for item in seen),
        "states": dict(sorted(states.items())),
        "versions": dict(sorted(Counter(item.versions for item in seen if item.versions).items())),
        "files": [
            {
                "name": item.file.name,
                "state": str(item.state),
                "bytes": item.file.size,
                "used": item.file.used / 1e9,
                "versions": item.versions or None,
                "sha256": item.source.hex() or None,
                "why": item.why or None,
            }
            for item in seen
        ],
    }


def _lines(place: Place, seen: list[Seen]) -> list[str]:
    from datetime import UTC, datetime

    from . import units

    facts = _document(seen)
    states = ", ".join(f"{count:,} {state}" for state, count in facts["states"].items()) or "empty"
    lines = [f"{printable(place.directory)}: {states}; {units.size(facts['bytes'])}"]
    lines += [f"  {count:,} by {printable(versions)}" for versions, count in facts["versions"].items()]
    for item in seen[:_ROWS]:
        used = datetime.fromtimestamp(item.file.used // 10**9, tz=UTC)
        about = f"module sha256 {item.source.hex()}" if item.source else printable(item.file.name, 110)
        why = f": {printable(item.why)}" if item.why else ""
        size = units.size(item.file.size)
        lines.append(f"{size:>10}  {used:%Y-%m-%d %H:%M} UTC  {str(item.state) + why:<12}  {about}")
    if len(seen) > _ROWS:
        lines.append(f"... and {len(seen) - _ROWS:,} more: --json shows all")
    return lines


def _clear(place: Place) -> tuple[dict[str, Any], list[str]]:
    from ..supervisor import diskplace, diskview
    from . import units

    try:
        gone = diskview.clear(place)
    except FileNotFoundError:
        return {"files": 0, "bytes": 0}, [f"{printable(place.directory)}: no cache yet"]
    except (OSError, diskplace.Unusable) as exc:
        raise _failure(f"the cache in {place.directory} cannot be cleared: {exc}") from exc
    if gone.failures:
        more = f" and {len(gone.failures) - 1:,} more" if len(gone.failures) > 1 else ""
        raise _failure(f"not everything could be removed from {place.directory}: {gone.failures[0]}{more}")
    files = f"{gone.files:,} file{'s' if gone.files != 1 else ''}"
    return {"files": gone.files, "bytes": gone.bytes}, [
        f"{printable(place.directory)}: removed {files}, {units.size(gone.bytes)}"
    ]
