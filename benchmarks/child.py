"""A module of the harness in a process of its own, which reads lines and writes lines, and ends at end of file."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

# Ending takes milliseconds, or as long as closing what it had open; more only when something is badly wrong.
_END_S = 30.0


class Child:
    """`python -m benchmarks.NAME ARGUMENTS`. A context manager that ends and reaps it."""

    def __init__(self, name: str, *arguments: str) -> None:
        self._name = name
        self._child = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{name}", *arguments],
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for us: end of file ends it
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def write(self, line: str) -> None:
        """Send it a line."""
        assert self._child.stdin is not None
        self._child.stdin.write(f"{line}\n")
        self._child.stdin.flush()

    def read(self) -> str:
        """Wait for a line from it. RuntimeError when it has ended instead."""
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError(f"benchmarks.{self._name} ended before it had answered")
        return line

    def close(self) -> None:
        """End it and reap it."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has died already
            self._child.stdin.close()
        try:
            self._child.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _cls: type[BaseException] | None, _exc: BaseException | None, _tb: TracebackType | None) -> None:
        self.close()
