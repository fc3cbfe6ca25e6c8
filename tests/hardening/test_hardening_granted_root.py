"""Workers with directories where the service is root, and what would make a worker of root's too strong is missing."""

from __future__ import annotations

import json
import os

import pytest
from elsewhere import HERE, on_machine

from pdsandbox import Supervisor

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="plays what happens to root")


@pytest.fixture(scope="module")
def complete() -> None:
    """Skips where a layer is missing."""
    with Supervisor(spares=0) as host:
        if not host.hardening_report().complete:
            pytest.skip("this machine lacks a layer")


@needs_root
@pytest.mark.usefixtures("complete")
def test_a_worker_of_roots_without_its_filter() -> None:
    """What the other layers keep from it by themselves; and what only the filter does, so that there is no such worker
    without one."""
    ended = on_machine("root", str(HERE / "unfiltered.py"))
    assert (ended.returncode, ended.stderr) == (0, "")
    found = json.loads(ended.stdout)
    left = {"a file in the directory", "limits of the parent", "a socket that only root may connect to"}
    assert found.pop("user") == "0"
    assert {name for name, outcome in found.items() if outcome == "ok"} == left
    assert {outcome for name, outcome in found.items() if name not in left} == {"EACCES", "EPERM"}


_GRANT = """
import sys, tempfile
from pdsandbox import Dir, Supervisor, Wasi, WasmError
with tempfile.TemporaryDirectory() as top, Supervisor(spares=0) as host:
    module = host.compile("(module)")
    host.instantiate(module).close()
    try:
        host.instantiate(module, wasi=Wasi(dirs=(Dir(top, "/d"),))).close()
    except WasmError as exc:
        sys.exit(f"{exc.cause.name}: {exc.message}")
"""


@needs_root
@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        ("no-setuid", ""),
        ("no-setuid no-landlock", "HOST: a worker could not be locked down: [Errno 1] it would be root"),
        ("no-setuid no-seccomp", "HOST: a worker could not be locked down: [Errno 1] it would be root"),
    ],
)
def test_where_root_cannot_change_users(conditions: str, said: str) -> None:
    """Its workers stay root: one with directories runs under Landlock and the filter, and not at all without."""
    ended = on_machine(conditions, "-c", _GRANT)
    assert ended.stderr.startswith(said)
    assert bool(ended.stderr) == bool(said) == bool(ended.returncode)
