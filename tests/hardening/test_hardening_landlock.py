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
