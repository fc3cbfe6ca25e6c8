"""Whole programs: `run`, reactors, what is missing said so, and compiled C compared with plain wasmtime."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pdsandbox import (
    CallError,
    Cause,
    CompileError,
    Dir,
    EngineConfig,
    FuelExhausted,
    GuestExit,
    HostFunction,
    InstantiationError,
    MemoryAccessError,
    Output,
    RunResult,
    Trap,
    Wasi,
    WasmImports,
)

GUESTS = Path(__file__).parent / "guests"
WRITE = """(import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1) (data (i32.const 0) "\\10\\00\\00\\00\\03\\00\\00\\00") (data (i32.const 16) "hi\\0a")
  (func $hi (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))"""


@pytest.fixture
def start(host):
    """start(source, wasi=None, on=host, imports=None): an instance, closed after the test."""
    made = []

    def begin(source, wasi=None, *, on=host, imports=None):
        made.append(on.instantiate(on.compile(source), imports, wasi=wasi))
        return made[-1]

    yield begin
    for each in made:
        each.close()


def command(body, rest=""):
    return f'(module {WRITE} {rest} (func (export "_start") {body}))'


# --- how a run ends ---


def test_a_command_that_returns_has_succeeded(start):
    """Exit code 0, its output, and the fuel of this run."""
    instance = start(command("(call $hi)"), Wasi())
    before = instance.fuel_consumed()
    result = instance.run()
    assert result == RunResult(0, b"hi\n", b"", False, instance.fuel_consumed() - before)
    assert result.fuel_consumed > 0
    assert instance.output() == Output()


@pytest.mark.parametrize("code", [0, 1, 42, 2**31 + 5])
def test_an_exit_is_a_result(start, code):
    """Whatever its code."""
    result = start(command(f"(call $hi) (call $exit (i32.const {code})) (call $hi)"), Wasi()).run()
    assert (result.exit_code, result.stdout) == (code, b"hi\n")


def test_an_exit_in_a_call_is_an_error(start):
    """`call` has no place for an exit code."""
    instance = start(command("(call $exit (i32.const 3))"), Wasi())
    with pytest.raises(GuestExit, match="guest exited with 3") as caught:
        instance.call("_start")
    assert (caught.value.exit_code, caught.value.cause) == (3, Cause.GUEST_EXIT)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("(unreachable)", Trap),
        ("(loop $l (br $l))", FuelExhausted),
        ("(drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const -4)))", MemoryAccessError),
    ],
)
def test_a_trap_is_an_error_with_the_output_so_far(start, body, kind):
    """Nothing that was written is lost, and nothing is said to be missing."""
    instance = start(command(f"(call $hi) {body}"), Wasi())
    with pytest.raises(kind) as caught:
        instance.run(fuel=100_000)
    assert caught.value.output == Output(b"hi\n", b"", False)


def test_a_command_runs_once(start):
    """Its memory is what the first run left."""
    instance = start(command("(call $hi)"), Wasi())
    instance.run()
    with pytest.raises(CallError, match="runs once"):
        instance.run()


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("(module)", "_start"),
        ('(module (func (export "_start") (param i32)))', "takes and gives nothing"),
        ('(module (memory (export "_start") 1))', "not a function"),
    ],
)
def test_what_is_no_command_says_so(start, source, text):
    """By name."""
    with pytest.raises(CallError, match=text):
        start(source, Wasi()).run()


def test_without_metering_no_fuel_is_told(start, host_factory):
    """Of a run as of anything else."""
    host = host_factory(engine=EngineConfig(fuel=False))
    assert start(command("(call $hi)"), Wasi(), on=host).run().fuel_consumed is None


def test_a_run_takes_no_clock_where_none_is_kept(start, host_kind):
    """As `call` does in this process; in a worker it is kept, and just above the need it passes."""
    instance = start(command("(call $hi)"), Wasi())
    if host_kind == "wasmtime":
        with pytest.raises(CallError, match="wall_s"):
            instance.run(wall_s=60)
    else:
        assert instance.run(wall_s=60).stdout == b"hi\n"


def test_after_close_nothing_runs(start):
    """As for calls; its directories are closed."""
    instance = start(command("(call $hi)"), Wasi())
    instance.close()
    with pytest.raises(CallError, match="closed"):
        instance.run()


# --- linking ---


@pytest.mark.parametrize(
    ("module", "name", "wasi", "text"),
    [
        ("wasi_snapshot_preview1", "fd_write", None, "grant it WASI with instantiate"),
        ("wasi_snapshot_preview1", "fd_nope", Wasi(), "has no such function"),
        ("wasi_unstable", "fd_write", Wasi(), "wasi_unstable, the version before"),
        ("wasi", "thread-spawn", Wasi(), "threads are not offered"),
        ("env", "f", Wasi(), 'missing import "env"."f"$'),
    ],
)
def test_what_is_missing_says_what_would_help(start, module, name, wasi, text):
    """Nothing of WASI is there by default."""
    with pytest.raises(InstantiationError, match=text) as caught:
        start(f'(module (import "{module}" "{name}" (func)))', wasi)
    assert caught.value.cause is Cause.LINK


def test_a_mistyped_import_is_refused(start):
    """With both types."""
    with pytest.raises(InstantiationError, match=r"has type \(\) -> \(\), but the host function has \(i32, i32\)"):
        start('(module (import "wasi_snapshot_preview1" "random_get" (func)))', Wasi())


def test_a_function_of_the_user_s_wins(start):
    """One of WASI's may be replaced, with or without a grant."""
    seen = []
    functions = {
        ("wasi_snapshot_preview1", "proc_exit"): HostFunction(lambda _caller, code: seen.append(code), ("i32",))
    }
    source = """(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
      (func (export "_start") (call $exit (i32.const 7))))"""
    for wasi in (None, Wasi()):
        assert start(source, wasi, imports=WasmImports(functions=functions)).run().exit_code == 0
    assert seen == [7, 7]


def test_a_component_is_recognised(host):
    """Its first eight bytes give it away."""
    with pytest.raises(CompileError, match="component, not a module"):
        host.compile(b"\0asm\x0d\0\x01\0")


def test_calls_do_not_count_as_host_calls(start, host_factory):
    """Only what leads to functions of the user's is bounded, and streams have caps of their own."""
    host = host_factory(host_calls=1)
    assert start(command("(call $hi) (call $hi) (call $hi)"), Wasi(), on=host).run().stdout == b"hi\n" * 3


def test_without_a_memory_a_pointer_leads_nowhere(start):
    """And what needs none works."""
    source = """(module (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
      (func (export "_start") (drop (call $yield)))
      (func (export "bad") (drop (call $random (i32.const 0) (i32.const 1)))))"""
    instance = start(source, Wasi())
    assert instance.run().exit_code == 0
    with pytest.raises(MemoryAccessError):
        instance.call("bad")


# --- reactors and start functions ---


def test_a_reactor_is_made_and_called(start):
    """`_initialize` runs while instantiating; output is taken when it is asked for."""
    instance = start((GUESTS / "reactor.wasm").read_bytes(), Wasi())
    assert instance.output() == Output(b"made\n")
    assert instance.func("bump")(2) == 42
    assert instance.func("bump")(-2) == 40
    assert instance.output() == Output(b"state 42\nstate 40\n")


@pytest.mark.parametrize("where", ["_initialize", "start"])
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("(unreachable)", InstantiationError),
        ("(call $exit (i32.const 4))", GuestExit),
        ("(loop $l (br $l))", FuelExhausted),
    ],
)
def test_a_guest_that_ends_while_instantiating(start, fuelled, where, body, kind):
    """The same whether it is a start function or `_initialize`; what it wrote comes with the error."""
    source = f'(module {WRITE} (func $f (export "_initialize") (call $hi) {body}))'
    if where == "start":
        source = f"(module {WRITE} (start $f) (func $f (call $hi) {body}))"
    with pytest.raises(kind) as caught:
        start(source, Wasi(), on=fuelled)
    assert caught.value.output == Output(b"hi\n")


def test_initialize_draws_on_the_fuel_of_instantiation(start, host_factory):
    """It is part of it; a command's is left alone, and so is a function of another type."""
    step = "(local.tee 0 (i32.add (local.get 0) (i32.const 1)))"
    burn = f"(local i32) (loop $l (br_if $l (i32.lt_u {step} (i32.const 900))))"
    both = f"""(module (func $s {burn}) (start $s) (func (export "_initialize") {burn}))"""
    used = start(both, Wasi(), on=host_factory(fuel=100_000)).fuel_consumed()
    # Fuel is looked at once a round, of less than 20 units.
    start(both, Wasi(), on=host_factory(fuel=used + 20))
    with pytest.raises(FuelExhausted):
        start(both, Wasi(), on=host_factory(fuel=used - 20))
    for untouched in (
        '(module (func (export "_initialize") unreachable) (func (export "_start")))',
        '(module (func (export "_initialize") (result i32) unreachable))',
        '(module (memory (export "_initialize") 1))',
    ):
        start(untouched, Wasi())
    start('(module (func (export "_initialize") unreachable))', None)


# --- compiled C ---


@pytest.mark.parametrize(
    ("args", "env", "stdin"),
    [
        ((), {}, b""),
        (("streams", "7", "ä"), {"GREETING": "hello"}, b"line\nno end"),
        (("s",), {"A": "b"}, b"x" * 100_000),
    ],
)
def test_a_program_s_streams_are_what_they_are_to_wasmtime(start, plain_wasmtime, args, env, stdin):
    """Arguments, environment, standard streams, exit code."""
    source = (GUESTS / "streams.wasm").read_bytes()
    result = start(source, Wasi(args=args, env=env, stdin=stdin)).run()
    theirs = plain_wasmtime("run", source, None, args, list(env.items()), stdin)
    assert (result.exit_code, result.stdout, result.stderr) == theirs
    assert result.stdout.endswith(stdin.upper())


@pytest.mark.usefixtures("opener")
def test_a_program_s_files_are_what_they_are_to_wasmtime(start, tmp_path, plain_wasmtime):
    """Each step of a program that works through a directory, and what it leaves behind."""
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    source = (GUESTS / "files.wasm").read_bytes()
    result = start(source, Wasi(dirs=[Dir(tmp_path / "ours", "/", "rw")])).run()
    theirs = plain_wasmtime("run", source, str(tmp_path / "theirs"), (), [], b"")
    assert (result.exit_code, result.stdout.decode(), result.stderr) == (theirs[0], theirs[1].decode(), theirs[2])
    assert b"entry with a long name 199" in result.stdout
    assert os.listdir(tmp_path / "ours") == os.listdir(tmp_path / "theirs") == []


def test_a_program_may_only_read_what_was_granted_so(start, tmp_path):
    """Every change fails, and nothing is changed."""
    result = start((GUESTS / "files.wasm").read_bytes(), Wasi(dirs=[Dir(tmp_path, "/")])).run()
    assert result.stdout.startswith(b"mkdir: -1 Operation not permitted\n")
    assert os.listdir(tmp_path) == []


def test_a_program_without_a_directory_finds_none(start):
    """Nothing of the host is there."""
    result = start((GUESTS / "files.wasm").read_bytes(), Wasi()).run()
    assert b"out by a path: -1" in result.stdout
    assert b"opendir: -1" in result.stdout


def test_a_program_meets_its_quota(start, tmp_path):
    """Clearly: it is told that the quota is exceeded."""
    wasi = Wasi(dirs=[Dir(tmp_path, "/", "rw", max_bytes=10)])
    result = start((GUESTS / "files.wasm").read_bytes(), wasi).run()
    assert b"write: 10 \n" in result.stdout
    assert b"append: 2 \n" in result.stdout  # it had cut the file to 8
    assert b"symlink: -1 Quota exceeded\n" in result.stdout
