"""`supervisor.accounts.keep` for tasks: a receipt of one operation, and waiting on the loop for what it ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from ..accounting import Book
from ..supervisor.accounts import END_WAIT_S, Account
from ..supervisor.conversation import Conversation
from .port import Port

__all__ = ["keep"]

_T = TypeVar("_T")


async def keep(
    book: Book,
    what: tuple[str, object, str],
    talk: Conversation,
    port: Port,
    in_turn: Callable[[Callable[[], Awaitable[_T]]], Awaitable[_T]],
    operation: Callable[[], Awaitable[_T]],
) -> _T:
    """`in_turn(operation)`, and a receipt of it in `book`, and in the error if it fails. `what`: as there."""
    account = Account(talk.handle, talk.fuel)

    async def measured() -> _T:
        account.begin()
        try:
            return await operation()
        finally:
            account.end()

    error: BaseException | None = None
    try:
        return await in_turn(measured)
    except BaseException as exc:
        error = exc
        raise
    finally:
        try:
            # Thrown away with its loop (GeneratorExit), nothing can be waited for.
            if account.killed(error) and not isinstance(error, GeneratorExit):
                await port.wait_ended(END_WAIT_S)
        finally:
            account.enter(book, what, error)
            error = None  # as in `Slots.encode`
