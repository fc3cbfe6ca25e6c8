"""Each example runs from a checkout as its reader would run it, and each kind of script comes to what it must."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


# A loop that burns fuel meets the clock first where the machine is busy.
_LOOP = r"stopped   WASM (fuel budget exhausted|trap: wall-clock limit of 2 s exceeded)"

PYTHON = {
    "a sum": r"finished  332833500, printed ''",
    "a bill": r"finished  {'total': 9.0}, printed 'two teas: 5.0\\n'",
    "not for sale": r"failed    RuntimeError: no price for 'yacht'",
    "a mistake": r"failed    IndexError: list index out of range",
    "no Python": r"failed    SyntaxError: invalid syntax",
    "deep recursion": r"failed    RuntimeError: maximum recursion depth exceeded",
    "your files": r"failed    OSError: \[Errno 44\] ENOENT",
    "an endless loop": _LOOP,
    "endless output": _LOOP,
    "a long sleep": r"stopped   WASM trap: wall-clock limit of 2 s exceeded",
    "a memory hog": r"failed    MemoryError: memory allocation failed, allocating 100000 bytes",
    "and the next": r"finished  42, printed ''",
}
JAVASCRIPT = {
    "a sum": r"finished  332833500, printed ''",
    "a bill": r"finished  {'total': 9}, printed 'two teas: 5\\n'",
    "a promise": r"finished  'kept', printed ''",
    "not for sale": r"failed    Error: no price for 'yacht'",
    "a mistake": r"failed    TypeError: cannot read property 'length' of undefined",
    "no JavaScript": r"failed    SyntaxError: unexpected token in expression: ''",
    "deep recursion": r"stopped   WASM trap: call stack exhausted",
    "your files": r"finished  None, printed ''",
    "an endless loop": _LOOP,
    "endless output": _LOOP,
    "a long sleep": r"stopped   WASM trap: wall-clock limit of 2 s exceeded",
    "a memory hog": r"stopped   WASM trap: RSS limit of 64 MiB exceeded \([\d.]+ MiB observed\)",
    "and the next": r"finished  42, printed ''",
}


@pytest.mark.parametrize(
    ("name", "expected"), [("untrusted_python", PYTHON), ("untrusted_javascript", JAVASCRIPT)], ids=["python", "js"]
)
def test_it_says_what_became_of_each_script(name, expected, tmp_path):
    """Run from anywhere, it says nothing on standard error and ends with 0; after all the others, the last one runs."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    said = {line[:16].rstrip(): line[17:] for line in done.stdout.splitlines()}
    assert list(said) == list(expected)
    for title, pattern in expected.items():
        assert re.fullmatch(pattern, said[title]), (title, said[title])


@pytest.mark.parametrize("name", ["untrusted_python", "untrusted_javascript"])
def test_it_is_short_and_uses_the_public_interface(name):
    """It fits on a few screens, and takes nothing from pdsandbox but its public names."""
    text = (EXAMPLES / f"{name}.py").read_text("utf-8")
    assert len(text.splitlines()) <= 230
    assert re.findall(r"^(?:from|import) (pdsandbox\S*)", text, re.MULTILINE) == ["pdsandbox"]


def test_timing_makes_the_table_of_the_readme(monkeypatch, capsys, tmp_path):
    """With the fewest repetitions, and time enough: its rows are those in the README, and all have their figures."""
    monkeypatch.syspath_prepend(EXAMPLES)
    timing = importlib.import_module("timing")
    # Compiling takes seconds: what does not say where compiled code is kept, or that it is not, shares a directory.
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(timing, "Supervisor", functools.partial(timing.Supervisor, cache_dir=tmp_path / "cache"))
    monkeypatch.setattr(timing, "FIRSTS", 1)
    monkeypatch.setattr(timing, "SCRIPTS", 1)
    for example in (timing.python, timing.javascript):  # a busy machine may take its time
        monkeypatch.setattr(example, "BUDGET", dataclasses.replace(example.BUDGET, wall_s=60.0))
    timing.main()
    printed = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()]
    readme = (EXAMPLES / "README.md").read_text("utf-8").partition("What it costs:\n\n")[2].partition("\n\n")[0]
    assert [row[0] for row in printed] == [line.split("|")[1] for line in readme.splitlines()]
    for title, *figures in printed[2:]:
        # The last row is of differences, which a busy machine makes negative when there is one sample of each.
        assert re.fullmatch(r" (–|-?[\d.]+ (µs|ms|s))   -?[\d.]+ (µs|ms|s) ", " ".join(figures)), title


def test_each_example_is_in_their_readme():
    """examples/README.md has the command for each of them."""
    readme = (EXAMPLES / "README.md").read_text("utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f"examples/{path.name}" in readme or path.name in readme, path.name
