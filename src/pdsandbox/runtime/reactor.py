"""A guest's constructor: what a reactor exports to be run while it is instantiated."""

from __future__ import annotations

from ..calls import COMMAND
from ..errors import CallError
from .bound import Bound
from .guest import Guest

__all__ = ["constructor"]


def constructor(guest: Guest) -> Bound | None:
    """The `_initialize` of a guest that is a reactor, ready to be called; None for a command, or for a guest that has
    no such function."""
    try:
        export = None if guest.resolve("_start") else guest.resolve("_initialize")
    except CallError:  # no function, whatever its name
        return None
    if export is None or export.params is None or export.results is None or export.type != COMMAND:
        return None
    return Bound(guest, export, export.params, export.results)
