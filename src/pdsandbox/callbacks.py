"""Runs a user's host function by its convention: raw slots in, raw slots out, every failure a contract error.

Both hosts use this, so a callback behaves the same next to the guest and across a pipe. It knows nothing of engines
or pipes, and gets memory through the small `Memory` protocol.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable
from typing import Any, Protocol

from .calls import as_data, check_range
from .errors import CallError, Cause, MemoryAccessError
from .imports import Offer
from .slots import Slots

__all__ = ["Callback", "LiveCaller", "Memory"]

_i32_slot = struct.Struct("<i12x")
_i64_slot = struct.Struct("<q8x")


class Memory(Protocol):
    """The guest's memory; ranges are checked by whoever implements it (MemoryAccessError)."""

    def memory_read(self, offset: int, length: int) -> bytes: ...

    def memory_write(self, offset: int, data: bytes) -> None: ...


class LiveCaller:
    """The `Caller` that a host function gets; `end` it when the function returns: kept longer, it raises CallError.

    `fault` is the MemoryAccessError that an operation raised last: if that very error leaves the function, the guest's
    call ends with it, because a pointer outside its memory is the guest's doing. One the function raised by
    itself is a failure of the function.
    """

    __slots__ = ("_memory", "fault")

    def __init__(self, memory: Memory) -> None:
        self._memory: Memory | None = memory
        self.fault: MemoryAccessError | None = None

    def memory_read(self, offset: int, length: int) -> bytes:
        """`length` bytes at `offset` (modulo 2**32); MemoryAccessError outside the memory."""
        memory = self._live()
        try:
            return memory.memory_read(*check_range(offset, length, modulo=1 << 32))
        except MemoryAccessError as exc:
            self.fault = exc
            raise

    def memory_write(self, offset: int, data: bytes) -> None:
        """Write all of `data` at `offset` (modulo 2**32), or nothing; MemoryAccessError outside the memory."""
        memory = self._live()
        raw = as_data(data)
        try:
            memory.memory_write(check_range(offset, len(raw), modulo=1 << 32)[0], raw)
        except MemoryAccessError as exc:
            self.fault = exc
            raise

    def _live(self) -> Memory:
        if self._memory is None:
            raise CallError("a caller is valid only until its host function returns")
        return self._memory

    def end(self) -> None:
        """Make every later use fail."""
        self._memory = None


class Callback:
    """One offer, ready to run. `offer.fn` None is the stub of its `pd` convention."""

    __slots__ = ("_answer", "_params", "_results", "fn", "offer")

    def __init__(self, offer: Offer) -> None:
        self.offer = offer
        self._params = Slots(offer.type.params)
        self._results = Slots(offer.type.results)
        self.fn: Callable[..., Any] = offer.fn if offer.fn is not None else _STUBS[offer.pd or ""]
        self._answer: Callable[[Any], bytes] = {
            "pd_send": _answer_send,
            "pd_now_micros": _answer_now,
            "pd_log": _answer_nothing,
        }.get(offer.pd or "", self._answer_typed)

    def run(self, memory: Memory, slots: bytes, blobs: tuple[bytes, ...]) -> bytes:
        """The result slots for the argument slots; for `pd_*`, `blobs` are the copied bytes its pointers name.

        Raises CallError, cause HOST_FUNCTION, with the original as `__cause__`; the MemoryAccessError of a caller's own
        operation, and KeyboardInterrupt, as they are.
        """
        pd = self.offer.pd
        if pd is not None:
            args = (_i32_slot.unpack_from(slots)[0], *blobs) if pd == "pd_log" else blobs
            return self._guarded(args, None)
        caller = LiveCaller(memory)
        try:
            return self._guarded((caller, *self._params.decode_plain(slots)), caller)
        finally:
            caller.end()

    def _guarded(self, args: tuple[Any, ...], caller: LiveCaller | None) -> bytes:
        try:
            value = self.fn(*args)
        except KeyboardInterrupt:
            raise  # the user's, not the function's
        except BaseException as exc:
            if caller is not None and exc is caller.fault:
                raise
            # Only the class is told: the text may hold what the guest must not learn.
            raise CallError(f"host function raised {type(exc).__name__}", cause=Cause.HOST_FUNCTION) from exc
        return self._answer(value)

    def _answer_typed(self, value: Any) -> bytes:
        try:
            return self._results.encode_results(value)
        except CallError as exc:
            text = f"host function returned what it must not: {exc.message}"
            raise CallError(text, cause=Cause.HOST_FUNCTION) from exc


def _integer(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        text = f"{name} must return an int, not {type(value).__name__}"
        raise CallError(text, cause=Cause.HOST_FUNCTION) from None


def _answer_send(value: Any) -> bytes:
    number = _integer("pd_send", value)
    if not -(2**31) <= number < 2**31:
        raise CallError("pd_send returned an int that does not fit i32", cause=Cause.HOST_FUNCTION)
    return _i32_slot.pack(number)


def _answer_now(value: Any) -> bytes:
    number = _integer("pd_now_micros", value) % 2**64
    return _i64_slot.pack(number - 2**64 if number >= 2**63 else number)


def _answer_nothing(_value: Any) -> bytes:
    return b""


_STUBS: dict[str, Callable[..., Any]] = {
    "pd_send": lambda _envelope, _payload: 0,
    "pd_now_micros": lambda: 0,
    "pd_log": lambda _level, _message: None,
}
