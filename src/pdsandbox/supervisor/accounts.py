"""Measures one operation for its receipt: clocks, fuel, CPU time and memory of the worker before and after.

Used only where somebody wants receipts; the turn is the operation's between `begin` and `end`. How one waits for a
turn, or for the end of a worker, is the caller's: `keep` is for threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from ..accounting import Book
from ..calls import FuelMeter
from ..errors import Cause, WasmError
from ..receipt import Receipt
from .conversation import Conversation
from .handle import Handle

__all__ = ["END_WAIT_S", "Account", "keep"]

# SIGKILL to a report takes about a millisecond; longer only when other processes hold every core.
END_WAIT_S: Final = 1.0

_T = TypeVar("_T")


def keep(
    book: Book,
    what: tuple[str, object, str],
    talk: Conversation,
    in_turn: Callable[[Callable[[], _T]], _T],
    operation: Callable[[], _T],
) -> _T:
    """`in_turn(operation)`, and a receipt of it in `book`, and in the error if it fails. `what`: the kind of operation,
    the function's name, and the module's SHA-256."""
    account = Account(talk.handle, talk.fuel)

    def measured() -> _T:
        account.begin()
        try:
            return operation()
        finally:
            account.end()

    error: BaseException | None = None
    try:
        return in_turn(measured)
    except BaseException as exc:
        error = exc
        raise
    finally:
        if account.killed(error):
            talk.handle.wait_ended(END_WAIT_S)
        account.enter(book, what, error)
        error = None  # as in `Slots.encode`


class Account:
    """One operation's: `begin` and `end` in its turn, `enter` once that was given back, and the worker, where it was
    `killed`, has had `END_WAIT_S` to end."""

    def __init__(self, handle: Handle, meter: FuelMeter) -> None:
        self._handle = handle
        self._meter = meter
        self._asked = self._turn = self._began = self._ended = time.monotonic()
        self._ran = False  # it was its turn
        # None: not known, as when a signal handler's exception came in between.
        self._fuel = 0
        self._used: int | None = None
        self._cpu: float | None = None
        self._cpu_after: float | None = None

    def begin(self) -> None:
        """The turn is ours."""
        self._turn = self._ended = time.monotonic()
        self._fuel = self._meter.used
        self._ran = True
        self._cpu = self._handle.cpu_s()
        self._began = time.monotonic()

    def end(self) -> None:
        """The turn is still ours."""
        self._ended = time.monotonic()
        self._used = self._meter.used - self._fuel
        self._cpu_after = self._handle.cpu_s()

    def killed(self, error: BaseException | None) -> bool:
        """Whether it ended its worker, which takes a moment."""
        return self._ran and error is not None and not self._handle.alive

    def enter(self, book: Book, what: tuple[str, object, str], error: BaseException | None) -> None:
        """Leave the receipt in `book`, and in the error. `what`: see `keep`."""
        receipt = self._made(what, error)
        if isinstance(error, WasmError):
            error.receipt = receipt
        book.enter(receipt)

    def _made(self, what: tuple[str, object, str], error: BaseException | None) -> Receipt:
        if not self._ran:
            return self._receipt(what, error, queue_s=time.monotonic() - self._asked)
        killed = self.killed(error)
        if killed:
            self._cpu_after = self._handle.cpu_in_all
        before, after = self._cpu, self._cpu_after
        stopped = killed or _cause(error) in (Cause.WALL, Cause.CANCELLED)
        return self._receipt(
            what,
            error,
            fuel=None if stopped else self._used,
            cpu_s=None if before is None or after is None else after - before,
            wall_s=max(0.0, self._ended - self._began),
            queue_s=self._turn - self._asked,
        )

    def _receipt(
        self,
        what: tuple[str, object, str],
        error: BaseException | None,
        *,
        fuel: int | None = 0,
        cpu_s: float | None = 0.0,
        wall_s: float = 0.0,
        queue_s: float,
    ) -> Receipt:
        operation, func, sha256 = what
        return Receipt(
            operation=operation,
            func=func if isinstance(func, str) else "",
            fuel=fuel if self._meter.metered else None,
            cpu_s=cpu_s,
            wall_s=wall_s,
            queue_s=queue_s,
            peak_rss_bytes=self._handle.peak_rss(),
            cause=_cause(error),
            sha256=sha256,
            generation=self._handle.ticket,
            pid=self._handle.pid or 0,
        )


def _cause(error: BaseException | None) -> Cause | None:
    """Whoever is torn away by anything else, such as KeyboardInterrupt, has cancelled."""
    if error is None:
        return None
    return error.cause if isinstance(error, WasmError) else Cause.CANCELLED
