"""FILE: what is no module gets one clear line, and the right exit code."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shelling import write

MODULE = b"\0asm\1\0\0\0"


@pytest.mark.parametrize("action", ["run", "inspect"])
@pytest.mark.parametrize(
    ("name", "content", "code", "why"),
    [
        ("empty.wasm", b"", 65, "is empty"),
        ("cut.wasm", MODULE[:6], 65, "is truncated: 6 bytes"),
        ("cut4.wasm", MODULE[:4], 65, "is truncated: 4 bytes"),
        ("half.wasm", MODULE + b"\1\x20\1", 65, "WASM compile error"),
        ("component.wasm", b"\0asm\x0d\0\1\0", 65, "is a WebAssembly component"),
        ("component.wat", "(component)", 65, "is a WebAssembly component"),
        ("future.wasm", b"\0asm\2\0\0\0", 65, "has WebAssembly version 2"),
        ("text.wasm", "(module)", 65, "holds the text format"),
        ("binary.wat", MODULE, 65, "holds the binary format"),
        ("elf.wasm", b"\x7fELF\2\1\1\0", 65, "it starts with 7f 45 4c 46"),
        ("latin.wat", b"(module \xff)", 65, "not valid UTF-8"),
        ("bad.wat", "(module\n  (func (expor)))", 65, "at line 2, column 10"),
        ("nonsense", "hello", 65, "is not a WebAssembly module"),
    ],
)
def test_no_module(
    cli: Callable[..., Any], tmp_path: Path, action: str, name: str, content: str | bytes, code: int, why: str
) -> None:
    """What is no module is refused in one line that says what it is instead."""
    ended = cli(action, write(tmp_path, name, content))
    assert (ended.code, ended.out) == (code, "")
    assert why in ended.err
    assert ended.err.startswith("pdsandbox: ")
    _line, *hints = ended.err.splitlines()
    assert len(hints) <= 1
    assert all(line.startswith("  hint: ") for line in hints)


@pytest.mark.parametrize("action", ["run", "inspect"])
def test_no_file(cli: Callable[..., Any], tmp_path: Path, action: str) -> None:
    """A missing file, a directory and a name that no file can have are told apart, with exit code 66."""
    for path, why in (
        (tmp_path / "absent.wasm", "no such file"),
        (tmp_path, "is a directory"),
        ("a\0b", "cannot read"),
        ("x" * 5000, "cannot read"),
    ):
        ended = cli(action, path)
        assert (ended.code, ended.out) == (66, "")
        assert why in ended.err
        assert ended.err.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(cli: Callable[..., Any], functions: Path) -> None:
    """A file without permission is said to be that."""
    functions.chmod(0)
    ended = cli("run", functions)
    assert ended.code == 66
    assert "no permission" in ended.err


def test_file_names_are_escaped(cli: Callable[..., Any], tmp_path: Path) -> None:
    """A file's name cannot send escape sequences to the terminal."""
    ended = cli("run", tmp_path / "\x1b[31mred\n.wasm")
    assert "\\x1b[31mred\\n.wasm" in ended.err
    assert ended.err.count("\n") == 1


def test_endless_file(cli: Callable[..., Any]) -> None:
    """A device without end is read only up to the limit for a module."""
    ended = cli("inspect", "/dev/zero")
    assert ended.code == 65
    assert "larger than 33,554,432 bytes" in ended.err


@pytest.mark.parametrize(
    "content",
    [MODULE, b"(module)", b"\xef\xbb\xbf  ;; a comment (\n (; another (component) ;) (module)"],
    ids=["binary", "text", "text after comments"],
)
def test_standard_input(cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """`-` reads standard input, in either format."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    ended = cli("inspect", "-", "--json")
    assert ended.code == 0
    assert ended.json["format"] == ("binary" if content == MODULE else "text")
