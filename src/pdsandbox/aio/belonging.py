"""What belongs where on event loops: pools and plugins to their loop and their process, and instances to the tasks that
have them or start them, and to what those tasks start.

A claim goes with its context, into host functions and into tasks that are made in it: a task may wait for another one
of its own, so which of them it is that has an instance says nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Final

from .. import generation
from ..errors import CallError

__all__ = ["Claim", "Kind", "belongs", "check_loop", "claims", "while_it"]


class Kind(enum.Enum):
    """What is being done with a pool or a plugin."""

    HAS = "has"  #: one of its instances
    STARTS = "starts"  #: one of its instances, for whoever comes
    SWAPS = "swaps"  #: its module


class Claim:
    """Somebody has, or does, something, until `end`."""

    __slots__ = ("_kind", "_whose")

    def __init__(self, whose: object, kind: Kind) -> None:
        self._whose: object = whose
        self._kind = kind

    def begin(self) -> None:
        """In this context, and in those that are copied from it."""
        _claims.set((*_claims.get(), self))

    def end(self) -> None:
        """Everywhere. It keeps nothing alive from now on."""
        self._whose = None
        _claims.set(tuple(claim for claim in _claims.get() if claim._whose is not None))

    def is_of(self, whose: object, kind: Kind) -> bool:
        return self._whose is whose and self._kind is kind


_claims: Final[ContextVar[tuple[Claim, ...]]] = ContextVar("pdsandbox_claims", default=())


def claims(whose: object, kind: Kind) -> bool:
    """Whether who runs here does that, or was called or made by who does."""
    return any(claim.is_of(whose, kind) for claim in _claims.get())


@contextlib.contextmanager
def while_it(whose: object, kind: Kind) -> Iterator[None]:
    """A block that does it."""
    claim = Claim(whose, kind)
    claim.begin()
    try:
        yield
    finally:
        claim.end()


def belongs(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether this is the loop's thread, in the midst of its work."""
    return asyncio._get_running_loop() is loop


def check_loop(what: str, loop: asyncio.AbstractEventLoop, made_in: int) -> None:
    """CallError unless we are in this loop, and in the process (`generation.now`) that `what` was made in."""
    if made_in != generation.now:
        raise CallError(f"this {what} belongs to the process that made it, not to a fork of it")
    running = asyncio._get_running_loop()
    if running is loop:
        return
    if running is None:
        raise CallError(f"an asynchronous {what} can be used only by a task of its event loop")
    raise CallError(f"this {what} belongs to another event loop: the one that it was made on")
