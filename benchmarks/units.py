"""Figures as people read them: three significant digits and the unit that suits. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

#: Units of which more is better; of all others less is.
MORE_IS_BETTER = frozenset({"per_s", "count"})

_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30


def amount(value: float | None, unit: str) -> str:
    """A figure with its unit; a dash for none."""
    if value is None:
        return "–"
    if unit == "count":
        return f"{value:,.0f}"
    factor, name = scale(abs(value), unit)
    return f"{_digits(value * factor)} {name}"


def scale(size: float, unit: str) -> tuple[float, str]:
    """(factor, name) of the unit in which a figure of this size reads best."""
    if unit == "bytes":
        if size >= _GIB:
            return 1 / _GIB, "GiB"
        return (1 / _MIB, "MiB") if size >= 0.1 * _MIB or not size else (1 / _KIB, "KiB")
    if unit == "per_s":
        for factor, name in ((1e-9, "G/s"), (1e-6, "M/s"), (1e-3, "k/s")):
            if size * factor >= 1:
                return factor, name
        return 1.0, "/s"
    if unit == "count":
        return 1.0, ""
    if unit == "share":
        return 100.0, "%"
    if unit != "s":
        raise ValueError(f"no such unit: {unit}")
    for factor, name in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if size * factor >= 1:
            return factor, name
    return (1e9, "ns") if 0 < size * 1e6 < 0.1 else (1e6, "µs")


def tick(value: float, unit: str) -> str:
    """A round figure under an axis: no more digits than it has."""
    factor, name = scale(abs(value), unit)
    return f"{value * factor:,.6g} {name}".rstrip()


def ratio(value: float | None) -> str:
    """At least two significant digits, never in exponents."""
    if value is None:
        return "–"
    if abs(value) >= 0.1 or value == 0:
        return _digits(value)
    places = max(2, 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(places, 6)}f}"


def bar(row: Mapping[str, Any]) -> str:
    """What the row's bar asks for; nothing without one."""
    asked = row["bar"]
    if asked is None:
        return ""
    sign = "≥" if asked["least"] else "≤"
    return f"{sign} {asked['bound']:.2f}" if asked["of"] == "ratio" else f"{sign} {amount(asked['bound'], row['unit'])}"


def _digits(number: float) -> str:
    """Three significant digits, never in exponents."""
    size = abs(number)
    return f"{number:,.0f}" if size >= 99.95 else f"{number:.1f}" if size >= 9.995 else f"{number:.2f}"
