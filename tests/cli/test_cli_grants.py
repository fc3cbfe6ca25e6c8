"""`pdsandbox run --dir` and `--env`: what is granted, and what is refused in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pdsandbox import Dir
from pdsandbox.cli import directories
from pdsandbox.cli.options import OPTIONS, parse
from pdsandbox.cli.output import Failure

FILES = str(Path(__file__).parents[1] / "wasi" / "guests" / "files.wasm")
Cli = Callable[..., Any]


def run(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`pdsandbox run` of the program that works through its directory."""
    line = [sys.executable, "-m", "pdsandbox", "run", *args, FILES]
    return subprocess.run(
        line, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60
    )


def steps(ended: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """What became of each step."""
    assert ended.stderr == ""
    return dict(line.split(": ", 1) for line in ended.stdout.splitlines() if ": " in line)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory that a worker of root's may write in, too."""
    path = tmp_path / "a:b"
    path.mkdir(mode=0o777)
    return path


@pytest.mark.parametrize("grant", [".:rw", ".::/:rw", ".::.:rw:1MiB", ".:rw:none"])
def test_writable(folder: Path, grant: str) -> None:
    """With :rw the program does all that it does to files, and nothing outside is reached."""
    done = steps(run("--dir", grant, cwd=folder))
    assert done["mkdir"].startswith("0")
    assert done["write"].startswith("12")
    assert done["out by a path"].startswith("-1")
    assert done["through it"].startswith("-1")
    assert done["rmdir"].startswith("0")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("grant", [".", ".:ro", ".::.", ".::/:ro"])
def test_read_only_by_default(folder: Path, grant: str) -> None:
    """Without :rw it may look, and change nothing."""
    (folder / "seen").write_text("x")
    ended = run("--dir", grant, cwd=folder)
    assert steps(ended)["mkdir"].startswith("-1")
    assert "seen(4)" in ended.stdout
    assert [path.name for path in folder.iterdir()] == ["seen"]


def test_nothing_by_default(folder: Path) -> None:
    """Without --dir there is no file and no directory."""
    done = steps(run(cwd=folder))
    assert done["mkdir"].startswith("-1")
    assert done["opendir"].startswith("-1")


def test_a_path_with_colons(folder: Path) -> None:
    """A path may hold colons; the mode is what stands last."""
    assert steps(run("--dir", f"{folder}::/:rw", cwd=folder.parent))["mkdir"].startswith("0")


def test_a_cap(folder: Path) -> None:
    """Beyond SIZE the program gets an error of its own."""
    assert steps(run("--dir", ".:rw:0", cwd=folder))["write"].startswith("-1")


@pytest.mark.parametrize(
    ("text", "granted"),
    [
        ("src", Dir("src", "src")),
        ("/a/b::/c", Dir("/a/b", "/c")),
        ("a:b::c:d:ro", Dir("a:b", "c:d")),
        ("a:ro:ro", Dir("a:ro", "a:ro")),
        ("a:rw", Dir("a", "a", "rw", directories.WRITABLE_BYTES)),
        ("a::b:rw:1KiB", Dir("a", "b", "rw", 1024)),
        ("a::b:rw:none", Dir("a", "b", "rw")),
        ("a::b:ro:5", Dir("a", "b", "ro", 5)),
        ("a:rx", Dir("a:rx", "a:rx")),
        ("a\nb", Dir("a\nb", "a\nb")),
    ],
)
def test_forms(text: str, granted: Dir) -> None:
    """SRC, SRC::DST, either with a mode, :rw with a size."""
    assert directories.parse(text) == granted


@pytest.mark.parametrize(
    ("args", "code", "why"),
    [
        (["--dir", ""], 2, "names no directory"),
        (["--dir", "::/a"], 2, "names no directory"),
        (["--dir", "a::"], 2, "names no directory in the guest"),
        (["--dir", "a::b::c"], 2, "more than one ::"),
        (["--dir", "a:::b"], 2, "more than one ::"),
        (["--dir", "../a"], 2, "give it one: ../a::/NAME"),
        (["--dir", "a::/b/../c"], 2, "is no place in the guest"),
        (["--dir", "a:rw:9ZiB"], 2, "the unit 'ZiB' is not one of"),
        (["--dir", "a:rw:1.5"], 2, "not a whole number of bytes"),
        (["--dir", "a:rw:99999GiB"], 2, "outside 0 B to 16 TiB"),
        (["--dir", "a\0b"], 2, "must be a path"),
        (["--dir", ".::/a", "--dir", ".::/a/b"], 2, "overlap"),
        (["--dir", ".::/a", "--dir", ".::a"], 2, "overlap"),
        (["--dir", "absent"], 64, "the directory 'absent' cannot be granted: No such file or directory"),
        (["--dir", "src:dst"], 64, "the directory 'src:dst' cannot be granted"),
        (["--dir", FILES], 64, "cannot be granted: Not a directory"),
        (["--env", "=x"], 2, "has no name"),
        (["--env", ""], 2, "has no name"),
        (["--env", "A\0=x"], 2, "NUL"),
        (["--env", "A=x\0"], 2, "NUL"),
        (["--env", "PDSANDBOX_ABSENT"], 2, "there is no variable PDSANDBOX_ABSENT to give it"),
        (["--argv0", "a\0"], 2, "must not contain NUL"),
        (["--seed", "-1"], 2, "is not a number from 0 to 2**64 - 1"),
        (["--seed", str(2**64)], 2, "is not a number from 0 to 2**64 - 1"),
        (["--clock", "now"], 2, "is not a number"),
        (["--clock", "1+"], 2, "is not a number"),
        (["--stdout-bytes", "5"], 2, "--stdout-bytes needs --json"),
        (["--json", "--stderr-bytes", "lots"], 2, "is not a size"),
        (["--hardening", "none"], 2, "is none of default, strict, off"),
        (["--memories", "0"], 2, "0 is outside 1 to 100"),
        (["--memories", "1.5"], 2, "is not a whole number"),
        (["--stack", "none"], 2, "none is outside"),
        (["--stats=yes"], 2, "--stats takes no value"),
        (["-v"], 2, "no such option: -v"),
        (["-é\x1b[31m"], 2, "\\x1b[31m"),
    ],
)
def test_refused(cli: Cli, args: list[str], code: int, why: str) -> None:
    """What cannot be meant, or cannot be granted, is one line and at most one hint; the program does not run."""
    ended = cli("run", *args, FILES)
    assert (ended.code, ended.out) == (code, "")
    assert why in ended.err
    line, *hints = ended.err.splitlines()
    assert line.startswith("pdsandbox: ")
    assert line.isprintable()
    assert [hint[:8] for hint in hints] in ([], ["  hint: "])


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.metavar], ids=lambda option: option.name)
def test_an_option_without_its_value(cli: Cli, option: Any) -> None:
    """The last word on the line, it says what it lacks."""
    ended = cli("run", option.name)
    assert ended.code == 2
    assert f"{option.name} needs a value: {option.name} {option.metavar}" in ended.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_directory(cli: Cli, tmp_path: Path) -> None:
    """A directory without permission is said to be that."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    ended = cli("run", "--dir", str(closed), FILES)
    assert ended.code == 64
    assert "cannot be granted: Permission denied" in ended.err


@pytest.mark.parametrize("option", ["--dir", "--env"])
def test_a_grant_after_the_file_is_refused(cli: Cli, option: str) -> None:
    """Nobody grants by mistake what was meant for the program: it is an error, which says both ways out."""
    ended = cli("run", FILES, option, "/home")
    assert ended.code == 2
    assert f"{option} after FILE: is it a grant, or the guest's argument?" in ended.err
    assert f"a grant comes before FILE, the guest's arguments after --: {FILES} -- {option} ..." in ended.err


@pytest.mark.parametrize(
    ("args", "file", "words"),
    [
        (["p", "a", "-c", "b"], "p", ["a", "-c", "b"]),
        (["p", "--", "--dir", "x"], "p", ["--dir", "x"]),
        (["--stats", "p", "-1", "--json", "--", "--", "-x"], "p", ["-1", "--", "-x"]),
        (["--", "--odd", "--json"], "--odd", ["--json"]),
        (["-", "-"], "-", ["-"]),
        (["p", "-h"], "p", ["-h"]),
    ],
)
def test_whose_word_is_whose(args: list[str], file: str, words: list[str]) -> None:
    """After FILE, words with one dash are the program's, and all that follow --."""
    line = parse(args)
    assert (line.file, line.words) == (file, words)


def test_a_mistyped_option_is_not_an_argument() -> None:
    """Two dashes and no option of ours: refused on either side of FILE, with what is near."""
    for args in (["--fule", "1", "p"], ["p", "--fule", "1"]):
        with pytest.raises(Failure) as caught:
            parse(args)
        assert "did you mean --fuel?" in (caught.value.hint or "")


def test_more_arguments_than_any_program_gets(cli: Cli) -> None:
    """Beyond 2 MiB they are refused, as by the kernel."""
    ended = cli("run", FILES, "x" * (2 << 20))
    assert ended.code == 2
    assert "at most 2,097,152 are allowed" in ended.err
