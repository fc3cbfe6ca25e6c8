"""Old kernels' Landlock: what its version cannot do is missing, with the Linux that can."""

from __future__ import annotations

import json
from typing import Any

import pytest
from elsewhere import HERE, on_machine


@pytest.fixture(scope="module")
def by_abi() -> Any:
    ended = on_machine("as-it-is", str(HERE / "abis.py"))
    assert (ended.returncode, ended.stderr) == (0, "")
    return json.loads(ended.stdout)


@pytest.mark.parametrize("abi", range(1, 9))
def test_an_older_landlock(by_abi: Any, abi: int) -> None:
    """Files need ABI 1, TCP 4, scopes 6; a newer one has all; each lack names the Linux that is needed."""
    expected = {}
    if abi < 4:
        expected["LANDLOCK_TCP"] = f"MISSING this kernel's Landlock has ABI {abi}: needs Linux 6.7"
    if abi < 6:
        expected["LANDLOCK_SCOPE"] = f"MISSING this kernel's Landlock has ABI {abi}: needs Linux 6.12"
    assert by_abi[str(abi)] == expected


#: What a worker with directories gets where Landlock does not know of truncation: files are opened by openat(2), whose
#: flags the filter sees, and there is no openat2(2).
BEFORE_TRUNCATION = {
    "opener": "WalkingOpener",
    "openat2": "ENOSYS",
    "read": "ok",
    "guest's read": "ok",
    "write, ro": "EACCES",
    "truncate while reading, ro": "EPERM",
    "truncate while reading, rw": "EPERM",
    "truncate, ro": "EACCES",
    "truncate, rw": "ok",
    "access mode 3, ro": "EPERM",
    "create, ro": "EACCES",
    "create, rw": "ok",
    "create set-user-id, rw": "EPERM",
    "create without a name, rw": "EPERM",
    "guest's create": "ok",
    "rename": "ok",
    "outside": "EACCES",
    "outside by a path": "EACCES",
    "ro, then": "text",
}


@pytest.mark.parametrize(("abi", "moved"), [(1, "EXDEV"), (2, "ok")])
def test_directories_under_an_older_landlock(abi: int, moved: str) -> None:
    """A directory to read cannot be written, truncation included; before ABI 2 no file moves to another directory."""
    ended = on_machine("as-it-is", str(HERE / "old_landlock.py"), str(abi))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout) == BEFORE_TRUNCATION | {"rename to another directory": moved}


def test_directories_under_a_landlock_that_sees_truncation() -> None:
    """From ABI 3 on the kernel resolves a guest's paths, and there is no openat(2)."""
    ended = on_machine("as-it-is", str(HERE / "old_landlock.py"), "3")
    assert (ended.returncode, ended.stderr) == (0, "")
    found = json.loads(ended.stdout)
    expected = {
        "opener": "KernelOpener",
        "openat2": "ok",
        "guest's read": "ok",
        "guest's create": "ok",
        "read": "EPERM",
    }
    assert {name: found[name] for name in expected} == expected
    assert found["ro, then"] == "text"
