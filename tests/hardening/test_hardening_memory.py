"""Who may copy a worker's memory: its own user while it is dumpable, and whoever may trace everybody."""

from __future__ import annotations

import json

import pytest
from elsewhere import HERE, on_machine


@pytest.mark.parametrize(
    ("conditions", "hardening", "seen"),
    [
        ("root", "Hardening()", "copied"),
        ("ordinary", "Hardening()", "copied"),
        ("ordinary", "Hardening(undumpable=True)", "EPERM"),
        ("no-sys-ptrace", "Hardening()", "EPERM"),  # root, whose workers are another user's: as in many containers
    ],
)
def test_who_may_copy(conditions: str, hardening: str, seen: str) -> None:
    """Where the kernel refuses, the bytes arrive all the same."""
    ended = on_machine(conditions, str(HERE / "copies.py"), hardening)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == {"seen": [seen], "right": True}
