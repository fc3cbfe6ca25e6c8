"""A report read back from its JSON: checked through and through, because a file may come from anybody. Pure.

What passes has the shape that `report` documents, every number finite, every text free of control characters (it ends
up in terminals, pages and XML). What does not pass is `Unusable`, which says where and why. Reports of schema 2 are
filled up to schema 3.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, get_args

from .report import KIND, SCHEMA
from .stats import Statistic

OLDEST = 2
_UNITS = ("s", "bytes", "per_s", "share", "count")
_FIGURES = ("mean", "min", "p25", "p50", "p75", "p90", "p99", "max")
# Reverses the order in which text is shown, so that a row could look like another's.
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# Longer than any real text of a report; keeps pages and charts readable, whoever wrote the file.
_LONGEST = 2000

# Of seconds, bytes, rates and ratios; a difference of two times may come out as small as rounding. What is computed
# from such numbers neither overflows nor vanishes.
_LEAST, _MOST = 1e-30, 1e18

Check = Callable[[Any, str], None]


class Unusable(Exception):
    """Not a report; the text says where and why."""


def parse(data: bytes) -> dict[str, Any]:
    """The report in `data`. Raises Unusable."""
    try:
        report = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as exc:
        raise Unusable(f"not UTF-8 at byte {exc.start}") from exc
    except RecursionError as exc:
        raise Unusable("nested too deeply") from exc
    except ValueError as exc:  # a number of thousands of digits is a plain one
        raise Unusable(f"not JSON: {exc}") from exc
    if not isinstance(report, dict) or report.get("kind") != KIND:
        raise Unusable(f'not a report: "kind" is not "{KIND}"')
    schema = report.get("schema")
    if type(schema) is not int or not OLDEST <= schema <= SCHEMA:
        raise Unusable(f"schema {str(schema)[:20]!r}, but only {OLDEST} to {SCHEMA} can be read")
    if schema == 2:
        _fill_up(report)
    _REPORT(report, "report")
    _check_references(report)
    return report


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


def _fill_up(report: dict[str, Any]) -> None:
    """Schema 2 knew no groups but by their keys, and no sides."""
    try:
        rows, series = report["rows"], report["series"]
        subjects = {row["series"] for row in rows}
        for key, entry in series.items():
            entry["side"] = "ours" if key in subjects else "peer"
        report["groups"] = {
            key: {
                "title": key,
                "caption": "",
                "chart": "bars",
                "hero": [],
                "planned": 0,
                "passes": [],
                "duration_s": 0.0,
            }
            for key in (*(row["group"] for row in rows), *report["unmeasured"])
        }
    except (KeyError, TypeError, AttributeError) as exc:
        raise Unusable("rows, series or unmeasured are not what schema 2 has there") from exc


def _fail(where: str, wanted: str, value: Any) -> NoReturn:
    seen = repr(value)
    raise Unusable(f"{where}: not {wanted}: {seen if len(seen) <= 60 else seen[:57] + '...'}")


def _text(value: Any, where: str) -> None:
    if not isinstance(value, str) or len(value) > _LONGEST:
        _fail(where, f"a text of at most {_LONGEST} characters", value)
    for character in value:
        if unicodedata.category(character) in ("Cc", "Cs", "Cn", "Co") or character in _BIDI:
            _fail(where, "a text without control characters", value)


def _number(value: Any, where: str) -> None:
    if type(value) not in (int, float) or not (value == 0 or _LEAST <= abs(value) <= _MOST):
        _fail(where, f"a number of a size that can be measured ({_LEAST:g} to {_MOST:g})", value)


def _count(value: Any, where: str) -> None:
    if type(value) is not int or not 0 <= value < 1 << 53:
        _fail(where, "a count", value)


def _flag(value: Any, where: str) -> None:
    if type(value) is not bool:
        _fail(where, "true or false", value)


def _or_null(check: Check) -> Check:
    return lambda value, where: None if value is None else check(value, where)


def _one_of(*values: str) -> Check:
    def check(value: Any, where: str) -> None:
        if not isinstance(value, str) or value not in values:
            _fail(where, f"one of {', '.join(values)}", value)

    return check


def _list(of: Check, *, least: int = 0, exactly: int | None = None) -> Check:
    def check(value: Any, where: str) -> None:
        if not isinstance(value, list) or len(value) < least or (exactly is not None and len(value) != exactly):
            size = f"{exactly}" if exactly is not None else f"at least {least}"
            _fail(where, f"a list of {size}", value)
        for number, item in enumerate(value):
            of(item, f"{where}[{number}]")

    return check


def _map(of: Check) -> Check:
    def check(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            _fail(where, "an object", value)
        for key, item in value.items():
            _text(key, f"a key of {where}")
            of(item, f"{where}.{key}")

    return check


def _object(fields: Mapping[str, Check]) -> Check:
    """These fields; further ones are nobody's business."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            _fail(where, "an object", value)
        for name, of in fields.items():
            if name not in value:
                raise Unusable(f"{where}.{name} is missing")
            of(value[name], f"{where}.{name}")

    return check


def _check_references(report: Mapping[str, Any]) -> None:
    for key, series in report["series"].items():
        if series["group"] not in report["groups"]:
            _fail(f"report.series.{key}.group", "a group of this report", series["group"])
        if series["n"] != len(series["samples"]):
            _fail(f"report.series.{key}.n", "the number of its samples", series["n"])
    seen = set()
    for number, row in enumerate(report["rows"]):
        if row["group"] not in report["groups"]:
            _fail(f"report.rows[{number}].group", "a group of this report", row["group"])
        if row["key"] in seen:
            _fail(f"report.rows[{number}].key", "a key of its own", row["key"])
        seen.add(row["key"])


def _versions(value: Any, where: str) -> None:
    _map(_or_null(_text))(value, where)
    for name in ("python", "pdsandbox", "wasmtime", "commit"):
        if name not in value:
            raise Unusable(f"{where}.{name} is missing")


_FIGURE = _or_null(_number)
_REPORT = _object(
    {
        "date": _text,
        "duration_s": _number,
        "quick": _flag,
        "machine": _object(
            {
                "cpu": _text,
                "cores": _count,
                "memory_bytes": _count,
                "system": _text,
                "kernel": _text,
                "architecture": _text,
                "governor": _or_null(_text),
                "virtual": _flag,
            }
        ),
        "versions": _versions,
        "load": _object(
            {
                "average_before": _list(_number, exactly=3),
                "average_after": _list(_number, exactly=3),
                "steal": _number,
            }
        ),
        "noise": _list(_text),
        "unmeasured": _map(_text),
        "groups": _map(
            _object(
                {
                    "title": _text,
                    "caption": _text,
                    "chart": _one_of("bars", "distribution"),
                    "hero": _list(_text),
                    "planned": _count,
                    "passes": _list(_count),
                    "duration_s": _number,
                }
            )
        ),
        "series": _map(
            _object(
                {
                    "title": _text,
                    "short": _text,
                    "unit": _one_of(*_UNITS),
                    "side": _one_of("ours", "peer"),
                    "group": _text,
                    "n": _count,
                    "samples": _list(_number, least=1),
                }
                | dict.fromkeys(_FIGURES, _number)
            )
        ),
        "rows": _list(
            _object(
                {
                    "key": _text,
                    "title": _text,
                    "group": _text,
                    "statistic": _one_of(*get_args(Statistic)),
                    "unit": _one_of(*_UNITS),
                    "series": _text,
                    "baseline": _text,
                    "bar": _or_null(
                        _object(
                            {
                                "of": _one_of("ratio", "value"),
                                "bound": _number,
                                "least": _flag,
                                "source": _text,
                            }
                        )
                    ),
                    "met": _or_null(_flag),
                }
                | dict.fromkeys(("value", "baseline_value", "ratio", "ratio_p25", "ratio_p75"), _FIGURE)
            )
        ),
        "bars": _object({"met": _count, "missed": _count, "unmeasured": _count}),
    }
)
