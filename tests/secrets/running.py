"""Runs `service.py` as a process of its own, as this user or as an ordinary one, and knows its processes."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from leaks import PATIENCE_S, descendants, wait_until
from scanning import labels, why_not

NOBODY = 65534
FORK_SERVER, WORKER, COMPILER = "pdsandbox-fork", "pdsandbox-work", "pdsandbox-comp"
SERVICE = Path(__file__).parent / "service.py"


def environment() -> dict[str, str]:
    """What a program needs to find the package and what that needs, with any Python of this version."""
    roots = []
    for name in ("pdsandbox", "wasmtime", "cloudpickle", "psutil"):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        roots.append(str(Path(spec.origin).parents[1]))
    return {"PYTHONPATH": os.pathsep.join(dict.fromkeys(roots)), "PYTHONDONTWRITEBYTECODE": "1"}


def run_as(ordinary: bool) -> tuple[str, dict[str, Any]]:
    """(Python, options for Popen). Skips where this user cannot become an ordinary one, or that one has no Python."""
    if not ordinary:
        return sys.executable, {}
    if os.geteuid():
        pytest.skip("is an ordinary user's already")
    options: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    system = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"  # ours may lie in root's home
    script = "import pdsandbox, cloudpickle, wasmtime, psutil, sys; open(sys.argv[1]).close()"
    why = "no Python"
    for python in filter(os.path.exists, (sys.executable, system)):
        command = [python, "-c", script, str(SERVICE)]
        try:
            subprocess.run(command, env=environment(), cwd="/", capture_output=True, timeout=60, check=True, **options)
        except (OSError, subprocess.CalledProcessError) as exc:
            why = str(exc)
        else:
            return python, options
    pytest.skip(f"uid {NOBODY} can run neither Python nor the package here: {why}")


class Service:
    """The running service. `tag` is in all that it was given; a context manager, after which it is gone."""

    def __init__(self, *, ordinary: bool = False) -> None:
        self.tag = secrets.token_hex(16)
        python, options = run_as(ordinary)
        self.process = subprocess.Popen(
            [python, "-W", "error", str(SERVICE), f"{self.tag}:argument;"],
            env=environment() | {"SECRET": f"{self.tag}:environment;"},
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            **options,
        )
        self.pid = self.process.pid

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_exc: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.close()  # the order to close its supervisor, and leave
        except BrokenPipeError:
            pass
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.process.stdout.close()
        assert code == 0

    def ask(self, what: str, *arguments: str) -> dict[str, int]:
        """Have it done; the instances' processes by name."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([what, *arguments]).encode() + b"\n")
        self.process.stdin.flush()
        assert select.select([self.process.stdout], [], [], 60)[0], f"{what} is not answered"
        line = self.process.stdout.readline()
        assert line, f"the service ended at {what}: {self.process.wait()}"
        found: dict[str, int] = json.loads(line)
        return found

    def processes(self, name: str) -> set[int]:
        """Its descendants with this name."""
        return {pid for pid in descendants(self.pid) if _name(pid) == name}

    def fork_server(self) -> int:
        (pid,) = {pid for pid in self.processes(FORK_SERVER) if _parent(pid) == self.pid}
        return pid

    def wait_for(self, name: str, *, besides: set[int]) -> int:
        """The one process with this name that is none of those."""

        def found() -> set[int]:
            return self.processes(name) - besides

        assert wait_until(lambda: len(found()) == 1, 3 * PATIENCE_S), f"{len(found())} processes are {name}"
        return found().pop()

    def found_in(self, pid: int) -> set[str]:
        """Labels of the marks in that process; skips where they may not be looked for."""
        reason = why_not(pid)
        if reason:
            pytest.skip(reason)
        return labels(pid, self.tag)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    except OSError:
        return 0
