"""What every host's instance checks and counts in the same way: names, ranges, data, fuel budgets. Pure."""

from __future__ import annotations

import functools
import operator
import struct
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, Final

from .errors import CallError, MemoryAccessError
from .externs import FuncType
from .slots import Slots
from .text import quoted
from .values import _short

__all__ = [
    "COMMAND",
    "UNLIMITED",
    "FuelMeter",
    "as_buffer",
    "as_data",
    "check_command",
    "check_name",
    "check_range",
    "encode_rows",
    "named",
    "no_export",
    "not_a_function",
    "plain_func",
    "unsupported",
]

#: The budget where there is none: 292 years at a billion units a second.
UNLIMITED: Final = 2**63 - 1


#: The type of a command's `_start`, and of a reactor's `_initialize`.
COMMAND: Final = FuncType((), ())


def check_command(start: FuncType, *, has_run: bool) -> None:
    """CallError unless what has a `_start` of this type is a command that has not run yet."""
    if start != COMMAND:
        raise CallError(f'"_start" has type {start}; a command takes and gives nothing')
    if has_run:
        raise CallError("a command runs once: make another instance to run it again")


def check_name(name: object) -> str:
    """An export's name, else CallError."""
    if not isinstance(name, str):
        raise CallError(f"an export's name is a str, not {type(name).__name__}")
    return name


def no_export(name: str) -> CallError:
    """The error for a name that is not exported; escaped and cut, for it may hold anything."""
    return CallError(f"no export named {quoted(name)}")


def not_a_function(name: str) -> CallError:
    """The error for an export that is a memory, a table, a global or a tag."""
    return CallError(f"export {quoted(name)} is not a function")


def unsupported(name: str, type_: FuncType) -> CallError:
    """The error for calling an export whose signature has a type that cannot cross the boundary."""
    return CallError(f"export {quoted(name)} has the unsupported type {type_.unsupported} in its signature")


def check_range(offset: object, length: object, *, modulo: int | None = None) -> tuple[int, int]:
    """(offset, length) as ints; CallError for what is no int, MemoryAccessError for what is below zero.

    With `modulo`, the offset is taken modulo that (a host function gets pointers as signed i32).
    """
    try:
        start, size = operator.index(offset), operator.index(length)  # type: ignore[arg-type]
    except TypeError:
        wrong = length if isinstance(offset, int) else offset
        raise CallError(f"memory offsets and lengths are ints, not {type(wrong).__name__}") from None
    if modulo is not None:
        start %= modulo
    # The upper bound keeps what goes on the wire, or to C, within 64 bits.
    if start < 0 or size < 0 or start + size >= 1 << 63:
        raise MemoryAccessError
    return start, size


def check_pages(pages: object) -> int:
    """A number of pages to grow a memory by, which need not be possible; CallError for what is none."""
    if isinstance(pages, bool) or not isinstance(pages, int) or not 0 <= pages < 1 << 64:
        raise CallError(f"memory_grow takes a number of pages, from 0 to 2**64 - 1, not {_short(pages)}")
    return pages


def as_data(data: object) -> bytes:
    """Anything bytes-like as bytes; CallError for the rest (an int or a str is none)."""
    if type(data) is bytes:
        return data
    try:
        return bytes(memoryview(data))  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError):  # the last two by a view that was released, and by whoever has it
        raise CallError(f"memory_write takes bytes, not {type(data).__name__}") from None


def as_buffer(buffer: object) -> memoryview:
    """What `memory_read_into` fills, as bytes; CallError for what cannot be written to in one piece."""
    try:
        view = memoryview(buffer)  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError):
        raise CallError(f"memory_read_into takes a writable buffer, not {type(buffer).__name__}") from None
    if view.readonly or not view.c_contiguous:
        raise CallError(f"memory_read_into takes a writable, contiguous buffer; this {type(buffer).__name__} is not")
    return view.cast("B") if view.nbytes else memoryview(bytearray())  # no shape with a zero in it can be cast


def plain_func(name: str, type_: FuncType, call: Callable[..., Any]) -> Callable[..., Any]:
    """The callable that `instance.func(name)` returns; `call(name, arguments, fuel, wall_s, plain)` makes the call."""

    def function(*args: Any) -> Any:
        return call(name, args, None, None, True)

    return named(function, name, type_)


def named(function: Callable[..., Any], name: str, type_: FuncType) -> Callable[..., Any]:
    """`function`, which is made here and now, as what `instance.func(name)` returns."""
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"The guest's export {quoted(name)}: {type_}."
    return function


class FuelMeter:
    """Fuel budgets of one instance: the default of each call, the shared one of `set_fuel`, one call's own.

    `begin` gives the budget of the next call, `settle` books what it used. One call at a time. Where nothing was said,
    that is `plain`, to be booked on `used`, without asking.
    """

    __slots__ = ("_default", "_own", "_shared", "metered", "plain", "used")

    def __init__(self, default: int | None, *, metered: bool) -> None:
        self.metered = metered
        self._default = UNLIMITED if default is None else default
        self._shared: int | None = None
        self._own = True
        self.used = 0
        self.plain: int | None = self._default if metered else 0

    @property
    def consumed(self) -> int | None:
        """Fuel used over the instance's life; None where it is not metered."""
        return self.used if self.metered else None

    def set_fuel(self, fuel: object) -> None:
        """One budget for the calls to come; nothing where fuel is not metered."""
        if self.metered:
            self._shared = _units(fuel)
            self.plain = None

    def begin(self, fuel: object = None) -> int:
        """The budget of the next call; `fuel` is that call's own. 0 where it is not metered."""
        if fuel is not None:
            if not self.metered:
                raise CallError("this engine does not meter fuel: fuel= cannot be kept")
            self._own = True
            return _units(fuel)
        if not self.metered:
            return 0
        self._own = self._shared is None
        return self._default if self._shared is None else self._shared

    def settle(self, used: int) -> None:
        """Book what the call that `begin` was for has used; also after an error."""
        if self.metered:
            self.used += used
            if not self._own and self._shared is not None:
                self._shared = max(0, self._shared - used)


def _units(fuel: object) -> int:
    try:
        units = -1 if isinstance(fuel, bool) else operator.index(fuel)  # type: ignore[arg-type]
    except TypeError:
        units = -1
    if not 0 <= units <= UNLIMITED:
        raise CallError(f"fuel must be an int from 0 to {UNLIMITED:,}")
    return units


def encode_rows(params: Slots, rows: Iterable[Sequence[Any]], stride: int) -> tuple[int, bytes | bytearray]:
    """(how many, the slots) of every row of a batch, `stride` bytes each, before any row runs; CallError with `.row`,
    and no results, for a bad one."""
    rows = rows if type(rows) is list else list(rows)
    padding = stride - params.nbytes
    quick = params.plain_struct
    failure: Exception | None = None
    if quick is not None and rows and set(map(type, rows)) <= _ROWS and set(map(len, rows)) == {params.count}:
        # All at once, where every row is right; what is not is found out below.
        try:
            number, values = len(rows), tuple(chain.from_iterable(rows))
            return number, b"".join(_packed(params, padding, number, values))
        except Exception as exc:  # also of a value's own __index__: what it was is found out below
            failure = None if isinstance(exc, struct.error | TypeError) else exc
    encode, fill, encoded = params.encode, bytes(padding), bytearray()
    done = 0
    try:
        try:
            for row in rows:
                encoded += encode(row)
                encoded += fill
                done += 1
        except CallError as exc:
            exc.row, exc.results = done, []
            raise
        if failure is not None:
            raise failure  # a signal handler's
    finally:
        failure = None  # as in `Slots.encode`
    return done, encoded


_ROWS: Final = {list, tuple}
# As fast as more at once would be; one struct takes 32 bytes a value, and eight are kept.
_PACKED_VALUES: Final = 2048


def _packed(params: Slots, padding: int, rows: int, values: tuple[Any, ...]) -> Iterable[bytes]:
    """The slots of many rows at a time. `values`: of all rows, taken out before any of them is looked at."""
    count = params.count
    most = max(1, _PACKED_VALUES // max(1, count))
    for at in range(0, rows, most):
        few = min(most, rows - at)
        yield _rows_struct(params.fields, padding, few).pack(*values[at * count : (at + few) * count])


@functools.lru_cache(maxsize=8)
def _rows_struct(fields: str, padding: int, rows: int) -> struct.Struct:
    return struct.Struct("<" + f"{fields}{padding}x" * rows)
