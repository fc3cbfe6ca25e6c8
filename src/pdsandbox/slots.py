"""Arguments and results as raw slots: 16 bytes a value, little-endian, as wasmtime's `ValRaw` lays them out.

The one place where Python values are checked against a signature, so a wrong call can never reach the engine's
unchecked entry. Pure; used by both hosts, on both ends of the wire.
"""

from __future__ import annotations

import functools
import operator
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any, Final

from .errors import CallError
from .externs import NUMBER_TYPES
from .raws import CLASSES, filler_of, raw_of
from .values import F32, F64, I32, I64, WasmVal, _set_f32, _set_f64, _set_i32, _set_i64, _short, pack_f32

__all__ = ["SLOT_BYTES", "Slots"]

SLOT_BYTES: Final = 16

_FORMATS = {"i32": "i12x", "i64": "q8x", "f32": "I12x", "f64": "Q8x"}
_RANGES = {"i32": (-(2**31), 2**31 - 1), "i64": (-(2**63), 2**63 - 1)}
_f64 = struct.Struct("<d")
_f32 = struct.Struct("<f")
_u32 = struct.Struct("<I")
_u64 = struct.Struct("<Q")


class Slots:
    """Encoder and decoder for one list of types ("i32", "i64", "f32", "f64"), made once per signature."""

    __slots__ = (
        "_float_at",
        "_makers",
        "_struct",
        "count",
        "fields",
        "make_one",
        "nbytes",
        "only",
        "plain_one",
        "plain_struct",
        "raw",
        "types",
    )

    def __init__(self, types: Sequence[str]) -> None:
        for name in types:
            if name not in NUMBER_TYPES:
                raise CallError(f"unsupported type {name} in the signature")
        self.types = tuple(types)
        self.count = len(self.types)
        self.nbytes = self.count * SLOT_BYTES
        #: For `struct`: signed integers, the bits of floats.
        self.fields = "".join(_FORMATS[name] for name in self.types)
        self._struct = struct.Struct("<" + self.fields)
        #: What `fields` may take for arguments, most likely.
        self.raw = raw_of(self.types)
        self._makers = tuple(_MAKERS[CLASSES[name]] for name in self.types)
        #: The one value's constructor from its raw slot, if there is one value.
        self.make_one = self._makers[0] if self.count == 1 else None
        self._float_at = tuple((i, name == "f32") for i, name in enumerate(self.types) if name[0] == "f")
        #: The one value as a plain one; None if it is that already.
        self.plain_one = _FLOATS.get(self.types[0]) if self.count == 1 else None
        #: Whether there is one value; if so, its class, what puts a raw value into an object of that, and `plain_one`.
        self.only: tuple[bool, Any, Any, Callable[[Any], float] | None] = (False, None, None, None)
        if self.count == 1:
            cls = CLASSES[self.types[0]]
            self.only = (True, cls, _PUTTERS[cls], self.plain_one)
        #: Packs and unpacks plain values, if all are integers; it checks type, range and count faster than Python.
        self.plain_struct = None if self._float_at else self._struct

    def filler(self, frame: memoryview, at: int) -> Callable[[Any], None]:
        """See `raws.filler_of`."""
        return filler_of(self.types, self._struct.pack_into, frame, at)

    def plain_filler(self, frame: memoryview, at: int) -> Callable[..., None] | None:
        """The same for the plain arguments of `func`, one by one, if all are integers; struct checks them."""
        return None if self.plain_struct is None else functools.partial(self.plain_struct.pack_into, frame, at)

    def encode(self, args: Sequence[Any]) -> bytes:
        """Slots of `args` (`WasmVal`s or plain numbers). CallError for a wrong count, type or range."""
        if type(args) is not list and type(args) is not tuple:
            args = _listed(args)
        failure: Exception | None = None
        try:
            return self._struct.pack(*self.raw(args))
        except Exception as exc:  # also of an argument's own __index__: what it was is found out below
            failure = None if isinstance(exc, struct.error | TypeError) else exc
        try:
            data = self._encode_each(args)
            if failure is not None:
                raise failure  # a signal handler's
        finally:
            failure = None  # its traceback has this frame, and all that called it: the instance would stay, too
        return data

    def _encode_each(self, args: Sequence[Any]) -> bytes:
        """`encode` for what is wrong, or unusual."""
        if len(args) != self.count:
            raise CallError(f"expected {self.count} argument{'' if self.count == 1 else 's'}, got {len(args)}")
        raws = []
        for i, (name, arg) in enumerate(zip(self.types, args, strict=True)):
            try:
                raws.append(_raw(name, i, arg))
            except CallError:
                raise
            except Exception as exc:  # of its __index__ or __float__
                raise CallError(f"argument {i}: {type(arg).__name__} raised {type(exc).__name__}") from exc
        return self._struct.pack(*raws)

    def encode_results(self, value: Any) -> bytes:
        """Slots of what a host function returned: None, one value, or a tuple. CallError as for arguments."""
        if self.count == 1:
            args: Sequence[Any] = (value,)
        elif self.count == 0:
            if value is not None:
                raise CallError(f"expected no result, got {_short(value)}")
            return b""
        elif isinstance(value, tuple | list):
            args = value
        else:
            raise CallError(f"expected a tuple of {self.count} results, got {_short(value)}")
        if len(args) != self.count:
            raise CallError(f"expected {self.count} results, got {len(args)}")
        try:
            return self._struct.pack(*[_raw(t, i, a) for i, (t, a) in enumerate(zip(self.types, args, strict=True))])
        except CallError as exc:
            raise CallError(exc.message.replace("argument", "result", 1)) from None

    def raw_values(self, buffer: Any, offset: int) -> tuple[int, ...]:
        """What `buffer` has at `offset`, and must hold `nbytes` from there: signed integers, and the bits of floats."""
        return self._struct.unpack_from(buffer, offset)

    def make(self, raws: Iterable[int]) -> list[WasmVal]:
        """The `WasmVal`s of raw values."""
        return [make(raw) for make, raw in zip(self._makers, raws, strict=True)]

    def plain(self, raws: tuple[int, ...]) -> Any:
        """What a call returns as plain values: None, one, or a tuple."""
        values = self._plain(raws)
        return values[0] if len(values) == 1 else values or None

    def decode_rows(self, buffer: Any, stride: int, rows: int) -> list[list[WasmVal]]:
        """The `WasmVal`s of row after row, each taking `stride` bytes; the buffer holds exactly these."""
        if not self.count:
            return [[] for _ in range(rows)]
        each = struct.Struct(f"<{self.fields}{stride - self.nbytes}x").iter_unpack(buffer)
        make = self.make_one
        if make is not None:
            return [[make(raw)] for (raw,) in each]
        return [self.make(raws) for raws in each]

    def decode_plain(self, buffer: Any, offset: int = 0) -> tuple[int | float, ...]:
        """`raw_values` as ints and floats."""
        return self._plain(self._struct.unpack_from(buffer, offset))

    def _plain(self, raws: tuple[int | float, ...]) -> tuple[int | float, ...]:
        if self._float_at:
            plain = list(raws)
            for i, single in self._float_at:
                plain[i] = (_float32 if single else _float64)(plain[i])
            return tuple(plain)
        return raws


def _float32(bits: Any) -> float:
    return _f32.unpack(_u32.pack(bits))[0]  # type: ignore[no-any-return]


def _float64(bits: Any) -> float:
    return _f64.unpack(_u64.pack(bits))[0]  # type: ignore[no-any-return]


_FLOATS: Final[dict[str, Callable[[Any], float]]] = {"f32": _float32, "f64": _float64}


def _listed(args: Any) -> list[Any]:
    """Another kind of sequence as a list. CallError for what has no length or no order, and for text."""
    if not isinstance(args, str | Mapping | Set):
        try:
            len(args)
            return list(args)
        except Exception:  # its own
            pass
    raise CallError(f"arguments must be a list or tuple, not {type(args).__name__}")


def _raw(name: str, index: int, arg: Any) -> int:
    """The integer to pack for one argument, or CallError saying which one is wrong and how."""
    cls = CLASSES[name]
    if type(arg) is cls:
        return arg.value if name[0] == "i" else arg.bits  # type: ignore[union-attr,unused-ignore]
    if isinstance(arg, I32 | I64 | F32 | F64):
        raise CallError(f"argument {index}: expected {name}, got {type(arg).__name__}")
    if name[0] == "i":
        try:
            number = operator.index(arg)
        except TypeError:
            pass
        else:
            low, high = _RANGES[name]
            if low <= number <= high:
                return number
            raise CallError(f"argument {index}: {_short(number)} is out of range for {name} ({low} to {high})")
    elif isinstance(arg, float | int):
        try:
            value = float(arg)
        except OverflowError:
            raise CallError(f"argument {index}: {_short(arg)} is out of range for {name}") from None
        bits: int = _u32.unpack(pack_f32(value))[0] if name == "f32" else _u64.unpack(_f64.pack(value))[0]
        return bits
    raise CallError(f"argument {index}: expected {name}, got {type(arg).__name__}")


_new = object.__new__


def _make_i32(raw: int) -> I32:
    value = _new(I32)
    _set_i32(value, raw)
    return value


def _make_i64(raw: int) -> I64:
    value = _new(I64)
    _set_i64(value, raw)
    return value


def _make_f32(raw: int) -> F32:
    value = _new(F32)
    _set_f32(value, raw)
    return value


def _make_f64(raw: int) -> F64:
    value = _new(F64)
    _set_f64(value, raw)
    return value


_PUTTERS: Final[dict[type[WasmVal], Callable[[Any, int], None]]] = {
    I32: _set_i32,
    I64: _set_i64,
    F32: _set_f32,
    F64: _set_f64,
}
# The decoder's values come out of struct in range: the constructors' checks would only cost time.
_MAKERS: dict[type[WasmVal], Callable[[int], WasmVal]] = {
    I32: _make_i32,
    I64: _make_i64,
    F32: _make_f32,
    F64: _make_f64,
}
