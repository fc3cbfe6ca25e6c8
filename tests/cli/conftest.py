"""The command line in this process, over `WasmtimeHost` instead of worker processes (the seam is `hosts.open_host`)."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shelling import FUNCTIONS, write

pytest.importorskip("click")
pytest.importorskip("rich")


@dataclasses.dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.out.count("\n") == 1, "one object on one line"
        return json.loads(self.out)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """cli("run", FILE, ...): the command in this process, its guests too."""
    from pdsandbox import WasmtimeHost
    from pdsandbox.cli import hosts
    from pdsandbox.cli.main import main

    beyond = {"wall_s": None, "rss_bytes": None, "compile_wall_s": None, "compile_rss_bytes": None}

    def open_host(limits: Any, hardening: str = "default") -> Any:
        return WasmtimeHost(dataclasses.replace(limits, **beyond))

    monkeypatch.setattr(hosts, "open_host", open_host)

    def run(*args: Any) -> Ended:
        code = main([str(arg) for arg in args])
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return run


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    """A module with a few functions, in a file."""
    return write(tmp_path, "functions.wat", FUNCTIONS)


@pytest.fixture
def module(tmp_path: Path) -> Callable[[str], Path]:
    """module(text): a .wat file of it."""
    return lambda text: write(tmp_path, "module.wat", text)


@pytest.fixture
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """command("run", FILE, ...): the real command, in a process of its own, over worker processes."""

    def run(*args: Any, **options: Any) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "pdsandbox", *map(str, args)]
        return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60, **options)

    return run
