"""`Wasi`, `Dir` and `Clock`: what is refused, and that the text says what is wrong."""

from __future__ import annotations

import dataclasses
import io
import sys
from pathlib import Path

import pytest

from pdsandbox import Clock, Dir, RunResult, Wasi
from pdsandbox.grants import input_of, output_of
from pdsandbox.missing import missing_import

BAD_WASI = [
    ({"args": "prog"}, TypeError, "Wasi.args takes a sequence"),
    ({"args": ("a", b"b")}, TypeError, r"Wasi.args\[1\] must be a str, not bytes"),
    ({"args": ("a\0b",)}, ValueError, r"Wasi.args\[0\] must not contain NUL: 'a\\x00b'"),
    ({"args": ("\ud800",)}, ValueError, "lone surrogate"),
    ({"args": ("x" * (2 << 20),)}, ValueError, "2,097,157 bytes; at most 2,097,152"),
    ({"args": ("",) * 500_000}, ValueError, "2,500,000 bytes"),
    ({"env": [("A", "b")]}, TypeError, "Wasi.env takes a mapping"),
    ({"env": {"A": 1}}, TypeError, "maps str to str, not str to int"),
    ({"env": {"": "x"}}, ValueError, "must not be empty"),
    ({"env": {"A=B": "x"}}, ValueError, "'A=B'"),
    ({"env": {"A\0": "x"}}, ValueError, "NUL"),
    ({"env": {"A": "x\0"}}, ValueError, r"Wasi.env\['A'\] must not contain NUL"),
    ({"stdin": "text"}, TypeError, "Wasi.stdin takes bytes, a binary file object"),
    ({"stdin": None}, TypeError, "Wasi.stdin"),
    ({"stdin": True}, TypeError, "Wasi.stdin"),
    ({"stdin": -1}, ValueError, "-1 is no file descriptor"),
    ({"stdin": io.StringIO()}, TypeError, "StringIO is a text stream"),
    ({"stdout": b"x"}, TypeError, "Wasi.stdout takes None, a function"),
    ({"stderr": io.StringIO()}, TypeError, "Wasi.stderr: StringIO is a text stream"),
    ({"stdout": 2**31}, ValueError, "no file descriptor"),
    ({"stdout_bytes": -1}, ValueError, "Wasi.stdout_bytes must be an integer from 0"),
    ({"stderr_bytes": None}, ValueError, "kept in memory"),
    ({"stdout_bytes": 1.5}, ValueError, "got 1.5"),
    ({"stdout_bytes": True}, ValueError, "got True"),
    ({"dirs": Dir("/tmp", "/")}, TypeError, "Wasi.dirs takes a sequence"),
    ({"dirs": ("/tmp",)}, TypeError, "Wasi.dirs holds Dir, not str"),
    ({"dirs": [Dir("/tmp", f"/{i}") for i in range(65)]}, ValueError, "65 directories; at most 64"),
    ({"clock": 5}, TypeError, "Wasi.clock takes a Clock or None, not int"),
    ({"random_seed": -1}, ValueError, "Wasi.random_seed must be an integer from 0"),
    ({"random_seed": 10**5000}, ValueError, "a far larger integer"),
    ({"random_seed": "x"}, ValueError, "got 'x'"),
]
BAD_DIR = [
    ((5, "/a"), {}, TypeError, "Dir.host_path takes a str or a path, not int"),
    ((b"/a", "/a"), {}, TypeError, "Dir.host_path takes a str or a path, not bytes"),
    (("", "/a"), {}, ValueError, "Dir.host_path must be a path, not ''"),
    (("/a\0", "/a"), {}, ValueError, "Dir.host_path must be a path"),
    (("/a", Path("/a")), {}, TypeError, "Dir.guest_path takes a str, not PosixPath"),
    (("/a", ""), {}, ValueError, "Dir.guest_path must be a path, not ''"),
    (("/a", "a\0"), {}, ValueError, "Dir.guest_path must be a path"),
    (("/a", "/a/../b"), {}, ValueError, r'must not contain "\.\."'),
    (("/a", "x" * 5000), {}, ValueError, "more than 4,096 bytes"),
    (("/a", "\udc00"), {}, ValueError, "lone surrogate"),
    (("/a", "/a", "w"), {}, ValueError, 'Dir.mode must be "ro" or "rw", not \'w\''),
    (("/a", "/a"), {"max_bytes": -1}, ValueError, "Dir.max_bytes must be an integer from 0"),
    (("/a", "/a"), {"max_bytes": 0.5}, ValueError, "got 0.5"),
]


@pytest.mark.parametrize(("fields", "kind", "text"), BAD_WASI)
def test_what_cannot_be_granted_is_refused(fields, kind, text):
    """With a text that names the field and what is wrong with it."""
    with pytest.raises(kind, match=text):
        Wasi(**fields)


@pytest.mark.parametrize(("args", "fields", "kind", "text"), BAD_DIR)
def test_what_is_no_directory_grant_is_refused(args, fields, kind, text):
    """The same for directories."""
    with pytest.raises(kind, match=text):
        Dir(*args, **fields)


@pytest.mark.parametrize("value", [-1, 2**64, 1.0, None, "0", True])
def test_a_clock_takes_nanoseconds(value):
    """Integers that the guest can be shown."""
    with pytest.raises(ValueError, match=r"Clock.start_ns must be an integer from 0 to"):
        Clock(start_ns=value)
    with pytest.raises(ValueError, match=r"Clock.step_ns must be an integer from 0 to"):
        Clock(step_ns=value)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("/a", "/a"),
        ("/a", "a"),
        ("/a", "./a/"),
        ("/a", "/a/b"),
        ("/a/b", "a"),
        ("/", "/x"),
        (".", "x"),
        ("/a//b", "a/b"),
    ],
)
def test_guest_paths_may_not_overlap(first, second):
    """Equal, or one inside the other, however they are written."""
    with pytest.raises(ValueError, match="overlap"):
        Wasi(dirs=(Dir("/tmp", first), Dir("/tmp", second)))


def test_what_fits_is_kept_and_frozen():
    """Just under each bound; nothing can be changed afterwards, not even through what was passed in."""
    env = {"A": "b=c"}
    wasi = Wasi(
        args=["x" * ((2 << 20) - 100)],
        env=env,
        stdin=bytearray(b"in"),
        stdout_bytes=0,
        dirs=[Dir(Path("/tmp"), "/a", max_bytes=0), Dir("/tmp", "/ab", "rw"), Dir("rel", "b.c")],
        clock=Clock(2**64 - 1, 0),
        random_seed=2**64 - 1,
    )
    env["B"] = "later"
    assert dict(wasi.env) == {"A": "b=c"}
    assert wasi.stdin == b"in"
    assert isinstance(wasi.args, tuple)
    assert wasi.dirs[0].host_path == "/tmp"
    assert wasi.env_bytes() == [b"A=b=c"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        wasi.args = ()
    with pytest.raises(TypeError):
        wasi.env["C"] = "d"
    assert Wasi(args=("a",)) == Wasi(args=["a"])
    assert {Wasi(), Wasi()} == {Wasi()}
    assert RunResult(0, b"", b"", False, None) == RunResult(0, b"", b"", False, None)


def test_arguments_that_are_no_text_travel_as_their_bytes():
    """A shell's arguments may hold any bytes; Python shows them as lone surrogates."""
    assert Wasi(args=("a\udcff",)).arg_bytes() == [b"a\xff"]
    assert Dir("/tmp", "/a\udcff").guest_path_bytes() == b"/a\xff"


def test_a_text_stream_stands_for_the_binary_one_behind_it(tmp_path):
    """`sys.stdin` and its like."""
    with (tmp_path / "f").open("w+") as text:
        wasi = Wasi(stdin=text, stdout=text)
        assert wasi.stdin is text.buffer
        assert wasi.stdout is text.buffer
        assert output_of(wasi.stdout) == text.fileno()
    assert Wasi(stderr=sys.__stderr__).stderr is sys.__stderr__.buffer


def test_a_file_is_read_from_where_it_stands(tmp_path):
    """What Python has buffered of it is not skipped, and what it still has to write comes first."""
    path = tmp_path / "f"
    path.write_bytes(b"0123456789")
    with path.open("r+b") as file:
        assert file.read(3) == b"012"
        assert input_of(file) == file.fileno()
        assert file.fileno() == input_of(file.fileno())
        import os

        assert os.read(file.fileno(), 4) == b"3456"
    with path.open("wb") as file:
        file.write(b"buffered")
        assert output_of(file) == file.fileno()
        assert path.read_bytes() == b"buffered"


def test_objects_without_a_descriptor_are_called():
    """Bytes in memory, and functions."""
    buffer, seen = io.BytesIO(), []
    assert input_of(buffer) is buffer
    output_of(buffer)(b"x")
    assert buffer.getvalue() == b"x"
    output_of(seen.append)(b"y")
    assert seen == [b"y"]
    assert output_of(None) is None


@pytest.mark.parametrize(
    ("module", "granted", "text"),
    [
        ("wasi_snapshot_preview1", False, "wasi=Wasi"),
        ("wasi_snapshot_preview1", True, "has no such function"),
        ("wasi_unstable", True, "rebuild it for wasi_snapshot_preview1"),
        ("wasi", True, "threads"),
        ("wasi:cli/exit@0.2.0", True, "preview 2"),
    ],
)
def test_a_missing_import_says_what_would_help(module, granted, text):
    """And names the import."""
    why = missing_import(module, "f", granted=granted)
    assert why.startswith(f'missing import "{module}"."f": ')
    assert text in why


def test_other_imports_are_none_of_wasi():
    """They have texts of their own."""
    assert missing_import("env", "f", granted=False) is None
