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
from .slots import SLOT_BYTES, Slots

__all__ = ["Callback", "LiveCaller", "Memory", "Run"]

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


#: Runs a host function: (guest's memory, buffer and offset of its argument slots, for `pd_*` the bytes that its
#: pointers name, buffer and offset for its result slots). Raises CallError, cause HOST_FUNCTION, with the original as
#: `__cause__`; the MemoryAccessError of a caller's own operation, and KeyboardInterrupt, as they are.
Run = Callable[[Memory, Any, int, tuple[bytes, ...], Any, int], None]


class Callback:
    """One offer, ready to `run`. `offer.fn` None: the stub of its `pd` convention. `blobs`: whether bytes go along."""

    __slots__ = ("blobs", "fn", "nargs", "nresults", "offer", "run")

    def __init__(self, offer: Offer) -> None:
        self.offer = offer
        self.nargs = len(offer.type.params) * SLOT_BYTES
        self.nresults = len(offer.type.results) * SLOT_BYTES
        self.blobs = offer.pd in ("pd_send", "pd_log")
        self.fn: Callable[..., Any] = offer.fn if offer.fn is not None else _STUBS[offer.pd or ""]
        self.run: Run = _typed(self.fn, offer) if offer.pd is None else _pd(self.fn, offer.pd)


def _typed(fn: Callable[..., Any], offer: Offer) -> Run:
    """A function of the user's own type, with a caller."""
    arguments, results = Slots(offer.type.params).decode_plain, Slots(offer.type.results)
    unpack = Slots(offer.type.params).plain_struct
    if unpack is not None:
        arguments = unpack.unpack_from
    nothing, new = not results.count, object.__new__
    # What struct takes is right; what it refuses is looked at again, for what to say.
    pack = results.plain_struct if results.count == 1 else None

    def run(memory: Memory, slots: Any, offset: int, _blobs: tuple[bytes, ...], out: Any, at: int) -> None:
        caller = new(LiveCaller)  # without __init__, and below without `end`: together 0.1 us
        caller._memory, caller.fault = memory, None
        try:
            value = fn(caller, *arguments(slots, offset))
        except KeyboardInterrupt:
            raise  # the user's, not the function's
        except BaseException as exc:
            if exc is caller.fault:
                raise
            raise _raised(exc) from exc
        finally:
            caller._memory = None
        if nothing and value is None:
            return
        failure: Exception | None = None
        if pack is not None:
            try:
                pack.pack_into(out, at, value)
                return
            except Exception as exc:
                failure = None if isinstance(exc, struct.error | TypeError) else exc
        try:  # as in `Slots.encode`
            raw = results.encode_results(value)
            if failure is not None:
                raise failure  # of its __index__, which takes it back, or of a signal handler
        except CallError as exc:
            text = f"host function returned what it must not: {exc.message}"
            raise CallError(text, cause=Cause.HOST_FUNCTION) from exc
        except Exception as exc:  # of its __index__ or __float__
            raise _raised(exc) from exc
        finally:
            failure = None
        memoryview(out).cast("B")[at : at + len(raw)] = raw

    return run


def _pd(fn: Callable[..., Any], name: str) -> Run:
    """One of the `pd_*`, which get bytes in place of pointers."""
    answer, leveled = _ANSWERS[name], name == "pd_log"

    def run(_memory: Memory, slots: Any, offset: int, blobs: tuple[bytes, ...], out: Any, at: int) -> None:
        try:
            value = fn(*_i32_slot.unpack_from(slots, offset), *blobs) if leveled else fn(*blobs)
        except KeyboardInterrupt:
            raise
        except BaseException as exc:
            raise _raised(exc) from exc
        answer(value, out, at)

    return run


def _raised(exc: BaseException) -> CallError:
    """Only the class is told: the text may hold what the guest must not learn."""
    return CallError(f"host function raised {type(exc).__name__}", cause=Cause.HOST_FUNCTION)


def _integer(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        text = f"{name} must return an int, not {type(value).__name__}"
        raise CallError(text, cause=Cause.HOST_FUNCTION) from None
    except Exception as exc:  # of its __index__
        raise _raised(exc) from exc


def _answer_send(value: Any, out: Any, at: int) -> None:
    number = _integer("pd_send", value)
    if not -(2**31) <= number < 2**31:
        raise CallError("pd_send returned an int that does not fit i32", cause=Cause.HOST_FUNCTION)
    _i32_slot.pack_into(out, at, number)


def _answer_now(value: Any, out: Any, at: int) -> None:
    number = _integer("pd_now_micros", value) % 2**64
    _i64_slot.pack_into(out, at, number - 2**64 if number >= 2**63 else number)


def _answer_nothing(_value: Any, _out: Any, _at: int) -> None:
    pass


_ANSWERS: dict[str, Callable[[Any, Any, int], None]] = {
    "pd_send": _answer_send,
    "pd_now_micros": _answer_now,
    "pd_log": _answer_nothing,
}
_STUBS: dict[str, Callable[..., Any]] = {
    "pd_send": lambda _envelope, _payload: 0,
    "pd_now_micros": lambda: 0,
    "pd_log": lambda _level, _message: None,
}
