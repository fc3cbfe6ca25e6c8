"""The outcome of a run as data (`--json`), and its figures in a line (`--stats`). Pure."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from . import numbers, units
from .report import error_json

if TYPE_CHECKING:
    from .session import Outcome

__all__ = ["of", "stats"]


def of(outcome: Outcome) -> dict[str, Any]:
    """The object that `--json` prints."""
    return {
        "ok": outcome.ok,
        "file": outcome.file,
        "export": outcome.task and outcome.task.export,
        "results": None if outcome.results is None else [numbers.plain(value) for value in outcome.results],
        "exit_code": outcome.exit_code,
        "error": None if outcome.error is None else error_json(outcome.error),
        **_text("stdout", outcome.stdout),
        **_text("stderr", outcome.stderr),
        "truncated": outcome.truncated,
        "fuel_consumed": outcome.fuel_consumed,
        "wall_s": outcome.wall_s,
        "cpu_s": outcome.cpu_s,
        "peak_rss_bytes": outcome.peak_rss_bytes,
        "compile_s": outcome.compile_s,
        "instantiate_s": outcome.instantiate_s,
        "start_s": outcome.start_s,
        "pid": outcome.pid,
    }


def _text(name: str, data: bytes | None) -> dict[str, str | None]:
    if data is None:
        return {name: None, f"{name}_encoding": None}
    try:
        return {name: data.decode("utf-8"), f"{name}_encoding": "utf-8"}
    except UnicodeDecodeError:
        return {name: base64.b64encode(data).decode("ascii"), f"{name}_encoding": "base64"}


def stats(outcome: Outcome) -> str:
    """One line; what is not known is left out."""
    parts = [_end(outcome)]
    if outcome.fuel_consumed is not None:
        parts.append(f"fuel {units.fuel(outcome.fuel_consumed)}")
    for name, seconds in (("CPU", outcome.cpu_s), ("wall", outcome.wall_s)):
        if seconds is not None:
            parts.append(f"{name} {units.duration(seconds)}")
    if outcome.peak_rss_bytes is not None:
        parts.append(f"peak RSS {units.size(outcome.peak_rss_bytes)}")
    start = [
        f"{name} {units.duration(seconds)}"
        for name, seconds in (("compiling", outcome.compile_s), ("instantiating", outcome.instantiate_s))
        if seconds is not None
    ]
    if outcome.start_s is not None:
        parts.append(f"start-up {units.duration(outcome.start_s)}" + (f" ({', '.join(start)})" if start else ""))
    return "pdsandbox: " + "; ".join(parts)


def _end(outcome: Outcome) -> str:
    if outcome.error is not None:
        return f"ended by {outcome.error.cause if isinstance(outcome.error.cause, str) else outcome.error.cause.value}"
    return "done" if outcome.exit_code is None else f"exit code {outcome.exit_code}"
