"""An error as people read it (one line, a hint where it helps) and as programs do (`--json`). Pure.

Whatever a guest chose reaches a terminal only through `printable` or JSON's ASCII escapes.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any, Final

from ..errors import Cause, CompileError, InstantiationError, WasmError
from ..text import one_line
from .exits import EXIT_CODES
from .output import Failure, printable

if TYPE_CHECKING:
    from ..errors import Frame

__all__ = ["argument", "as_json", "error_json", "error_lines", "exit_code"]

# Enough to see which function failed and who called it; `--json` has them all.
_FRAMES_SHOWN: Final = 6
# A few lines of a terminal: nobody reads on.
_LINE: Final = 600
# The text parser points into the source over several lines, which one line cannot show.
_AT: Final = re.compile(r"\s+-->\s+<anon>:(\d+):(\d+).*", re.DOTALL)
_OPTIONS: Final[dict[Cause, str]] = {Cause.FUEL: "--fuel", Cause.WALL: "--wall", Cause.RSS: "--rss"}


def exit_code(error: WasmError | Failure) -> int:
    """The exit code that `error` ends the command with."""
    return error.code if isinstance(error, Failure) else EXIT_CODES[error.cause]


def error_lines(error: WasmError | Failure, file: str) -> list[str]:
    """One line that says what happened; a second one with what helps, where anything does."""
    if isinstance(error, Failure):
        lines = [one_line(f"pdsandbox: {error.message}", _LINE)]
        hint = error.hint
    else:
        text = _AT.sub(r" at line \1, column \2", str(error)) if isinstance(error, CompileError) else str(error)
        lines = [one_line(f"pdsandbox: {text}", _LINE)]
        hint = _hint(error, file)
    if hint:
        lines.append(f"  hint: {one_line(hint)}")
    return lines


def _hint(error: WasmError, file: str) -> str | None:
    if error.frames:
        shown = ", called by ".join(_frame(frame) for frame in error.frames[:_FRAMES_SHOWN])
        more = len(error.frames) - _FRAMES_SHOWN
        return f"in {shown}" + (f" and {more} more" if more > 0 else "")
    option = _OPTIONS.get(error.cause)
    if option and not isinstance(error, CompileError):
        return f"{option} sets this limit"
    if isinstance(error, InstantiationError) and error.cause is Cause.LINK:
        if "memory limits" in error.message:
            return "--memory sets this limit"
        return f"`pdsandbox inspect {argument(file)}` lists what the module needs"
    if error.cause is Cause.HOST and "locked down" in error.message:
        return "`pdsandbox doctor` shows every layer, what its absence costs and how to get it"
    if error.stderr_tail:
        last = error.stderr_tail.decode("utf-8", "replace").strip().splitlines()[-1:]
        return f"the worker's last words: {printable(last[0])}" if last else None
    return None


def argument(file: str) -> str:
    """A file name as it may be pasted into a shell; one that would not print only looks like it."""
    return shlex.quote(file) if file.isprintable() else printable(file)


def _frame(frame: Frame) -> str:
    name = f"`{printable(frame.func_name, 60)}`" if frame.func_name else f"function {frame.func_index}"
    return f"{name} at {frame.module_offset:#x}"


def error_json(error: WasmError | Failure) -> dict[str, Any]:
    """The error's data; a key that does not apply is null."""
    if isinstance(error, Failure):
        facts: dict[str, Any] = {"class": error.kind, "cause": error.cause, "message": error.message}
        facts["text"] = error.message
        return facts | {"trap_code": None, "frames": []} | dict.fromkeys(_PLAIN)
    return {
        "class": type(error).__name__,
        "cause": error.cause.value,
        "message": error.message,
        "text": str(error),
        "trap_code": error.trap_code.name if error.trap_code else None,
        "frames": [
            {
                "func_index": frame.func_index,
                "func_name": frame.func_name,
                "module_name": frame.module_name,
                "func_offset": frame.func_offset,
                "module_offset": frame.module_offset,
            }
            for frame in error.frames
        ],
        "limit": error.limit,
        "observed": error.observed,
        "signal": error.signal,
        "exit_code": error.exit_code,
        "pid": error.pid,
        "stderr_tail": error.stderr_tail.decode("utf-8", "backslashreplace") or None,
    }


_PLAIN: Final = ("limit", "observed", "signal", "exit_code", "pid", "stderr_tail")


def as_json(document: dict[str, Any]) -> str:
    """One line of strict JSON in ASCII: safe on a terminal whatever names it holds, and no NaN."""
    return json.dumps(document, ensure_ascii=True, allow_nan=False).replace("\x7f", "\\u007f")
