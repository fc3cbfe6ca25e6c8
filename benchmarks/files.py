"""Files on the command line: that one cannot be written shows before minutes of measuring; what is read is a whole
report, or an error that says what is wrong with it."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from .reading import Unusable, parse

#: A file to write; - is standard output.
OUT = click.Path(dir_okay=False, allow_dash=True)
#: A report to read; - is standard input.
IN = click.Path(dir_okay=False, allow_dash=True)

_DRAWING = ("matplotlib", "jinja2")


class BadReport(click.ClickException):
    """A file that is no report which can be used; the exit status is 2."""

    exit_code = 2


def check_writable(file: str, option: str) -> None:
    """Raises click.BadParameter, which names `option`, when the file cannot be written."""
    if file == "-":
        return
    path = Path(file)
    existed = path.exists()
    try:
        open(path, "ab").close()
    except OSError as exc:
        raise click.BadParameter(f"{file}: {exc.strerror}", param_hint=option) from exc
    if not existed:
        path.unlink()


def check_drawable() -> None:
    """Raises click.ClickException when a library that draws is missing; loads none."""
    for name in _DRAWING:
        if importlib.util.find_spec(name) is None:
            raise click.ClickException(f"{name} is missing: pip install -e '.[bench]'")


def write(file: str, text: str) -> None:
    """Write `text` to the file, or to standard output."""
    if file == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as exc:
        raise click.ClickException(f"{file}: {exc.strerror}") from exc


def to_json(report: Mapping[str, Any]) -> str:
    """The report's file."""
    return json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read(file: str) -> dict[str, Any]:
    """The report in a file. Raises BadReport."""
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return parse(data)
    except OSError as exc:
        raise BadReport(f"{file}: {exc.strerror}") from exc
    except Unusable as exc:
        raise BadReport(f"{file}: {exc}") from exc
