"""The quick look at a call's arguments: `WasmVal`s and plain numbers to what `struct` takes.

Only a guess for speed. What is right comes out as signed integers and the bits of floats; whatever is not is given back
as it is, for `struct` to refuse, or is a TypeError. What is wrong with it is found out elsewhere, and there only.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from .values import F32, F64, I32, I64, WasmVal, pack_f32

__all__ = ["CLASSES", "GETTERS", "Raw", "filler_of", "raw_of"]

CLASSES: Final[dict[str, type[WasmVal]]] = {"i32": I32, "i64": I64, "f32": F32, "f64": F64}
GETTERS: Final[dict[type[WasmVal], Callable[[Any], int]]] = {
    I32: operator.attrgetter("value"),
    I64: operator.attrgetter("value"),
    F32: operator.attrgetter("bits"),
    F64: operator.attrgetter("bits"),
}

#: Of arguments, a list or a tuple. TypeError for what may not be looked at twice: an iterator would be empty the second
#: time, which is right for no parameters.
Raw = Callable[[Any], Iterable[Any]]


def raw_of(types: Sequence[str]) -> Raw:
    """The function for these parameters."""
    classes = tuple(CLASSES[name] for name in types)
    if "f32" in types or "f64" in types:
        return _with_floats(types, classes)
    if len(classes) == 1:
        return _one(*classes)
    if len(classes) == 2:
        return _two(*classes)
    return _integers(classes)


def filler_of(types: Sequence[str], pack: Callable[..., None], frame: memoryview, at: int) -> Callable[[Any], None]:
    """`fill(args)`, which does `pack(frame, at, *raw_of(types)(args))`; struct.error or TypeError for what is wrong."""
    classes = tuple(CLASSES[name] for name in types)
    if set(types) <= {"i32", "i64"}:
        if len(classes) == 1:
            return _fill_one(classes[0], pack, frame, at)
        if len(classes) == 2:
            return _fill_two(*classes, pack, frame, at)
    raw = raw_of(types)
    return lambda args: pack(frame, at, *raw(args))


# Written out: half the time of what is for any number, and most functions take so few.


def _fill_one(cls: type[Any], pack: Callable[..., None], frame: memoryview, at: int) -> Callable[[Any], None]:
    def fill(args: Any) -> None:
        if type(args) is not list:
            _check(args)
        try:
            (one,) = args
        except ValueError:
            raise TypeError("wrong count") from None
        pack(frame, at, one.value if type(one) is cls else one)

    return fill


def _fill_two(
    first: type[Any], second: type[Any], pack: Callable[..., None], frame: memoryview, at: int
) -> Callable[[Any], None]:
    def fill(args: Any) -> None:
        if type(args) is not list:
            _check(args)
        try:
            one, two = args
        except ValueError:
            raise TypeError("wrong count") from None
        if type(one) is first and type(two) is second:
            pack(frame, at, one.value, two.value)
        else:
            pack(frame, at, one, two)

    return fill


def _one(cls: type[Any]) -> Raw:
    def raw(args: Any) -> Iterable[Any]:
        _check(args)
        try:
            (one,) = args
        except ValueError:
            return args  # type: ignore[no-any-return]
        return (one.value,) if type(one) is cls else args

    return raw


def _two(first: type[Any], second: type[Any]) -> Raw:
    # Written out: four times as fast as what follows, and every other function takes two.
    def raw(args: Any) -> Iterable[Any]:
        if type(args) is not list:
            _check(args)
        try:
            one, two = args
        except ValueError:
            return args  # type: ignore[no-any-return]
        return (one.value, two.value) if type(one) is first and type(two) is second else args

    return raw


def _integers(classes: tuple[type[WasmVal], ...]) -> Raw:
    values = operator.attrgetter("value")

    def raw(args: Any) -> Iterable[Any]:
        _check(args)
        if args and type(args[0]) is int:
            return args  # type: ignore[no-any-return]
        return map(values, args) if tuple(map(type, args)) == classes else args

    return raw


def _with_floats(types: Sequence[str], classes: tuple[type[WasmVal], ...]) -> Raw:
    """Here plain floats become bits, which `struct` cannot tell from integers: so they are all looked at."""
    getters = [GETTERS[cls] for cls in classes]
    bits_of = [(i, _bits32 if name == "f32" else _bits64) for i, name in enumerate(types) if name[0] == "f"]

    def raw(args: Any) -> Iterable[Any]:
        _check(args)
        taken = list(args)
        if len(taken) != len(classes):
            raise TypeError("wrong count")
        if type(taken[bits_of[0][0]]) is not float:
            if tuple(map(type, taken)) == classes:
                return [get(arg) for get, arg in zip(getters, taken, strict=True)]
            raise TypeError("not the right values")
        for i, bits in bits_of:
            if type(taken[i]) is not float:
                raise TypeError("not a float")
            taken[i] = bits(taken[i])
        return taken

    return raw


def _check(args: object) -> None:
    if type(args) is not list and type(args) is not tuple:
        raise TypeError("neither a list nor a tuple")


def _bits32(value: float) -> int:
    return _u32.unpack(pack_f32(value))[0]  # type: ignore[no-any-return]


def _bits64(value: float) -> int:
    return _u64.unpack(_f64.pack(value))[0]  # type: ignore[no-any-return]


_f64 = struct.Struct("<d")
_u32 = struct.Struct("<I")
_u64 = struct.Struct("<Q")
