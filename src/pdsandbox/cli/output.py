"""The only way to the terminal: text that a guest chose is escaped, and a reader who left is no traceback.

Names, frames and messages may hold whatever a stranger put into a module, terminal escape sequences included.
`printable` makes one harmless line of it. Knows neither click nor rich.
"""

from __future__ import annotations

import errno
import sys
from typing import IO, Final

__all__ = ["Failure", "OutputGone", "emit", "note", "printable"]

# Several times a long symbol name, and still little to scroll past.
CUT: Final = 200


class Failure(Exception):
    """The command ends with `code` after one line on stderr, and `hint` on a second where it helps.

    `kind` and `cause` are what `--json` reports as the error's class and cause.
    """

    def __init__(self, message: str, *, code: int, kind: str, cause: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.kind = kind
        self.cause = cause
        self.hint = hint


class OutputGone(Exception):
    """Standard output cannot be written; `broken` when its reader merely left."""

    def __init__(self, reason: str, *, broken: bool) -> None:
        super().__init__(reason)
        self.broken = broken


def printable(text: str, cut: int = CUT) -> str:
    """`text` with every character escaped that does not print (controls, bidirectional marks, lone surrogates,
    line breaks), and cut to about `cut` characters. Backslashes are doubled, so no two texts look the same."""
    short = text[:cut]
    if not (short.isprintable() and "\\" not in short):
        short = "".join(map(_escaped, short))
    if len(text) <= cut:
        return short
    return f"{short}... ({len(text):,} characters)"


def _escaped(char: str) -> str:
    if char == "\\":
        return "\\\\"
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")


def emit(text: str, stream: IO[str] | None = None) -> None:
    """Write `text` and a newline to standard output, at once. Raises OutputGone when that is impossible."""
    stream = stream or sys.stdout
    if stream is None:  # Python was started with standard output closed
        raise OutputGone("it is closed", broken=True)
    try:
        stream.write(text + "\n")
        stream.flush()
    except BrokenPipeError as exc:
        raise OutputGone("its reader left", broken=True) from exc
    except (OSError, ValueError) as exc:
        reason = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
        closed = isinstance(exc, OSError) and exc.errno == errno.EBADF
        raise OutputGone(reason, broken=closed) from exc


def note(text: str) -> None:
    """Write one line to standard error; if that is gone, there is nobody left to tell."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):
        pass
