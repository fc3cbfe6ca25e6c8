"""`service`: one with secrets, run by whoever runs the tests and, where that is root, by an ordinary user as well."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

if sys.platform == "linux":
    from running import Service
else:
    collect_ignore_glob = ["test_*.py"]  # worker processes need Linux


@pytest.fixture(params=[False, True], ids=["this user", "an ordinary user"])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    """Running, and gone after the test."""
    with Service(ordinary=request.param) as running:
        yield running
