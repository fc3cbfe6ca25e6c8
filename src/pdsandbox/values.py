"""The four WebAssembly number types as immutable Python values.

Integers are held signed; floats are held as their IEEE 754 bits, because a Python float silently quiets
signalling NaNs (0x7fa00001 comes back as 0x7fe00001) and because equality must be exact. This module knows
nothing of processes or engines.
"""

from __future__ import annotations

import math
import operator
import struct
from typing import Any, Final, Self

__all__ = ["F32", "F64", "I32", "I64", "WasmVal"]

_f32 = struct.Struct("<f")
_f64 = struct.Struct("<d")
_u32 = struct.Struct("<I")
_u64 = struct.Struct("<Q")


def _checked(kind: str, value: object, low: int, high: int) -> int:
    """`value` as an exact int within [low, high], else ValueError naming the type and its bounds."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        pass
    else:
        if low <= number <= high:
            return number
    raise ValueError(f"{kind} takes an integer from {low} to {high}, not {_short(value)}")


def _short(value: object) -> str:
    """A repr that can neither fail nor grow: an int beyond 4,300 digits refuses to be printed."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    text = f"{value!r}" if isinstance(value, int | float | str | bytes | None) else type(value).__name__
    return text if len(text) <= 80 else text[:77] + "..."


class _Value:
    """Shared behaviour: one immutable integer slot, equality and hash by type and payload."""

    __slots__ = ()
    _field: str

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return bool(getattr(self, self._field) == getattr(other, self._field))

    def __hash__(self) -> int:
        return hash((type(self).__name__, getattr(self, self._field)))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (getattr(self, self._field),)


class I32(_Value):
    """A 32-bit integer, signed: -2**31 to 2**31 - 1. Raises ValueError for anything else."""

    __slots__ = ("value",)
    value: int
    _field = "value"

    def __init__(self, value: int) -> None:
        if type(value) is not int or not -(2**31) <= value <= 2**31 - 1:
            value = _checked("I32", value, -(2**31), 2**31 - 1)
        _set_i32(self, value)

    def __repr__(self) -> str:
        return f"I32({self.value})"


class I64(_Value):
    """A 64-bit integer, signed: -2**63 to 2**63 - 1. Raises ValueError for anything else."""

    __slots__ = ("value",)
    value: int
    _field = "value"

    def __init__(self, value: int) -> None:
        if type(value) is not int or not -(2**63) <= value <= 2**63 - 1:
            value = _checked("I64", value, -(2**63), 2**63 - 1)
        _set_i64(self, value)

    def __repr__(self) -> str:
        return f"I64({self.value})"


class F32(_Value):
    """An IEEE 754 binary32, held as its 32 bits (unsigned), so that NaN payloads survive."""

    __slots__ = ("bits",)
    bits: int
    _field = "bits"

    def __init__(self, bits: int) -> None:
        if type(bits) is not int or not 0 <= bits <= 2**32 - 1:
            bits = _checked("F32", bits, 0, 2**32 - 1)
        _set_f32(self, bits)

    @classmethod
    def from_float(cls, value: float) -> Self:
        """The nearest binary32 (ties to even); what is too large becomes infinity, as IEEE 754 rounds."""
        return cls(_u32.unpack(pack_f32(_as_float("F32", value)))[0])

    def to_float(self) -> float:
        """The value as a Python float. Exact, but for a signalling NaN, which Python quiets."""
        return float(_f32.unpack(_u32.pack(self.bits))[0])

    def __repr__(self) -> str:
        return f"F32(0x{self.bits:08x})"


class F64(_Value):
    """An IEEE 754 binary64, held as its 64 bits (unsigned), so that NaN payloads survive."""

    __slots__ = ("bits",)
    bits: int
    _field = "bits"

    def __init__(self, bits: int) -> None:
        if type(bits) is not int or not 0 <= bits <= 2**64 - 1:
            bits = _checked("F64", bits, 0, 2**64 - 1)
        _set_f64(self, bits)

    @classmethod
    def from_float(cls, value: float) -> Self:
        """The bits of `value`."""
        return cls(_u64.unpack(_f64.pack(_as_float("F64", value)))[0])

    def to_float(self) -> float:
        """The value as a Python float."""
        return float(_f64.unpack(_u64.pack(self.bits))[0])

    def __repr__(self) -> str:
        return f"F64(0x{self.bits:016x})"


def _as_float(kind: str, value: object) -> float:
    if isinstance(value, float | int):
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{kind} cannot hold {_short(value)}") from None
    raise ValueError(f"{kind}.from_float takes a float, not {_short(value)}")


def pack_f32(value: float) -> bytes:
    """Four little-endian bytes of the nearest binary32; overflow to infinity, which struct refuses."""
    try:
        return _f32.pack(value)
    except OverflowError:
        return _f32.pack(math.copysign(math.inf, value))


# The slot descriptors, which bypass the immutability above: for the constructors and the codec only.
_set_i32: Final = I32.__dict__["value"].__set__
_set_i64: Final = I64.__dict__["value"].__set__
_set_f32: Final = F32.__dict__["bits"].__set__
_set_f64: Final = F64.__dict__["bits"].__set__

WasmVal = I32 | I64 | F32 | F64
