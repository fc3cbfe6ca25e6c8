"""Fixtures for the tests of guest memory."""

from __future__ import annotations

import pytest
from copying import refuse_copies
from reaching import ONE_PAGE


@pytest.fixture
def _refused(refusal, monkeypatch):
    """What the kernel says to a copy between processes; None: what it says here."""
    if refusal is not None:
        refuse_copies(monkeypatch, refusal)


@pytest.fixture
def instance(instantiate):
    return instantiate(ONE_PAGE)
