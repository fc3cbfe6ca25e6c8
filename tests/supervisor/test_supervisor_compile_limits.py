"""What a compilation may cost: its limits just under and just over, bombs, and compilers that die or hang."""

from __future__ import annotations

import os
import select
import signal

import pytest
from bombs import empty_functions, jump_tables, nested_loops
from supervising import MIB, PATIENCE_S, expect, fork_server_of, stop_process

from pdsandbox import I32, Cause, CompileError, InstantiationError
from pdsandbox.supervisor import compiling, monitor

HEAD = b"\0asm\1\0\0\0"


def works(host):
    """The supervisor still compiles."""
    assert host.instantiate(host.compile('(module (func (export "n") (result i32) (i32.const 9)))')).call("n") == [
        I32(9)
    ]


def custom_section(total):
    """An empty module of exactly `total` bytes (of which up to five are a length)."""
    content = total - len(HEAD) - 1 - 5
    length = bytes((content >> 7 * i) & 0x7F | 0x80 for i in range(4)) + bytes([content >> 28])
    source = HEAD + b"\0" + length + b"\3abc" + bytes(content - 4)
    assert len(source) == total
    return source


@pytest.mark.parametrize("bomb", [jump_tables, nested_loops, empty_functions], ids=lambda bomb: bomb.__name__)
def test_compile_wall_s_stops_a_bomb(make_supervisor, bomb):
    """A small module that takes many seconds: CompileError, cause WALL, with the limit; then others compile."""
    host = make_supervisor(compile_wall_s=0.3, compile_rss_bytes=None)
    error = expect(CompileError, Cause.WALL, lambda: host.compile(bomb()))
    assert error.limit == 0.3
    assert str(error) == "WASM compile error: compile_wall_s of 0.3 s exceeded"
    assert error.pid
    works(make_supervisor(compile_wall_s=60.0))


def test_a_supervisor_survives_a_compile_bomb(make_supervisor):
    """It costs one compiler: the very same supervisor compiles on, and its running instance answers."""
    host = make_supervisor(compile_wall_s=3.0)
    instance = host.instantiate(host.compile('(module (func (export "n") (result i32) (i32.const 8)))'))
    expect(CompileError, Cause.WALL, lambda: host.compile(jump_tables()))
    assert instance.call("n") == [I32(8)]
    works(host)


def test_compile_wall_s_just_under(make_supervisor):
    """A compilation within its time passes, and so does one without a limit."""
    for wall_s in (60.0, None):
        works(make_supervisor(compile_wall_s=wall_s))


@pytest.mark.parametrize(
    ("mib", "bomb"), [(96, nested_loops), (256, nested_loops), (96, lambda: jump_tables(2000, 300))]
)
def test_compile_rss_bytes_stops_a_bomb(make_supervisor, mib, bomb):
    """A small module that wants gigabytes, bit by bit or in large steps: CompileError, cause RSS, near the limit."""
    host = make_supervisor(compile_rss_bytes=mib * MIB, compile_wall_s=None)
    error = expect(CompileError, Cause.RSS, lambda: host.compile(bomb()))
    assert error.limit == mib * MIB
    assert mib * MIB < error.observed <= (mib + 16) * MIB
    assert str(error).startswith(f"WASM compile error: compile_rss_bytes of {mib} MiB exceeded (")
    works(host)


def test_compile_rss_bytes_just_under(make_supervisor):
    """What compiles within the smallest allowed limit passes there."""
    works(make_supervisor(compile_rss_bytes=64 * MIB))


def test_without_a_limit_of_memory(make_supervisor):
    """None: neither watched nor capped."""
    works(make_supervisor(compile_rss_bytes=None))


def test_module_bytes(make_supervisor):
    """Exactly the limit passes; one byte more is refused with both figures before any compiler is asked for."""
    host = make_supervisor(module_bytes=10_000)
    assert host.compile(custom_section(10_000)).exports() == []
    error = expect(CompileError, Cause.COMPILE, lambda: host.compile(custom_section(10_001)))
    assert (error.limit, error.observed) == (10_000, 10_001)
    text = "(module)"
    assert host.compile(text + " " * (10_000 - len(text))).exports() == []
    error = expect(CompileError, Cause.COMPILE, lambda: host.compile(text + " " * (10_001 - len(text))))
    assert (error.limit, error.observed) == (10_000, 10_001)


def test_module_bytes_counts_a_texts_encoding(make_supervisor):
    """Bytes of UTF-8, not characters."""
    host = make_supervisor(module_bytes=1000)
    text = "(module) ;;"
    assert host.compile(text + "é" * ((1000 - len(text)) // 2)).exports() == []
    expect(CompileError, Cause.COMPILE, lambda: host.compile(text + "é" * ((1000 - len(text)) // 2 + 1)))


def test_module_bytes_at_its_least(make_supervisor):
    """Eight bytes: the empty module is the largest there is."""
    host = make_supervisor(module_bytes=8)
    assert host.compile(HEAD).exports() == []
    expect(CompileError, Cause.COMPILE, lambda: host.compile(custom_section(20)))


@pytest.fixture
def before_compiling(monkeypatch, spawned):
    """before_compiling(action): `action(pid)` runs once the compiler lives, before it is spoken to."""

    converse = compiling._converse

    def arrange(action):
        def first(handle, *args, **options):
            action(spawned.pid_of(handle))
            return converse(handle, *args, **options)

        monkeypatch.setattr(compiling, "_converse", first)

    return arrange


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT], ids=lambda number: number.name)
def test_a_compiler_that_is_killed(make_supervisor, before_compiling, number):
    """CompileError, cause SIGNAL, naming the signal; the same module compiles afterwards."""
    host = make_supervisor()
    before_compiling(lambda pid: os.kill(pid, number))
    error = expect(CompileError, Cause.SIGNAL, lambda: host.compile("(module)"))
    assert error.signal == number
    assert str(error) == f"WASM compile error: compiler crashed: {number.name}"
    before_compiling(lambda pid: None)
    assert host.compile("(module)").exports() == []


def test_a_compiler_that_hangs(make_supervisor, before_compiling, spawned):
    """Ready, but stopped before it gets the module, it ends at the deadline: cause WALL, with the limit."""
    host = make_supervisor(compile_wall_s=0.2)

    def stop_once_ready(pid):
        assert select.select([spawned.compilers[-1].ends.replies], [], [], PATIENCE_S)[0]
        stop_process(pid)

    before_compiling(stop_once_ready)
    error = expect(CompileError, Cause.WALL, lambda: host.compile("(module)"))
    assert error.limit == 0.2
    assert error.pid == spawned.compilers[-1].pid


@pytest.mark.parametrize("what", ["compile", "instantiate"])
def test_a_process_that_does_not_start(make_supervisor, spawned, monkeypatch, what):
    """Stopped at its birth, it is this machine's failure: cause HOST, not a deadline of the guest's."""
    host = make_supervisor(wall_s=1.0, compile_wall_s=1.0)
    module = host.compile("(module)")
    monkeypatch.setattr(monitor, "START_TIMEOUT_S", 1.5)
    os.kill(fork_server_of(host).pid, signal.SIGSTOP)
    try:
        if what == "compile":
            error = expect(CompileError, Cause.HOST, lambda: host.compile("(module (memory 1))"))
            assert "compiler could not be started" in str(error)
        else:
            error = expect(InstantiationError, Cause.HOST, lambda: host.instantiate(module))
            assert "worker could not be started" in str(error)
    finally:
        os.kill(fork_server_of(host).pid, signal.SIGCONT)
    monkeypatch.undo()
    works(make_supervisor())
    assert host.compile("(module (memory 1))").exports() == []


@pytest.mark.parametrize(("tables", "fits"), [(60, True), (70, False)])
def test_an_artifact_far_larger_than_its_source(host, tables, fits):
    """A megabyte of code a table from 37 bytes of text: up to 64 MiB pass, more is a CompileError with both figures."""
    source = "(module (func $f) " + "(table 1000000 funcref (ref.func $f))" * tables + ")"
    if fits:
        assert host.compile(source).compiled.artifact.size > tables * 1_000_000
    else:
        error = expect(CompileError, Cause.COMPILE, lambda: host.compile(source))
        assert error.limit == 64 * MIB
        assert f"{64 * MIB:,}" in str(error)


def test_a_lone_surrogate_in_the_text(host):
    """CompileError, not UnicodeEncodeError."""
    expect(CompileError, Cause.COMPILE, lambda: host.compile("(module) ;; \ud800"))
