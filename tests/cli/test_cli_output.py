"""Escaping, and the exit codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdsandbox.cli.exits import EXIT_CODES, exit_code_table
from pdsandbox.cli.output import printable
from pdsandbox.cli.report import as_json
from pdsandbox.errors import Cause


@given(st.text(st.characters(codec=None), max_size=60))
def test_printable_is(text: str) -> None:
    """Whatever goes in, lone surrogates too: what comes out is one printable line, and says the same."""
    shown = printable(text)
    assert shown.isprintable()
    if text.isprintable() and "\\" not in text:
        assert shown == text


@given(st.text(max_size=8), st.text(max_size=8))
def test_printable_tells_texts_apart(one: str, other: str) -> None:
    """Two different names never look the same."""
    assert (printable(one) == printable(other)) == (one == other)


def test_printable_cuts() -> None:
    """A huge name is cut and its length said."""
    assert printable("x" * 100_000, 10) == "xxxxxxxxxx... (100,000 characters)"


@given(st.text(st.characters(codec=None)))
def test_json_is_safe_on_a_terminal(text: str) -> None:
    """JSON carries any name in printable ASCII."""
    line = as_json({"name": text})
    assert line.isascii()
    assert line.isprintable()


def test_a_code_for_every_cause() -> None:
    """Every cause has its own code, apart from success, click's 1 and 2, and the shell's 126 and above."""
    assert set(EXIT_CODES) == set(Cause)
    codes = list(EXIT_CODES.values())
    assert len(set(codes)) == len(codes)
    assert all(2 < code < 126 for code in codes)


def test_help_documents_every_code(cli: Callable[..., Any]) -> None:
    """The table in --help has every exit code once."""
    text = cli("--help").out
    table = exit_code_table()
    assert len({code for code, _ in table}) == len(table)
    for code, meaning in table:
        assert f"\n  {code} " in text
        assert meaning.split(" ", maxsplit=1)[0] in text


@pytest.mark.parametrize("command", ["run", "inspect", "demo"])
def test_help_has_examples(cli: Callable[..., Any], command: str) -> None:
    """Each command's help says what it does and, where it takes a file, gives examples."""
    ended = cli(command, "--help")
    assert (ended.code, ended.err) == (0, "")
    assert "Usage: pdsandbox " in ended.out
    assert command == "demo" or f"pdsandbox {command} " in ended.out.split("Examples:")[1]


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["plugin.wasm"], "no command 'plugin.wasm'; to run a file: pdsandbox run plugin.wasm"),
        (["rnu"], "no command 'rnu': there are run, inspect, doctor, cache, demo"),
        (["run"], "Missing argument 'FILE'"),
        (["--nope"], "--nope"),
    ],
)
def test_misuse(cli: Callable[..., Any], args: list[str], why: str) -> None:
    """A mistyped command gets one line, a hint, and exit code 2."""
    ended = cli(*args)
    assert (ended.code, ended.out) == (2, "")
    assert why in ended.err
    assert len(ended.err.splitlines()) == 2


def test_no_arguments(cli: Callable[..., Any]) -> None:
    """The bare command shows its help, line by line."""
    ended = cli()
    assert ended.code in (0, 2)  # 2 since click 8.2
    lines = (ended.out + ended.err).splitlines()
    assert lines[0].startswith("Usage: pdsandbox")
    assert len(lines) > 20
    assert not any(line.startswith("pdsandbox: ") for line in lines)
