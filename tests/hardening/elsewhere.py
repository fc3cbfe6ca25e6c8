"""Programs on machines of another kind (see `machines.py`), and the guest that most tests of the lock-down run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from machines import SKIP

import pdsandbox

HERE = Path(__file__).parent
PATIENCE_S = 100.0
GUEST = """(module (import "env" "double" (func $double (param i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "twice") (param i32) (result i32) (call $double (local.get 0)))
  (func (export "grow") (result i32) (memory.grow (i32.const 10)))
  (func (export "trap") unreachable))"""


def on_machine(conditions: str, *command: str) -> subprocess.CompletedProcess[str]:
    """`command` with this Python on a machine with these conditions; skips where there can be none."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "COV"))}
    more = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    env["PYTHONPATH"] = os.pathsep.join((str(Path(pdsandbox.__file__).parents[1]), str(HERE), *filter(None, more)))
    python = [sys.executable, "-B", "-W", "error"]
    ended = subprocess.run(
        [*python, str(HERE / "machines.py"), *conditions.split(), "--", *python, *command],
        env=env,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    if ended.returncode == SKIP:
        pytest.skip(f"this machine cannot play that one: {ended.stderr.strip()}")
    return ended
