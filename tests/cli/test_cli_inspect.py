"""`pdsandbox inspect`: what a module has and needs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shelling import FUNCTIONS

Cli = Callable[..., Any]

NEEDY = r"""(module
  (import "env" "pd_now_micros" (func (result i64)))
  (import "env" "pd_log" (func (param i32)))
  (import "host" "\1b[31m" (func (param i32) (result f64)))
  (import "host" "vector" (func (param v128)))
  (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
  (import "env" "memory" (memory 1))
  (func (export "run")))
"""


def test_json(cli: Cli, functions: Path) -> None:
    """Exports with kinds and types, memories in pages and bytes, the source's hash and size."""
    ended = cli("inspect", functions, "--json")
    found = ended.json
    assert (ended.code, ended.err, found["ok"]) == (0, "", True)
    assert found["sha256"] == hashlib.sha256(FUNCTIONS.encode()).hexdigest()
    assert found["size"] == len(FUNCTIONS.encode())
    by_name = {export["name"]: export for export in found["exports"]}
    assert by_name["add"]["params"] == ["i32", "i32"]
    assert by_name["add"]["type"] == "(i32, i32) -> (i32)"
    assert by_name["vector"]["callable"] is False
    assert found["exports"][0]["name"] == "add"
    assert {name: export["kind"] for name, export in by_name.items() if export["kind"] != "function"} == {
        "memory": "memory",
        "g": "global",
        "t": "table",
    }
    (memory,) = found["memories"]
    assert (memory["minimum_pages"], memory["maximum_bytes"]) == (2, 5 * 65536)
    assert found["imports"][0]["satisfied_by"] == "pd"
    assert found["needs"] == []


def test_needs(cli: Cli, module: Callable[[str], Path]) -> None:
    """Each import is told what answers it: built in, a function of yours, WASI, or nothing."""
    found = cli("inspect", module(NEEDY), "--json").json
    answers = [item["satisfied_by"] for item in found["imports"]]
    assert answers == ["pd", "functions", "functions", "nothing", "wasi", "nothing"]
    assert [need.split(" ")[0] for need in found["needs"]] == ["2", "2"]


def test_memory_beyond_the_limit(cli: Cli, module: Callable[[str], Path]) -> None:
    """A module whose memory starts above the default limit is told the option that lets it run."""
    found = cli("inspect", module('(module (memory (export "m") 4096) (func (export "f")))'), "--json").json
    assert found["needs"] == ["--memory 256MiB or more (export m)"]


def test_tables(cli: Cli, module: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables show everything, and what the guest chose is escaped."""
    monkeypatch.setenv("COLUMNS", "120")
    ended = cli("inspect", module(NEEDY))
    assert (ended.code, ended.err) == (0, "")
    assert "\x1b" not in ended.out
    for text in ("pd_now_micros", "built in", "\\x1b[31m", "functions=", "WASI", "(i32) -> (f64)", "sha256 "):
        assert text in ended.out


def test_markup_is_not_interpreted(cli: Cli, module: Callable[[str], Path]) -> None:
    """A name that looks like rich's markup or an emoji code is shown as it is."""
    ended = cli("inspect", module('(module (func (export "[bold red]x[/] :smile: [link=http://a]")))'))
    assert "[bold red]x[/] :smile: [link=http://a]" in ended.out


def test_ten_thousand_exports(cli: Cli, module: Callable[[str], Path]) -> None:
    """A huge list is cut on the terminal and whole in JSON."""
    text = "(module (func $f) " + " ".join(f'(export "f{n}" (func $f))' for n in range(10_000)) + ")"
    path = module(text)
    shown = cli("inspect", path).out
    assert "and 9,800 more" in shown
    assert shown.count("\n") < 300
    assert len(cli("inspect", path, "--json").json["exports"]) == 10_000


def test_long_names(cli: Cli, module: Callable[[str], Path]) -> None:
    """A 100 KB name is cut, an empty one does no harm."""
    ended = cli("inspect", module(f'(module (func (export "{"n" * 100_000}")) (func (export "")))'))
    assert ended.code == 0
    assert len(ended.out) < 10_000
    assert "(100,000 characters)" in ended.out.replace("\n", "").replace("│", "").replace(" ", "").replace(
        "characters", " characters"
    )


def test_does_not_run_the_module(cli: Cli, module: Callable[[str], Path]) -> None:
    """A start function that traps is compiled, not run."""
    assert cli("inspect", module('(module (func $f unreachable) (start $f) (func (export "f")))')).code == 0


@pytest.mark.parametrize(
    ("names", "line"), [("f", "run FILE"), ("fg", "run FILE EXPORT"), (["_start", "f"], "run FILE")]
)
def test_says_how_to_run_it(cli: Cli, module: Callable[[str], Path], names: Any, line: str) -> None:
    """A module that needs nothing comes with the command that runs it, with EXPORT where one must be named."""
    path = module("(module " + " ".join(f'(func (export "{name}"))' for name in names) + ")")
    assert cli("inspect", path).out.endswith(f"Needs nothing: pdsandbox {line.replace('FILE', str(path))}\n")


def test_program(cli: Cli, module: Callable[[str], Path]) -> None:
    """A WASI program needs nothing that `run` does not give it."""
    path = module('(module (import "wasi_snapshot_preview1" "proc_exit" (func (param i32))) (func (export "_start")))')
    assert cli("inspect", path, "--json").json["needs"] == []
    assert cli("inspect", path).out.endswith(f"Needs nothing but WASI: pdsandbox run {path}\n")


@pytest.mark.parametrize("other", ["wasi_unstable", "wasi:cli/environment@0.2.0"])
def test_another_version_of_wasi(cli: Cli, module: Callable[[str], Path], other: str) -> None:
    """What imports another version of WASI is told which one there is."""
    found = cli("inspect", module(f'(module (import "{other}" "f" (func)) (func (export "_start")))'), "--json").json
    assert found["imports"][0]["satisfied_by"] == "nothing"
    need = f"WASI in another version: {other}; build it for wasi_snapshot_preview1 (wasm32-wasip1)"
    assert found["needs"][0] == need
