"""`pdsandbox run`: choosing the export, typing arguments, results, errors, JSON."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]

PROGRAM = """(module (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
  (memory (export "memory") 1) (func (export "_start")))"""


@pytest.mark.parametrize(
    ("args", "out"),
    [
        (["add", "2", "3"], "5\n"),
        (["add", "-1", "-2"], "-3\n"),
        (["add", "-1", "0xffffffff"], "-2\n"),
        (["--fuel", "1M", "add", "1", "2"], "3\n"),
        (["add", "-1", "2", "--fuel", "1M", "--wall", "1s"], "1\n"),
        (["--", "add", "-1", "2"], "1\n"),
        (["add", "1", "--", "-2"], "-1\n"),
        (["id", "-1", "-2", "-inf", "-.5"], "-1\n-2\n-inf\n-0.5\n"),
        (["id", "0", "0", "0.1", "nan:0x4"], "0\n0\n0.1\nnan:0x4\n"),
        (["nothing"], ""),
    ],
)
def test_results(cli: Cli, functions: Path, args: list[str], out: str) -> None:
    """Results go to standard output, one a line, with nothing else; negative numbers need no `--`."""
    ended = cli("run", functions, *args)
    assert (ended.code, ended.out, ended.err) == (0, out, "")


@pytest.mark.parametrize(
    ("args", "code", "why"),
    [
        ([], 64, "name the export to call; functions: add (i32, i32) -> (i32), id "),
        (["absent"], 64, "no export 'absent'; functions: add"),
        (["memory"], 64, "export 'memory' is not a function"),
        (["add"], 64, "add (i32, i32) -> (i32) takes 2 arguments, got 0"),
        (["add", "1", "2", "3"], 64, "takes 2 arguments, got 3"),
        (["add", "1", "x"], 64, "argument 2: 'x' is not an i32"),
        (["add", "1", "4294967295"], 64, "as a bit pattern it is 0xffffffff"),
        (["vector", "1"], 64, "unsupported type v128"),
        (["trap"], 80, "unreachable instruction executed"),
        (["spin", "--fuel", "1M"], 83, "fuel budget exhausted"),
        (["add", "1", "--fule", "9"], 2, "--fuel"),
        (["add", "--fuel", "-5"], 2, "-5 is outside 1 to"),
        (["add", "--rss", "64M"], 2, "the unit 'M' is not one of"),
        (["add", "--wall", "soon"], 2, "'soon' is not a duration such as"),
    ],
)
def test_errors(cli: Cli, functions: Path, args: list[str], code: int, why: str) -> None:
    """One line on standard error, at most one hint, nothing on standard output, the cause's exit code."""
    ended = cli("run", functions, *args)
    assert (ended.code, ended.out) == (code, "")
    assert why in ended.err
    line, *hints = ended.err.splitlines()
    assert line.startswith("pdsandbox: ")
    assert [hint[:8] for hint in hints] in ([], ["  hint: "])


@pytest.mark.parametrize(
    ("text", "code", "out", "why"),
    [
        ('(module (func (export "only") (result i32) (i32.const 7)))', 0, "7\n", ""),
        ('(module (memory (export "m") 1) (func (export "only") (result i32) (i32.const 7)))', 0, "7\n", ""),
        ('(module (func (export "_start") unreachable) (func (export "x")))', 80, "", "unreachable"),
        ('(module (memory (export "m") 1))', 64, "", "the module exports no function"),
        ('(module (memory 4000) (func (export "x")))', 69, "", "hint: --memory sets this limit"),
        ("(module)", 64, "", "the module exports no function"),
        ('(module (import "env" "f" (func)) (func (export "x")))', 69, "", "hint: `pdsandbox inspect "),
        ('(module (func $f unreachable) (start $f) (func (export "x")))', 80, "", "unreachable"),
        (PROGRAM, 0, "", ""),
        ('(module (import "wasi_unstable" "f" (func)) (func (export "_start")))', 69, "", "is not offered; rebuild it"),
    ],
)
def test_default_export(cli: Cli, module: Callable[[str], Path], text: str, code: int, out: str, why: str) -> None:
    """Without EXPORT: `_start`, else the only function; a WASI program runs, one for another version is told so."""
    ended = cli("run", module(text))
    assert (ended.code, ended.out) == (code, out)
    assert why in ended.err


def test_guests_names_are_escaped(cli: Cli, module: Callable[[str], Path]) -> None:
    """Names that a guest chose reach the terminal as text: no control characters, no colours, no second line."""
    evil = r"\1b[31m\0a[bold]\e2\80\ae"
    text = f'(module (func $f (@name "{evil}") (export "{evil}") unreachable) (func (export "x") (call $f)))'
    for args in ([], ["x"], ["\x1b[2J"]):
        ended = cli("run", module(text), *args)
        assert ended.code in (64, 80)
        assert all(line.isprintable() for line in ended.err.splitlines())
        assert "\\x1b[" in ended.err
        assert len(ended.err.splitlines()) <= 2


def test_backtrace(cli: Cli, functions: Path) -> None:
    """A trap says in which function it happened."""
    assert "hint: in `inner` at 0x" in cli("run", functions, "trap").err


def test_json_results(cli: Cli, functions: Path) -> None:
    """With --json: one object with typed results, fuel, time and the process it ran in."""
    found = cli("run", functions, "id", "1", "-2", "inf", "0.5", "--json").json
    assert found["ok"] is True
    assert found["export"] == "id"
    assert found["error"] is None
    assert found["results"] == [
        {"type": "i32", "value": 1},
        {"type": "i64", "value": -2},
        {"type": "f32", "value": "inf", "bits": "0x7f800000"},
        {"type": "f64", "value": 0.5, "bits": "0x3fe0000000000000"},
    ]
    assert found["fuel_consumed"] > 0
    assert found["wall_s"] > 0
    assert found["pid"] > 0


@pytest.mark.parametrize(
    ("args", "code", "expected"),
    [
        (["trap"], 80, {"class": "Trap", "cause": "guest_trap", "trap_code": "UNREACHABLE"}),
        (["spin", "--fuel", "1M"], 83, {"class": "FuelExhausted", "cause": "fuel", "trap_code": None}),
        (["absent"], 64, {"class": "CallError", "cause": "usage"}),
    ],
)
def test_json_errors(cli: Cli, functions: Path, args: list[str], code: int, expected: dict[str, Any]) -> None:
    """With --json an error is data on standard output, nothing is on standard error, the exit code is the same."""
    ended = cli("run", functions, *args, "--json")
    assert (ended.code, ended.err) == (code, "")
    error = ended.json["error"]
    assert {key: error[key] for key in expected} == expected
    keys = {"class", "cause", "message", "text", "trap_code", "limit", "observed", "signal", "exit_code", "pid"}
    assert set(error) == keys | {"frames", "stderr_tail"}
    assert ended.json["ok"] is False


def test_json_frames(cli: Cli, functions: Path) -> None:
    """Frames are in the JSON, names included, in ASCII."""
    ended = cli("run", functions, "trap", "--json")
    assert ended.json["error"]["frames"][0]["func_name"] == "inner"
    assert ended.out.isascii()


def test_json_for_files(cli: Cli, tmp_path: Path) -> None:
    """An unreadable file is an error object too, with the same keys."""
    ended = cli("run", tmp_path / "absent", "--json")
    assert ended.code == 66
    assert ended.json["error"]["class"] == "FileError"
    assert ended.json["error"]["frames"] == []
    assert ended.json["results"] is None
