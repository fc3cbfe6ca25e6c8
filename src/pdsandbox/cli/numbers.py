"""Numbers as typed at a shell, and as printed back: by the export's signature, exact to the bit. Pure.

Integers are decimal within the signed range, or hexadecimal up to all bits set (0xffffffff is the i32 -1): hex
is how people write bit patterns, while a decimal 4294967295 for an i32 is more likely a mistake. Floats are what
Python's `float` takes, and `nan:0x400001` as the text format writes a NaN with its payload. What is printed can be
typed again and gives the same bits.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

from ..values import F32, F64, I32, I64, WasmVal

__all__ = ["parse", "plain", "show"]

_INTEGER: Final = re.compile(r"([+-]?)(?:0[xX]([0-9a-fA-F]{1,16})|([0-9]{1,40}))")
_FLOAT: Final = re.compile(
    r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?(?:inf(?:inity)?|nan)", re.IGNORECASE
)
_NAN: Final = re.compile(r"([+-]?)nan:0x([0-9a-fA-F]{1,16})", re.IGNORECASE)
# Longer is no number that anybody means, and float() takes quadratic time.
_LONGEST: Final = 400


def parse(kind: str, text: str) -> WasmVal:
    """`text` as a value of the type `kind` ("i32", "i64", "f32", "f64"). ValueError says what is wrong."""
    if kind in ("i32", "i64"):
        return _integer(kind, text)
    return _float(kind, text)


def _integer(kind: str, text: str) -> I32 | I64:
    bits = 32 if kind == "i32" else 64
    cls: type[I32] | type[I64] = I32 if kind == "i32" else I64
    found = _INTEGER.fullmatch(text)
    if found is None:
        raise ValueError(f"{_quoted(text)} is not an {kind}: write a decimal or 0x... integer")
    sign, hexadecimal, decimal = found.groups()
    value = int(hexadecimal, 16) if hexadecimal else int(decimal)
    if sign == "-":
        value = -value
    elif hexadecimal and 1 << (bits - 1) <= value < 1 << bits:
        value -= 1 << bits
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    if not low <= value <= high:
        pattern = f"; as a bit pattern it is {value:#x}" if high < value < 1 << bits else ""
        raise ValueError(f"{_quoted(text)} is out of range for {kind} ({low} to {high}){pattern}")
    return cls(value)


def _float(kind: str, text: str) -> F32 | F64:
    cls: type[F32] | type[F64] = F32 if kind == "f32" else F64
    exponent, mantissa = (0x7F80_0000, 23) if kind == "f32" else (0x7FF0 << 48, 52)
    sign_bit = 1 << (31 if kind == "f32" else 63)
    payload = _NAN.fullmatch(text)
    if payload is not None:
        bits = int(payload[2], 16)
        if not 0 < bits < 1 << mantissa:
            raise ValueError(f"{_quoted(text)}: the payload of an {kind} NaN is 0x1 to {(1 << mantissa) - 1:#x}")
        return cls(exponent | bits | (sign_bit if payload[1] == "-" else 0))
    if len(text) > _LONGEST or _FLOAT.fullmatch(text) is None:
        raise ValueError(f"{_quoted(text)} is not an {kind}: write for example 1.5, -2e3, inf or nan")
    return cls.from_float(float(text))


def _quoted(text: str) -> str:
    return ascii(text if len(text) <= 40 else text[:40] + "...")


def show(value: WasmVal) -> str:
    """`value` as text that `parse` turns into the same bits."""
    if isinstance(value, I32 | I64):
        return str(value.value)
    number = value.to_float()
    if number != number:
        return _show_nan(value)
    if isinstance(value, F64):
        return repr(number)
    # The shortest decimal that rounds to these 32 bits; nine digits always do (IEEE 754-2019, 5.12.2).
    for digits in range(6, 10):
        text = f"{number:.{digits}g}"
        if F32.from_float(float(text)) == value:
            return text if any(c in text for c in ".en") else text + ".0"
    return repr(number)


def _show_nan(value: F32 | F64) -> str:
    bits, mantissa, top = (value.bits, 23, 31) if isinstance(value, F32) else (value.bits, 52, 63)
    sign = "-" if bits >> top else ""
    payload = bits & ((1 << mantissa) - 1)
    return f"{sign}nan" if payload == 1 << (mantissa - 1) else f"{sign}nan:{payload:#x}"


def plain(value: WasmVal) -> dict[str, Any]:
    """`value` for JSON: type and value; a float also carries its bits, and what JSON has no number for is a string."""
    kind = type(value).__name__.lower()
    if isinstance(value, I32 | I64):
        return {"type": kind, "value": value.value}
    number = value.to_float()
    finite = math.isfinite(number)
    width = 8 if isinstance(value, F32) else 16
    shown: float | str = float(show(value)) if finite else show(value)
    return {"type": kind, "value": shown, "bits": f"{value.bits:#0{width + 2}x}"}
