"""Whether a call that lost its instance may be made once more, and whether its caller may do without an answer: what
plugins and pools have in common. Pure: times are passed in, and nothing is called."""

from __future__ import annotations

from typing import Final, Protocol

from .errors import Cause, PoolFull, PoolTimeout, Quarantined, WasmError
from .interfaces import Capability
from .limits import Limits
from .restarts import is_its_own

__all__ = ["Attempt", "is_absence"]

#: Ends of a call after which it is not made again, though it may be: its time is over, or somebody wanted it to end.
_FINAL: Final = frozenset((Cause.WALL, Cause.CANCELLED, Cause.CLOSED, Cause.USAGE))
# The shortest `wall_s` there is.
_LEAST_S: Final = 0.001


class _Host(Protocol):
    @property
    def missing(self) -> frozenset[Capability]: ...
    @property
    def limits(self) -> Limits: ...


class Attempt:
    """One call, and what is left for a second try at it.

    wall_s  what the next try may take, as `WasmInstance.call` takes it
    began   when this one began to run; None: nothing has run yet
    """

    __slots__ = ("_host", "_may", "began", "wall_s")

    def __init__(self, host: _Host | None, wall_s: float | None, *, idempotent: bool) -> None:
        """`host`: whose limit on time is for both together; None: they have none."""
        self.wall_s = wall_s
        self.began: float | None = None
        self._host = host
        self._may = idempotent

    def again(self, error: WasmError, now: float) -> bool:
        """Its instance was lost in it, by `error`: whether it may be made once more, within what is left of its time.
        Says so once."""
        if not self._may or self.began is None or error.cause in _FINAL:
            return False
        if self._host is not None and Capability.WALL_CLOCK not in self._host.missing:
            allowed_s = self._host.limits.wall_s if self.wall_s is None else self.wall_s
            if allowed_s is not None:
                self.wall_s = allowed_s - (now - self.began)
                if self.wall_s < _LEAST_S:
                    return False
        self._may = False
        return True


def is_absence(error: WasmError) -> bool:
    """Whether the plugin is not to be had, and not because its user ended it, or asked for what cannot be."""
    if isinstance(error, PoolFull | PoolTimeout):
        return False
    return isinstance(error, Quarantined) or error.cause is Cause.HOST or is_its_own(error)
