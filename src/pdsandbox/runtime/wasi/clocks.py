"""The guest's clocks: the real ones, or one of its own that only looks and sleeps move. Knows nothing of memory."""

from __future__ import annotations

import time
from typing import Final, Protocol

from . import abi

__all__ = ["Clocks", "clocks_of"]

# A longer wait is taken in pieces: what `poll` and `sleep` are given must fit their types.
LONGEST_S: Final = 86_400.0
_NS: Final = 1_000_000_000
_U64: Final = 2**64 - 1


class Clocks(Protocol):
    """Times are nanoseconds. The clock is REALTIME (since 1970) or MONOTONIC (since the instance was made)."""

    #: Whether time passes while somebody waits for a descriptor.
    real: bool

    def now(self, clock: int) -> int: ...

    def resolution(self, clock: int) -> int: ...

    def peek(self, clock: int) -> int:
        """As `now`, without being a look by the guest."""

    def sleep(self, ns: int) -> None: ...


class RealClocks:
    """The kernel's."""

    real = True

    def __init__(self) -> None:
        self._start = time.monotonic_ns()

    def now(self, clock: int) -> int:
        if clock == abi.REALTIME:
            return time.time_ns()
        return time.monotonic_ns() - self._start

    peek = now

    def resolution(self, clock: int) -> int:
        number = time.CLOCK_REALTIME if clock == abi.REALTIME else time.CLOCK_MONOTONIC
        return max(1, round(time.clock_getres(number) * _NS))

    def sleep(self, ns: int) -> None:
        end = time.monotonic_ns() + ns
        while (left := end - time.monotonic_ns()) > 0:
            time.sleep(min(left / _NS, LONGEST_S))


class OwnClock:
    """A `wasi.Clock`: the same times in each run."""

    real = False

    def __init__(self, start_ns: int, step_ns: int) -> None:
        self._start = start_ns
        self._step = step_ns
        self._passed = 0

    def now(self, clock: int) -> int:
        shown = self.peek(clock)
        self._passed += self._step
        return shown

    def peek(self, clock: int) -> int:
        return min(self._passed + (self._start if clock == abi.REALTIME else 0), _U64)

    def resolution(self, clock: int) -> int:
        return max(1, self._step)

    def sleep(self, ns: int) -> None:
        self._passed += max(0, ns)


def clocks_of(own: tuple[int, int] | None) -> Clocks:
    """(start, step) of the guest's own; None: the real ones."""
    return RealClocks() if own is None else OwnClock(*own)
