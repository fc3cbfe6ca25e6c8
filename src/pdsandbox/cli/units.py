"""Amounts as people write them: fuel (10M), durations (2s), sizes (64MiB). Pure; bounds come from `Limits`."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final, NoReturn

from ..limits import _BOUNDS, check_limit

__all__ = ["amount_of_bytes", "duration", "fuel", "kind_of", "limit", "size", "thousands"]

_AMOUNT: Final = re.compile(r"([+-]?)([0-9][0-9_]{0,30}(?:\.[0-9]{1,30})?|\.[0-9]{1,30})[ ]?([A-Za-z]*)")

_FUEL: Final = {"": 1, "k": 1000, "K": 1000, "M": 10**6, "G": 10**9}
_TIME: Final = {"ms": Fraction(1, 1000), "s": Fraction(1), "": Fraction(1), "m": Fraction(60), "min": Fraction(60)}
_SIZE: Final = {
    "": 1,
    "b": 1,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
}
_BINARY: Final = (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))

#: What each kind of limit looks like, for messages and help.
EXAMPLES: Final = {
    "fuel": "a number of fuel units such as 500k, 10M or 1G",
    "s": "a duration such as 250ms, 2s or 1m",
    "bytes": "a size such as 64MiB, 1GiB or 500MB",
    "count": "a number such as 8, 100k or 1M",
}
_COUNTS: Final = frozenset({"memories", "table_elements", "host_calls"})


def limit(name: str, text: str) -> int | float | None:
    """`text` as a value of the field `name` of `Limits`; "none" switches it off where that is allowed.

    Raises ValueError with a message for people: the syntax, or the bounds.
    """
    kind = kind_of(name)
    if text.strip().lower() == "none":
        if _BOUNDS[name][2]:
            return None
        _refuse(name, text, kind)
    amount = _parse(text, kind)
    value: int | float = float(amount) if kind == "s" else int(amount)
    try:
        check_limit(name, value)
    except ValueError:
        _refuse(name, text, kind)
    if kind != "s" and amount.denominator != 1:
        whole = {"bytes": "a whole number of bytes", "count": "a whole number"}.get(
            kind, "a whole number of fuel units"
        )
        raise ValueError(f"{text!r} is not {whole}")
    return value


def kind_of(name: str) -> str:
    """Of the field `name` of `Limits`: "s", "bytes", "count" or "fuel"."""
    return (
        "s" if name.endswith("_s") else "bytes" if name.endswith("_bytes") else "count" if name in _COUNTS else "fuel"
    )


def amount_of_bytes(text: str) -> int:
    """A size that is no limit of `Limits`: 0 to 16 TiB. ValueError with a message for people."""
    amount = _parse(text, "bytes")
    if amount.denominator != 1:
        raise ValueError(f"{text!r} is not a whole number of bytes")
    if not 0 <= amount <= 1 << 44:
        raise ValueError(f"{text.strip()} is outside 0 B to {size(1 << 44)}")
    return int(amount)


def _parse(text: str, kind: str) -> Fraction:
    found = _AMOUNT.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{_quoted(text)} is not {EXAMPLES[kind]}")
    sign, digits, unit = found.groups()
    factor: Fraction | int | None
    if kind in ("fuel", "count"):
        factor, units = _FUEL.get(unit), "k, M, G"
    elif kind == "s":
        factor, units = _TIME.get(unit.lower() if unit != "M" else unit), "ms, s, m"
    else:
        factor, units = _SIZE.get(unit.lower()), "B, KiB, MiB, GiB (or KB, MB, GB: powers of 1000)"
    if factor is None:
        raise ValueError(f"{_quoted(text)}: the unit {_quoted(unit)} is not one of {units}")
    return Fraction(digits.replace("_", "")) * factor * (-1 if sign == "-" else 1)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "...")


def _refuse(name: str, text: str, kind: str) -> NoReturn:
    low, high, optional = _BOUNDS[name]
    show = {"s": duration, "bytes": size, "fuel": fuel, "count": fuel}[kind]
    rest = ", or none" if optional else ""
    raise ValueError(f"{text.strip()} is outside {show(low)} to {show(high)}{rest}")


def size(count: float) -> str:
    """Bytes for people: exact in the largest binary unit that divides them, else with one decimal."""
    count = int(count)
    for name, unit in _BINARY:
        if count >= unit:
            return f"{count // unit:,} {name}" if count % unit == 0 else f"{count / unit:,.1f} {name}"
    return f"{count} B"


def duration(seconds: float) -> str:
    """Seconds for people, to three figures."""
    if seconds >= 1:
        return f"{seconds:,.0f} s" if seconds >= 100 or seconds == int(seconds) else f"{seconds:.2f} s"
    return f"{seconds * 1000:.3g} ms" if seconds >= 0.001 else f"{seconds * 1e6:.3g} µs"


def fuel(units: float) -> str:
    """Fuel units for people."""
    return thousands(int(units))


def thousands(number: int) -> str:
    """A number with its thousands separated."""
    return f"{number:,}"
