"""The ledger of a load: each call has a number, is counted where it executes, and ends once, as it should.

It knows neither pools nor processes: what a call may come to is said by its `Kind`, and what else may befall it (its
worker is killed) by `misfortunes`. Anything else is a fault, in words.
"""

from __future__ import annotations

import collections
import itertools
import threading
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pdsandbox import Cause, WasmError

# More faults than this tell nobody more.
_MOST_FAULTS: Final = 20

#: Errors that may end any call, by the name that they are counted under.
Misfortunes = Mapping[str, Callable[[WasmError], bool]]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of call.

    name      what it is counted under
    weight    how often it is made, relative to the others
    make      makes call number n, and returns what that did
    right     whether that is the right answer to it; None: there is none, it has to fail
    error     the class and cause that it has to fail with, and what else must be so
    runs      how often its host function runs when it comes to its right end
    at_most   the same when its worker dies
    at_least  the same when it fails by its own fault: not all of them come as far as that
    """

    name: str
    weight: float
    make: Callable[[int], Any]
    right: Callable[[Any, int], bool] | None = None
    error: tuple[type[WasmError], Cause] | None = None
    like: Callable[[WasmError], bool] = lambda _error: True
    runs: int = 1
    at_most: int = 1
    at_least: int = 1


class Ledger:
    """See the module's text. Any thread, but for the figures, which are for afterwards.

    calls    how many have ended
    tally    the same by (kind, how they ended)
    strays   executions of calls that had ended
    faults   what was not as it should be
    took     seconds that each call took, if `timed`
    """

    def __init__(self, misfortunes: Misfortunes, *, timed: bool = False) -> None:
        self._misfortunes = misfortunes
        self._numbers = itertools.count(1)
        self._running: dict[int, int] = {}
        self._lock = threading.Lock()
        self._timed = timed
        self.calls = 0
        self.tally: collections.Counter[tuple[str, str]] = collections.Counter()
        self.strays = 0
        self.faults: list[str] = []
        self.more_faults = 0
        self.took = array("d")

    def begin(self) -> int:
        """The number of a call that begins."""
        number = next(self._numbers)
        self._running[number] = 0
        return number

    def note(self, number: int) -> int:
        """For its host function, which runs in the thread of the call: it has executed."""
        if number in self._running:
            self._running[number] += 1
        else:
            with self._lock:
                self.strays += 1
        return number + 1

    def end(self, kind: Kind, number: int, answer: Any, error: BaseException | None, seconds: float) -> bool:
        """It came to this; whether that was its right answer, or its right failure."""
        executed = self._running.pop(number)
        outcome, fault = self._judge(kind, number, executed, answer, error)
        with self._lock:
            self.calls += 1
            self.tally[kind.name, outcome] += 1
            if self._timed:
                self.took.append(seconds)
        if fault is not None:
            self.fault(f"call {number:,} ({kind.name}), executed {executed} times: {fault}")
        return fault is None and outcome == "right"

    def fault(self, text: str) -> None:
        """Something is not as it should be."""
        with self._lock:
            if len(self.faults) < _MOST_FAULTS:
                self.faults.append(text)
            else:
                self.more_faults += 1

    @property
    def running(self) -> int:
        """Calls that have not ended."""
        return len(self._running)

    def ended(self, outcome: str, kind: str | None = None) -> int:
        """How many ended so, of one kind or of all."""
        return sum(n for (name, how), n in self.tally.items() if how == outcome and kind in (None, name))

    def _judge(
        self, kind: Kind, number: int, executed: int, answer: Any, error: BaseException | None
    ) -> tuple[str, str | None]:
        """How it ended, and what was wrong with that."""
        if error is None:
            if kind.right is None or not kind.right(answer, number):
                return "wrong", f"answered {answer!r}"
            return "right", None if kind.runs <= executed <= kind.at_most else "answered"
        if not isinstance(error, WasmError):
            return "raised", f"raised {error!r}"
        if kind.error == (type(error), error.cause) and kind.like(error):
            return "right", None if kind.at_least <= executed <= kind.runs else f"failed with {error}"
        for name, applies in self._misfortunes.items():
            if applies(error):
                return name, None if executed <= kind.at_most else f"ended by {error}"
        return "wrong", f"failed with {type(error).__name__}, cause {error.cause.name}: {error}"
