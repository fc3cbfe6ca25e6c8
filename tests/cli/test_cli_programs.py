"""`pdsandbox run` of WASI programs, as a process of its own: streams, arguments, exit codes, and nothing unasked."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wasi_programs
from shelling import write

RUN = [sys.executable, "-m", "pdsandbox", "run"]
GUESTS = Path(__file__).parents[1] / "wasi" / "guests"
STREAMS = str(GUESTS / "streams.wasm")
_BOUND_S = 60


def run(*args: Any, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """`pdsandbox run` with these words; standard input is empty unless given."""
    if not {"stdin", "input"} & set(options):
        options["stdin"] = subprocess.DEVNULL
    options.setdefault("stdout", subprocess.PIPE)
    return subprocess.run([*RUN, *args], stderr=subprocess.PIPE, check=False, timeout=_BOUND_S, **options)


@pytest.fixture
def guest(tmp_path: Path) -> Callable[[str], str]:
    """guest("CAT"): a file with that program of `wasi_programs`."""
    return lambda name: str(write(tmp_path, f"{name.lower()}.wat", getattr(wasi_programs, name)))


def in_shell(line: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """A line for sh, where `run` stands for the command."""
    line = f'run() {{ {sys.executable} -m pdsandbox run "$@"; }}; {line}'
    return subprocess.run(["sh", "-c", line], capture_output=True, check=False, timeout=_BOUND_S, **options)


def test_binary_data_passes_through_a_pipe_unchanged(guest: Callable[[str], str]) -> None:
    """Every byte value, more of them than any pipe holds, in and out, and nothing added."""
    data = bytes(range(256)) * 4096
    ended = run(guest("CAT"), input=data)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout == data


def test_redirection(guest: Callable[[str], str], tmp_path: Path) -> None:
    """From a file into a file, appended where the shell says so."""
    (tmp_path / "in").write_bytes(b"\0\xff\n")
    (tmp_path / "out").write_bytes(b"before ")
    ended = in_shell(f"run {guest('CAT')} <in >>out", cwd=tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
    assert (tmp_path / "out").read_bytes() == b"before \0\xff\n"


@pytest.mark.parametrize(("name", "said", "left"), [("NOTHING", b"", b"abcdef"), ("READ_TWO", b"ab", b"cdef")])
def test_what_the_guest_does_not_read_stays_for_the_next(
    guest: Callable[[str], str], name: str, said: bytes, left: bytes
) -> None:
    """Standard input is read when the guest reads, and no byte beyond."""
    ended = in_shell(f"(run {guest(name)}; cat)", input=b"abcdef")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, said + left, b"")


def test_a_reader_that_leaves_ends_the_guest(guest: Callable[[str], str]) -> None:
    """A guest that writes for ever into a pipe that nobody reads any more is ended, quietly, with 141."""
    ended = in_shell(f"(run {guest('YES')}; echo $? >&2) | head -n 2")
    assert (ended.stdout, ended.stderr) == (b"ready\nready\n", b"141\n")
    reading, writing = os.pipe()
    os.close(reading)
    try:
        alone = run(guest("YES"), stdout=writing)
    finally:
        os.close(writing)
    assert (alone.returncode, alone.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("name", "redirect", "errno"),
    [
        ("READ_ERRNO", "<&-", 8),  # BADF
        ("WRITE_ERRNO", ">&-", 8),
        ("WRITE_ERRNO", ">&- <&- 2>&-", 8),
        ("WRITE_ERRNO", ">/dev/full", 51),  # NOSPC
    ],
)
def test_a_stream_that_cannot_be_used_fails_in_the_guest(
    guest: Callable[[str], str], name: str, redirect: str, errno: int
) -> None:
    """Closed, or full: the guest gets the error that any program would, and decides."""
    ended = in_shell(f"run {guest(name)} {redirect}", input=b"")
    assert (ended.returncode, ended.stdout, ended.stderr) == (errno, b"", b"")


@pytest.mark.parametrize(("code", "seen"), [("0", 0), ("3", 3), ("84", 84), ("255", 255), ("256", 0), ("-1", 255)])
def test_the_exit_code_is_the_guests(code: str, seen: int) -> None:
    """Its low eight bits, as of every program; with --json all of it."""
    assert run(STREAMS, "--", code).returncode == seen
    ended = run("--json", STREAMS, "--", code)
    assert ended.returncode == seen
    document = json.loads(ended.stdout)
    assert (document["exit_code"], document["ok"]) == (int(code) % 2**32, code == "0")


def test_arguments(tmp_path: Path) -> None:
    """The file's name first, then every word; after -- those with dashes too, and bytes that are no text."""
    ended = run(STREAMS, "0", "-x", "--", "--json", b"\xff\xfe", "", "--", "*")
    lines = ended.stdout.split(b"\n")
    assert lines[:8] == [
        b"0: streams.wasm",
        b"1: 0",
        b"2: -x",
        b"3: --json",
        b"4: \xff\xfe",
        b"5: ",
        b"6: --",
        b"7: *",
    ]
    assert ended.stderr == b"done\n"
    assert run("--argv0", "me", STREAMS).stdout.startswith(b"0: me\n")
    strange = write(tmp_path, "caf\udce9.wasm", Path(STREAMS).read_bytes())
    assert run(str(strange)).stdout.startswith(b"0: caf\xe9.wasm\n")


def test_many_arguments() -> None:
    """A megabyte of them arrives."""
    words = [f"{number}{'x' * 10_000}" for number in range(100)]
    ended = run(STREAMS, *words)
    assert ended.stderr == b"done\n"
    assert f"\n100: {words[-1]}\n".encode() in ended.stdout


def test_the_environment_is_empty_unless_granted() -> None:
    """No variable by itself; one with a value, one from here; the last of two counts."""
    environ = {**os.environ, "GREETING": "from here"}
    assert b"GREETING=(none) " in run(STREAMS, env=environ).stdout
    assert b"GREETING=from here " in run("--env", "GREETING", STREAMS, env=environ).stdout
    assert b"GREETING=a=b " in run("--env", "GREETING=1", "--env=GREETING=a=b", STREAMS, env=environ).stdout


def test_a_terminal_is_seen_only_where_there_is_one() -> None:
    """A pipe is no terminal."""
    assert b"tty=0" in run(STREAMS).stdout


def test_a_module_from_standard_input() -> None:
    """FILE - takes all of it; the guest finds nothing left, and is called -."""
    ended = run("-", input=Path(STREAMS).read_bytes())
    assert ended.stdout == b"0: -\nGREETING=(none) tty=0\n"


def test_what_was_written_before_a_trap_is_there(guest: Callable[[str], str]) -> None:
    """Output first, then one line that says why; the cause's exit code."""
    ended = run(guest("TRAP"))
    assert (ended.returncode, ended.stdout) == (80, b"ready\n")
    assert ended.stderr.startswith(b"pdsandbox: WASM trap: unreachable instruction executed\n")


def test_limits_end_a_program(guest: Callable[[str], str]) -> None:
    """Each limit by its own exit code; output that came before stays."""
    ended = run("--wall", "300ms", guest("SPIN"))
    assert (ended.returncode, ended.stdout) == (84, b"ready\n")
    assert b"wall-clock limit of 0.3 s exceeded" in ended.stderr
    assert run("--fuel", "1M", guest("SPIN")).returncode == 83


def test_json_keeps_what_was_written(guest: Callable[[str], str]) -> None:
    """Text as text, anything else as base64, as much as was asked for; nothing goes anywhere else."""
    ended = run("--json", STREAMS, input=b"hi")
    document = json.loads(ended.stdout)
    assert ended.stderr == b""
    assert (document["stdout"], document["stdout_encoding"]) == ("0: streams.wasm\nGREETING=(none) tty=0\nHI", "utf-8")
    assert (document["stderr"], document["truncated"], document["ok"]) == ("done\n", False, True)
    assert document["peak_rss_bytes"] > 1 << 20
    assert document["cpu_s"] > 0
    document = json.loads(run("--json", "--stdout-bytes", "5", guest("CAT"), input=b"\xff" * 9).stdout)
    assert (base64.b64decode(document["stdout"]), document["stdout_encoding"]) == (b"\xff" * 5, "base64")
    assert document["truncated"] is True
    ended = run("--json", "--wall", "300ms", guest("SPIN"))
    document = json.loads(ended.stdout)
    assert (ended.returncode, document["stdout"], document["error"]["cause"]) == (84, "ready\n", "wall")


@pytest.mark.parametrize(
    ("args", "end"),
    [([STREAMS, "3"], b"exit code 3"), (["--wall", "300ms", "SPIN"], b"ended by wall"), (["TRAP"], b"guest_trap")],
)
def test_stats(guest: Callable[[str], str], args: list[str], end: bytes) -> None:
    """One line at the end of standard error, however the guest ended; standard output is the guest's alone."""
    ended = run("--stats", *(guest(arg) if arg.isupper() else arg for arg in args))
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(b"pdsandbox: ")
    assert end in last
    for figure in (b"CPU ", b"wall ", b"peak RSS ", b"start-up "):
        assert figure in last
    assert (b"fuel " in last) == (end != b"ended by wall")
    assert b"pdsandbox" not in ended.stdout


def test_a_reactor(guest: Callable[[str], str]) -> None:
    """Its constructor runs first; then the export that is named, and its result is printed after what it wrote."""
    reactor = GUESTS / "reactor.wasm"
    for words in (["--invoke", "bump", reactor, "2"], [reactor, "bump", "2"]):
        ended = run(*map(str, words))
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"made\nstate 42\n42\n", b"")


def test_invoke(guest: Callable[[str], str]) -> None:
    """Another export of a program than its beginning; one that exits ends the command with its code."""
    both = guest("BOTH")
    assert run(both).returncode == 1
    ended = run("--invoke", "seven", both)
    assert (ended.returncode, ended.stdout) == (0, b"7\n")
    assert run("--invoke", "leave", both, "5").returncode == 5
    assert run("--invoke=_start", both).returncode == 1
    assert run("--invoke", "absent", both).returncode == 64


def test_a_clock_and_random_numbers_of_its_own(tmp_path: Path) -> None:
    """The same each time."""
    text = wasi_programs.program(
        """(drop (call $now (i32.const 0) (i64.const 1) (i32.const 1024)))
  (drop (call $random (i32.const 1032) (i32.const 8)))
  (drop (call $out (i32.const 1) (i32.const 1024) (i32.const 16)))"""
    )
    imports = """(import "wasi_snapshot_preview1" "clock_time_get" (func $now (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (memory"""
    path = write(tmp_path, "now.wat", text.replace("(memory", imports, 1))
    first, second = (run("--clock", "1000000007+5", "--seed", "9", str(path)).stdout for _ in range(2))
    assert first == second
    assert int.from_bytes(first[:8], "little") in (1_000_000_007, 1_000_000_012)
    assert run("--seed", "10", "--clock", "0", str(path)).stdout[8:] != first[8:]


def test_no_cache(guest: Callable[[str], str], tmp_path: Path) -> None:
    """Nothing is left on disk."""
    environ = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "XDG_STATE_HOME": str(tmp_path / "state")}
    assert run("--no-cache", guest("NOTHING"), env=environ).returncode == 0
    assert not (tmp_path / "cache").exists()
    assert run(guest("NOTHING"), env=environ).returncode == 0
    assert list((tmp_path / "cache").rglob("*.code"))
