"""`--dir` as people write it: `SRC[::DST][:ro|:rw[:MAX]]`. Pure; whether the directory is there is found out later."""

from __future__ import annotations

import re
from typing import Final

from ..wasi import Dir
from . import units
from .output import printable

__all__ = ["WRITABLE_BYTES", "parse"]

#: How much a directory that was granted for writing may grow, unless something else is said: room for most programs'
#: results, and little enough that a stranger's program does not fill the disk.
WRITABLE_BYTES: Final = 1 << 30

# From the right: a path may hold colons, and one that itself ends in ":ro" needs its mode to be said.
_FORM: Final = re.compile(r"(.*?)(?::(ro|rw)(?::([0-9][^:/]*|none))?)?", re.DOTALL)


def parse(text: str) -> Dir:
    """ValueError, saying what is wrong."""
    form = _FORM.fullmatch(text)
    assert form is not None  # anything at all is a path
    paths, mode, most = form.groups()
    host, named, guest = paths.partition("::")
    if not named:
        guest = host
    if not host or not guest:
        raise ValueError(f"{_shown(text)} names no directory{' in the guest' if host else ''}; {_FORMS}")
    if "::" in guest or guest.startswith(":"):
        raise ValueError(f"{_shown(text)} has more than one :: in it, and cannot be told apart")
    if ".." in guest.split("/"):
        raise ValueError(f"{_shown(guest)} is no place in the guest; give it one: {printable(host, 60)}::/NAME")
    return Dir(host, guest, mode or "ro", _most(mode or "ro", most))


_FORMS: Final = "write SRC, SRC::DST, or either with :ro, :rw or :rw:SIZE"


def _most(mode: str, text: str | None) -> int | None:
    if text is None:
        return WRITABLE_BYTES if mode == "rw" else None
    return None if text == "none" else units.amount_of_bytes(text)


def _shown(text: str) -> str:
    return f"'{printable(text, 80)}'"
