"""What a command imports, and what it says when click or rich are not there. Each in an interpreter of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_PROBE = """
import sys
from pdsandbox.cli.main import main
for name in {absent!r}:
    sys.modules[name] = None
code = main({args!r})
seen = {{name for name in sys.modules if sys.modules[name] is not None}}
print("code", code, *sorted(seen & {watched!r}), file=sys.stderr)
"""
_WATCHED = {
    *("click", "rich", "wasmtime", "cloudpickle", "hypothesis", "ctypes", "vt100wasm"),
    *("pdsandbox.supervisor", "pdsandbox.runtime", "pdsandbox.worker", "pdsandbox.cli.gallery", "pdsandbox.cli.survey"),
}


def probe(*args: object, absent: tuple[str, ...] = ()) -> tuple[str, list[str]]:
    """Standard output, and standard error's lines, the last of which tells exit code and modules."""
    code = _PROBE.format(args=[str(arg) for arg in args], absent=absent, watched=_WATCHED)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return ended.stdout, ended.stderr.splitlines()


@pytest.mark.parametrize(
    "args",
    [
        ("--help",),
        ("run", "--help"),
        ("inspect", "--help"),
        ("demo", "--help"),
        ("doctor", "--help"),
        ("cache", "--help"),
        ("--version",),
    ],
)
def test_help_imports_click_alone(args: tuple[str, ...]) -> None:
    """Help is there at once: no supervisor, no rich, nothing of the engine."""
    out, err = probe(*args)
    assert out
    assert err == ["code 0 click"]


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_run_needs_no_rich(functions: Path, flags: tuple[str, ...]) -> None:
    """A run imports neither rich, nor the engine, nor another command's rooms."""
    out, err = probe("run", functions, "add", "1", "2", *flags)
    assert "3" in out
    words = err[-1].split()
    assert words[:2] == ["code", "0"]
    assert not set(words) & {
        "click",
        "rich",
        "wasmtime",
        "pdsandbox.runtime",
        "pdsandbox.worker",
        "pdsandbox.cli.gallery",
    }


def test_inspect_json_needs_no_rich(functions: Path) -> None:
    """`inspect --json` prints without rich."""
    _out, err = probe("inspect", functions, "--json")
    assert "rich" not in err[-1].split()


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_doctor_needs_no_rich(flags: tuple[str, ...]) -> None:
    """`doctor` into a pipe prints without rich, and never loads the engine."""
    out, err = probe("doctor", *flags, absent=("rich",))
    assert "seccomp" in out
    assert not set(err[-1].split()) & {"wasmtime", "pdsandbox.runtime", "pdsandbox.worker", "pdsandbox.cli.survey"}


@pytest.mark.parametrize(
    ("absent", "args"),
    [("click", ("--help",)), ("click", ("run", "--help")), ("rich", ("inspect", "FILE")), ("rich", ("demo",))],
)
def test_without_click_or_rich(functions: Path, absent: str, args: tuple[str, ...]) -> None:
    """Without click or rich: one line that gives the pip command, exit code 2."""
    out, err = probe(*(functions if arg == "FILE" else arg for arg in args), absent=(absent,))
    assert out == ""
    assert err[0] == f"pdsandbox: the command line needs {absent}: pip install 'pdsandbox[cli]'"
    assert err[1].startswith("code 2")
    assert len(err) == 2


def test_run_works_without_click_and_rich(functions: Path) -> None:
    """`run` needs neither, and does not import them."""
    out, err = probe("run", functions, "add", "1", "2", absent=("click", "rich"))
    assert out == "3\n"
    assert err[0].startswith("code 0")
