"""Text that a stranger chose, made fit for one line of a message: escaped and cut. Pure."""

from __future__ import annotations

__all__ = ["one_line", "quoted"]


def one_line(text: str, limit: int = 1000) -> str:
    """`text` on one line of at most about `limit` characters: runs of white space become one space, anything else
    that is not printable (controls, bidirectional marks, lone surrogates) its escape."""
    cut = text[: limit + 1] if len(text) > limit else text
    plain = " ".join(cut.split())
    safe = "".join(ch if ch.isprintable() else ascii(ch)[1:-1] for ch in plain)
    return safe if len(text) <= limit and len(safe) <= limit else safe[:limit] + "…"


def quoted(name: str, limit: int = 100) -> str:
    """`name` in double quotes, escaped and cut, blanks and all."""
    cut = name[:limit]
    safe = "".join(_ESCAPES.get(ch, ch) if ch.isprintable() else ascii(ch)[1:-1] for ch in cut)
    more = "…" if len(name) > limit or len(safe) > limit else ""
    return f'"{safe[:limit]}{more}"'


_ESCAPES = {'"': '\\"', "\\": "\\\\"}
