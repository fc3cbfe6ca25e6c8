"""Whose turn it is on one instance: any thread may use it, one at a time, and whoever leaves half-way has killed it.

The turn is an RLock: whoever holds it owns the pipes, and the thread of a call does its I/O itself. An operation that
is left half-way (KeyboardInterrupt, an exception from a signal handler) kills the worker, cause CANCELLED. The holder
of the turn closes the descriptors of a condemned worker on its way out. It does not hold the instance, which must be
able to go while this is still known to somebody.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from .. import generation
from ..errors import CallError, WasmError
from ..limits import Limits, check_limit
from . import monitor
from .conversation import Conversation

# SIGKILL to a report takes about a millisecond; longer only when other processes hold every core.
END_WAIT_S: Final = 5.0

_T = TypeVar("_T")


class Turns:
    """See the module's text."""

    def __init__(self, talk: Conversation, limits: Limits) -> None:
        self.talk = talk
        self.limits = limits
        self.generation = generation.now
        self.lock = talk.turn
        self._handle = talk.handle
        self._worker = talk.place.worker
        self.leave = self._worker.leave_operation

    def run(self, wall_s: float | None, operation: Callable[[], _T], *, usable: bool = True) -> _T:
        """Run `operation` when it is our turn, and give the turn back whatever happens. `usable`: the instance must be.

        An exception from a signal handler may come after any call and at the start of any function: what must happen
        is the C call in the innermost `finally`, with nothing of ours before it that could fail instead.
        """
        if self.generation != generation.now:
            raise self.foreign()
        if self._handle.turn_is_ours():
            raise self.reentered()
        try:
            if not self.lock.acquire(False):
                self.wait(wall_s)
            if self._handle.busy or self._handle.attention:
                self.enter(usable=usable)
            if usable and self.talk.closed:
                raise self.closed_error()
            result = operation()
            if usable and self.talk.closed:
                raise self.closed_error()
            return result
        finally:
            try:
                self.leave()
            finally:
                try:
                    self.lock.release()
                except RuntimeError:
                    pass  # it was never ours

    def wall(self, wall_s: float | None) -> float | None:
        """The limit of an operation that was asked for with this one. CallError for what is none."""
        if wall_s is None:
            return self.limits.wall_s
        try:
            return float(check_limit("wall_s", wall_s))
        except ValueError as exc:
            raise CallError(str(exc)) from None

    def wait(self, wall_s: float | None) -> None:
        """Until the turn is ours. CallError when that takes too long."""
        if self.talk.closed:
            raise self.closed_error()
        if not self.lock.acquire(timeout=-1 if wall_s is None else wall_s):
            raise CallError(f"the instance is busy: other threads used it for all of {wall_s:g} s", limit=wall_s)

    def enter(self, *, usable: bool = True) -> None:
        """The turn is ours, and something is not as it should be, or something is to be said first."""
        handle = self._handle
        if handle.busy or handle.alive:
            # Whoever had the turn before may have been torn away in the middle of leaving.
            self.leave()
        if usable and not self.talk.closed and not handle.alive:
            raise handle.verdict or handle.post_mortem(time.monotonic(), END_WAIT_S)

    def foreign(self) -> CallError:
        """For a fork of the user's process."""
        return CallError("this instance belongs to the process that made it, not to a fork of it")

    def reentered(self) -> CallError:
        """For a use from inside a host function."""
        other = self._handle.busy not in (None, self.talk)
        whose = "a host function of another instance in its worker" if other else "its own host function"
        return CallError(f"an instance cannot be used from inside {whose}")

    def closed_error(self) -> WasmError:
        """For a use after `close`."""
        error = monitor.closed()
        error.pid = self._handle.pid
        return error
