"""What went wrong in a worker, as an ERROR message. Text is cut here; the supervisor trusts none of it anyway."""

from __future__ import annotations

import dataclasses
import traceback

from ..errors import (
    CallError,
    Cause,
    CompileError,
    FuelExhausted,
    GuestExit,
    InstantiationError,
    MemoryAccessError,
    Trap,
    WasmError,
)
from ..protocol import messages as m

_TEXT_CHARS = 2000
_START = {
    Cause.GUEST_TRAP: m.Failure.START_TRAP,
    Cause.HOST_FUNCTION: m.Failure.START_HOST_FUNCTION,
    Cause.MEMORY: m.Failure.START_MEMORY,
    Cause.HOST: m.Failure.START_HOST,
}


class RemoteFailed(BaseException):
    """The host function that the supervisor ran failed; why is known there. Ends the guest's call."""


def error_message(exc: BaseException, fuel: int, where: tuple[int, int] = (0, 0)) -> m.Error:
    """The ERROR for what a guest operation raised. `where`: the guest's memory then."""
    return dataclasses.replace(_message(exc, fuel), base=where[0], size=where[1])


def _message(exc: BaseException, fuel: int) -> m.Error:
    root = exc.__cause__
    if isinstance(exc, RemoteFailed):
        return m.Error(m.Failure.REMOTE, fuel)
    if isinstance(root, RemoteFailed):
        started = isinstance(exc, InstantiationError)
        return m.Error(m.Failure.START_REMOTE if started else m.Failure.REMOTE, fuel)
    failure, text = m.Failure.ENGINE, str(exc)
    if isinstance(exc, WasmError):
        text = exc.message
        if isinstance(exc, FuelExhausted):
            failure = m.Failure.FUEL
        elif isinstance(exc, MemoryAccessError):
            failure = m.Failure.MEMORY
        elif isinstance(exc, GuestExit):
            failure = m.Failure.GUEST_EXIT
        elif isinstance(exc, Trap):
            failure = m.Failure.TRAP
        elif isinstance(exc, CompileError):
            failure = m.Failure.COMPILE
        elif isinstance(exc, InstantiationError):
            failure = _START.get(exc.cause, m.Failure.LINK)
        elif isinstance(exc, CallError) and exc.cause is Cause.HOST_FUNCTION:
            failure = m.Failure.HOST_LIMIT if exc.limit is not None else m.Failure.HOST_FUNCTION
        elif isinstance(exc, CallError):
            failure = m.Failure.CALL
        if failure in (m.Failure.HOST_FUNCTION, m.Failure.START_HOST_FUNCTION) and root is not None:
            # The supervisor cannot have the original: its text becomes the chained exception's.
            text += "\n" + "".join(traceback.format_exception(root))[-_TEXT_CHARS:]
        return m.Error(
            failure,
            fuel,
            None if exc.trap_code is None else exc.trap_code.value,
            None if exc.limit is None else int(exc.limit),
            (exc.exit_code or 0) & 0xFFFFFFFF,
            _sendable(text),
            exc.frames[: m.MAX_FRAMES],
        )
    return m.Error(failure, fuel, text=_sendable(f"{type(exc).__name__}: {text}"))


def _sendable(text: str) -> str:
    return text[: 2 * _TEXT_CHARS].encode("utf-8", "replace").decode("utf-8")
