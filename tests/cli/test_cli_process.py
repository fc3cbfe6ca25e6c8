"""The real command in a process of its own: signals, closed streams, limits that need a worker, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

Command = Callable[..., "subprocess.CompletedProcess[str]"]

_BOUND_S = 20.0


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Look again and again, without sleeping away a test's time, until it holds or the bound is reached."""
    deadline = time.monotonic() + _BOUND_S
    while not holds():
        assert time.monotonic() < deadline, f"not within {_BOUND_S:g} s: {what}"
        os.sched_yield()


def guest_runs(process: subprocess.Popen[Any]) -> bool:
    """Whether a grandchild has used more CPU time than a small compilation takes: only a guest in a worker does."""
    assert process.poll() is None, "the command ended by itself"
    for child in psutil.Process(process.pid).children():
        for grandchild in child.children():
            try:
                if grandchild.cpu_times().user > 0.3:
                    return True
            except psutil.NoSuchProcess:
                continue
    return False


@pytest.mark.parametrize("as_json", [False, True])
def test_interrupted(functions: Path, as_json: bool) -> None:
    """Ctrl-C during an endless call: exit code 130 at once, no process left."""
    line = [sys.executable, "-m", "pdsandbox", "run", str(functions), "spin", "--wall", "60s", "--fuel", "none"]
    with subprocess.Popen(
        [*line, "--json"] if as_json else line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_until(lambda: guest_runs(process), "the guest runs")
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=_BOUND_S)
    assert (process.returncode, out, err) == (130, "", "pdsandbox: interrupted\n")
    _gone, alive = psutil.wait_procs(family, timeout=_BOUND_S)
    assert alive == []


@pytest.mark.orphans
def test_killed(functions: Path) -> None:
    """SIGKILL of the command leaves no process either."""
    line = [sys.executable, "-m", "pdsandbox", "run", str(functions), "spin", "--wall", "60s", "--fuel", "none"]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: guest_runs(process), "the guest runs")
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    wait_until(lambda: not any(_lives(one) for one in family), "the workers die with the command")


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("args", "code", "why", "error"),
    [
        (["--wall", "100ms", "--fuel", "none"], 84, "wall-clock limit of 0.1 s exceeded", "WallClockExceeded"),
        (["--fuel", "1M"], 83, "WASM fuel budget exhausted", "FuelExhausted"),
    ],
)
def test_limits(command: Command, functions: Path, args: list[str], code: int, why: str, error: str) -> None:
    """The limit given is the limit kept, as text and as JSON, with the same exit code."""
    ended = command("run", functions, "spin", *args)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert why in ended.stderr
    ended = command("run", functions, "spin", *args, "--json")
    assert (ended.returncode, ended.stderr) == (code, "")
    found = json.loads(ended.stdout)
    assert found["error"]["class"] == error
    assert found["wall_s"] > 0


def test_rss_limit(command: Command, wat: Callable[[str], str]) -> None:
    """`--rss` stops a memory bomb, and says what was seen."""
    ended = command(
        *("run", "-", "run", "--rss", "64MiB", "--memory", "1GiB", "--fuel", "none", "--json"),
        input=wat("memory_bomb"),
    )
    assert ended.returncode == 85
    error = json.loads(ended.stdout)["error"]
    assert (error["class"], error["cause"], error["limit"]) == ("RssExceeded", "rss", 64 << 20)
    assert error["observed"] > error["limit"]


def test_runs_in_another_process(command: Command, functions: Path) -> None:
    """The guest's pid is not the command's."""
    with subprocess.Popen(
        [sys.executable, "-m", "pdsandbox", "run", str(functions), "add", "1", "2", "--json"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        out, _ = process.communicate(timeout=_BOUND_S)
    found = json.loads(out)
    assert found["results"] == [{"type": "i32", "value": 3}]
    assert found["pid"] != process.pid


@pytest.mark.parametrize(
    "redirect", [">&-", "2>&-", "<&-", "<&- 2>&-", "<&- >&- 2>&-"], ids=["stdout", "stderr", "stdin", "in+err", "all"]
)
def test_closed_streams(functions: Path, redirect: str) -> None:
    """With a standard stream closed the command still ends by itself, without a traceback."""
    line = f"exec {sys.executable} -m pdsandbox run {functions} add 1 2 {redirect}"
    ended = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False, timeout=60)
    assert ended.stderr == ""
    assert ended.returncode == (141 if ">&-" in redirect.replace("2>&-", "") else 0)
    assert ended.stdout == ("" if ended.returncode else "3\n")


@pytest.mark.parametrize("args", [["run", "FILE", "add", "1", "2"], ["inspect", "FILE"], ["inspect", "FILE", "--json"]])
def test_reader_left(functions: Path, args: list[str]) -> None:
    """When the reader of standard output is gone the command ends quietly, with 141."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "pdsandbox", *(str(functions) if arg == "FILE" else arg for arg in args)],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_full_disk(functions: Path) -> None:
    """When standard output cannot be written, one line says why, with 74."""
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "pdsandbox", "run", str(functions), "add", "1", "2"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert ended.returncode == 74
    assert ended.stderr == "pdsandbox: cannot write to standard output: No space left on device\n"


def test_ascii_terminal(command: Command, tmp_path: Path) -> None:
    """A terminal without Unicode gets names escaped, not a traceback."""
    path = tmp_path / "uni.wat"
    path.write_text('(module (func (export "přidej_😀")))', encoding="utf-8")
    environment: dict[str, Any] = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    ended = command("inspect", path, env=environment)
    assert ended.returncode == 0, ended.stderr
    assert "p\\u0159idej" in ended.stdout
