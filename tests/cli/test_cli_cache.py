"""`pdsandbox cache`: what it shows, what it removes, and what it says where there is nothing to show."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pdsandbox import __version__

MODULE = '(module (func (export "seven") (result i32) (i32.const 7)))'


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default cache, which is not there yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "cache" / "pdsandbox"


@pytest.fixture
def filled(places: Path, command: Callable[..., Any], module: Callable[[str], Path]) -> Path:
    """The default cache with one module, which `run` has left there."""
    assert command("run", module(MODULE)).stdout == "7\n"
    return places


def test_run_fills_it(filled: Path, command: Callable[..., Any], cli: Callable[..., Any], tmp_path: Path) -> None:
    """Once: a second run finds the module there, and says nothing of it."""
    (entry,) = filled.iterdir()
    before = entry.stat()
    ended = command("run", tmp_path / "module.wat")
    assert (ended.stdout, ended.stderr) == ("7\n", "")
    assert (entry.stat().st_ino, entry.stat().st_size) == (before.st_ino, before.st_size)
    assert entry.stat().st_mtime_ns > before.st_mtime_ns
    found = cli("cache", "--json").json
    assert (found["ok"], found["exists"], found["directory"]) == (True, True, str(filled))
    assert found["states"] == {"good": 1}
    assert found["bytes"] == before.st_size
    (version,) = found["versions"]
    assert version.startswith(f"pdsandbox {__version__}, wasmtime ")
    (file,) = found["files"]
    assert (file["name"], file["state"], file["bytes"], file["why"]) == (entry.name, "good", before.st_size, None)
    assert file["used"] == pytest.approx(entry.stat().st_mtime_ns / 1e9)
    assert file["sha256"] == cli("inspect", tmp_path / "module.wat", "--json").json["sha256"]


def test_what_people_see(filled: Path, cli: Callable[..., Any]) -> None:
    """Where it is, what it holds, by which versions."""
    ended = cli("cache")
    assert (ended.code, ended.err) == (0, "")
    assert f"{filled}: 1 good; " in ended.out
    assert f"1 by pdsandbox {__version__}, wasmtime " in ended.out
    assert "module sha256 " in ended.out
    assert "UTC" in ended.out


def test_every_state(filled: Path, cli: Callable[..., Any]) -> None:
    """Damaged, set aside, unfinished, of another version: each is called what it is, and stays."""
    (good,) = filled.iterdir()
    raw = good.read_bytes()
    made = {
        "damaged": ("a" * 64 + ".code", raw[:-1] + bytes([raw[-1] ^ 1])),
        "set aside": ("b" * 64 + ".damaged", b"x"),
        "unfinished": ("c" * 64 + "." + "0" * 16 + ".writing", b"x" * 10),
        "other format": ("d" * 64 + ".code", raw[:7] + b"\x63" + raw[8:]),
    }
    for name, content in made.values():
        (filled / name).write_bytes(content)
        (filled / name).chmod(0o600)
    (filled / "notes.txt").write_text("mine")
    (filled / ("e" * 64 + ".code")).symlink_to(good)
    before = sorted(os.listdir(filled))
    found = cli("cache", "--json").json
    assert found["states"] == {"damaged": 2, "good": 1, "other format": 1, "set aside": 1, "unfinished": 1}
    states = {file["name"]: file["state"] for file in found["files"]}
    assert states == {name: state for state, (name, _) in made.items()} | {
        good.name: "good",
        "e" * 64 + ".code": "damaged",
    }
    reasons = {file["name"][0]: file["why"] for file in found["files"] if file["state"] == "damaged"}
    assert reasons == {"a": "an entry for something else", "e": "not a regular file"}
    assert "damaged: not a regular file" in cli("cache").out
    assert sorted(os.listdir(filled)) == before


def test_without_the_key_everything_is_damaged(filled: Path, cli: Callable[..., Any], tmp_path: Path) -> None:
    """And that is why; looking makes no new one."""
    key = tmp_path / "state" / "pdsandbox" / "cache.key"
    key.unlink()
    (file,) = cli("cache", "--json").json["files"]
    assert (file["state"], file["why"], file["sha256"]) == ("damaged", "its key is lost", None)
    assert not key.exists()


@pytest.mark.parametrize("flags", [("cache", "clear"), ("cache", "clear", "--json"), ("cache", "--json", "clear")])
def test_clear(filled: Path, cli: Callable[..., Any], tmp_path: Path, flags: tuple[str, ...]) -> None:
    """Removes what is the cache's, and nothing else."""
    for name in ("a" * 64 + ".damaged", "b" * 64 + "." + "0" * 16 + ".writing", "notes.txt"):
        (filled / name).write_bytes(b"x")
    size = sum(path.stat().st_size for path in filled.iterdir()) - 1
    ended = cli(*flags)
    assert (ended.code, ended.err) == (0, "")
    if "--json" in flags:
        assert ended.json == {"ok": True, "directory": str(filled), "files": 3, "bytes": size}
    else:
        assert ended.out.startswith(f"{filled}: removed 3 files, ")
    assert os.listdir(filled) == ["notes.txt"]
    assert (tmp_path / "state" / "pdsandbox" / "cache.key").exists()


def test_what_cannot_be_cleared(filled: Path, cli: Callable[..., Any]) -> None:
    """A full directory in an entry's place is told; the rest is gone."""
    stuck = filled / ("a" * 64 + ".damaged")
    stuck.mkdir()
    (stuck / "file").write_bytes(b"x")
    ended = cli("cache", "clear")
    assert (ended.code, ended.out) == (71, "")
    assert stuck.name in ended.err
    assert os.listdir(filled) == [stuck.name]


@pytest.mark.parametrize("flags", [(), ("clear",)])
def test_no_cache_yet(places: Path, cli: Callable[..., Any], flags: tuple[str, ...]) -> None:
    """That is no error, and none is made."""
    ended = cli("cache", *flags)
    assert (ended.code, ended.out, ended.err) == (0, f"{places}: no cache yet\n", "")
    assert cli("cache", *flags, "--json").json["ok"] is True
    assert not places.exists()


@pytest.mark.parametrize("flags", [(), ("clear",)])
def test_a_cache_that_is_not_used(filled: Path, cli: Callable[..., Any], flags: tuple[str, ...]) -> None:
    """Exit code 71 and why, as text and as JSON; nothing is removed."""
    filled.chmod(0o755)
    ended = cli("cache", *flags)
    assert (ended.code, ended.out) == (71, "")
    assert "is open to others (mode 755); it must have mode 700" in ended.err
    ended = cli("cache", *flags, "--json")
    assert (ended.code, ended.err, ended.json["ok"]) == (71, "", False)
    assert "mode 755" in ended.json["error"]["message"]
    assert len(os.listdir(filled)) == 1


def test_another_directory(filled: Path, cli: Callable[..., Any], tmp_path: Path) -> None:
    """--dir, on either side of `clear`."""
    other = tmp_path / "other"
    filled.rename(other)
    assert cli("cache", "--dir", other, "--json").json["states"] == {"good": 1}
    assert cli("cache", "--dir", other, "clear", "--json").json["files"] == 1
    assert cli("cache", "clear", "--dir", other, "--json").json["files"] == 0
    assert cli("cache", "--dir", "").code == 71


def test_no_home(cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no default cache then: exit code 71, and what names another."""
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/nonexistent")
    ended = cli("cache")
    assert (ended.code, ended.out) == (71, "")
    assert "--dir" in ended.err
    ended = cli("cache", "shred")
    assert (ended.code, ended.out) == (2, "")


def test_run_without_a_home(command: Callable[..., Any], module: Callable[[str], Path], tmp_path: Path) -> None:
    """It works, and says nothing of a cache."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    ended = command("run", module(MODULE), env={**env, "HOME": "/nonexistent"})
    assert (ended.stdout, ended.stderr, ended.returncode) == ("7\n", "", 0)
    assert not (tmp_path / "cache").exists()
