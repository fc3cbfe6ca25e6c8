"""rich, tamed: no markup, no emoji codes, no guessed highlighting, and output through `emit` like everything else."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["console", "rendered"]

# rich takes 80 columns for what is no terminal; a log or a pager has room for whole names.
_PIPE_WIDTH: Final = 120


def console(**options: Any) -> Console:
    """A console on standard output that takes no text for markup."""
    out = Console(file=sys.stdout, markup=False, emoji=False, highlight=False, **options)
    if not out.is_terminal and "COLUMNS" not in os.environ:
        out.width = _PIPE_WIDTH
    return out


def rendered(out: Console, *parts: RenderableType) -> str:
    """`parts` as `out` would show them, without a newline at the end."""
    with out.capture() as capture:
        for part in parts:
            # A line of text, which may be a command to copy, is the terminal's to wrap; a table is rich's.
            out.print(part, soft_wrap=isinstance(part, Text))
    return "\n".join(line.rstrip() for line in capture.get().rstrip("\n").split("\n"))
