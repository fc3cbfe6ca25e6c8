"""What `pdsandbox run` costs at a shell: a small program whose compiled code is on disk, from start to end.

Beside it, a bare start of the same interpreter: the rest is what the command takes for a sandbox.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .measure import Bar, Contender, Group, Row, Series

# As the installed script begins.
_COMMAND = "import sys; from pdsandbox.cli.main import main; sys.exit(main())"
_HELLO = r"""(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\06\00\00\00")
  (data (i32.const 16) "hello\n")
  (func (export "_start") (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"""

SERIES = (
    Series("shell.run", "`pdsandbox run hello.wat`, compiled before, to its end"),
    Series("shell.python", "`python -c pass`, to its end", short="python -c pass"),
    Series("shell.over", "shell.run less shell.python of the same round"),
)
ROWS = (
    Row("shell.run", "a program at a shell, cached", "shell.run", "shell.python"),
    Row(
        "shell.over",
        "... over the interpreter's own start",
        "shell.over",
        "shell.python",
        bar=Bar(0.150, "issue 5", of="value"),
    ),
)


class Shell:
    """Runs both, with a cache of its own."""

    def __init__(self, folder: Path) -> None:
        self._hello = folder / "hello.wat"
        self._hello.write_text(_HELLO, encoding="utf-8")
        self._environ = {
            **os.environ,
            "XDG_CACHE_HOME": str(folder / "cache"),
            "XDG_STATE_HOME": str(folder / "state"),
        }
        self._took([sys.executable, "-c", _COMMAND, "run", str(self._hello)], b"hello\n")
        if not list((folder / "cache").rglob("*.code")):
            raise RuntimeError("the command has put nothing in the cache")

    def sample(self) -> Mapping[str, float]:
        """One of each."""
        bare = self._took([sys.executable, "-c", "pass"], b"")
        whole = self._took([sys.executable, "-c", _COMMAND, "run", str(self._hello)], b"hello\n")
        return {"shell.run": whole, "shell.python": bare, "shell.over": whole - bare}

    def _took(self, line: list[str], says: bytes) -> float:
        started = time.perf_counter()
        ended = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, env=self._environ, check=False)
        taken = time.perf_counter() - started
        if (ended.returncode, ended.stdout) != (0, says):
            raise RuntimeError(f"{line[1:]} ended with {ended.returncode}: {ended.stderr.decode(errors='replace')}")
        return taken


@contextlib.contextmanager
def _open() -> Iterator[Sequence[Contender]]:
    with tempfile.TemporaryDirectory(prefix="pdsandbox-bench-") as folder:
        yield (Shell(Path(folder)).sample,)


GROUP = Group(
    "shell",
    "a command at a shell",
    SERIES,
    ROWS,
    _open,
    rounds=60,
    quick_rounds=12,
    caption="A small WASI program, compiled before: from starting the command to its end.",
)
