"""Receipts of calls: who wants them, and where they go. Measuring is the supervisor's.

Who wants receipts is a context variable: they follow a call through pools and actors, into the tasks and `to_thread`
threads that the block starts, and never into the calls of somebody else.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .receipt import Receipt

__all__ = ["Book", "book", "receipts"]


class Book:
    """Where the receipts of one block go. `outer`: the block's around it, whose calls these are, too."""

    __slots__ = ("entries", "open", "outer")

    def __init__(self, outer: Book | None) -> None:
        self.entries: list[Receipt] = []
        self.open = True
        self.outer = outer

    def enter(self, receipt: Receipt) -> None:
        """Any thread. What comes after the block has ended, from a task that it started, is nobody's."""
        current: Book | None = self
        while current is not None:
            if current.open:
                current.entries.append(receipt)
            current = current.outer


#: How many blocks are open, in whatever thread: what each call looks at, as `accounting.wanted`.
wanted = 0

_current: Final[ContextVar[Book | None]] = ContextVar("pdsandbox_receipts", default=None)
_lock: Final = threading.RLock()


def book() -> Book | None:
    """Where a receipt of what is done now goes; None: nobody wants one."""
    return _current.get()


@contextlib.contextmanager
def receipts() -> Iterator[list[Receipt]]:
    """A block whose calls leave receipts: a list that grows with each call of a supervisor's instance that ends in it,
    in the order in which they end.

    Calls of this thread or task, and of the tasks that it starts in the block; other threads have blocks of their own.
    Blocks may be nested; a call's receipt is in all of them. A call that fails leaves one too, and its error has it as
    `.receipt`. Each call in a block takes some 80 us longer, and one that ended its worker waits until that is gone.
    """
    global wanted
    outer = _current.get()
    mine = Book(outer)
    with _lock:
        wanted += 1
    try:
        _current.set(mine)
        yield mine.entries
    finally:
        mine.open = False
        _current.set(outer)
        with _lock:
            wanted -= 1
