"""On another processor than x86_64 no filter is offered, and the report says so."""

from __future__ import annotations

import pytest

from pdsandbox.hardening import Layer, State
from pdsandbox.platform import os_
from pdsandbox.protocol.control import Role
from pdsandbox.worker.lockdown import Lockdown


def test_no_filter_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing, by name, in workers and compilers: a table of another machine's numbers is never applied."""
    monkeypatch.setattr(os_, "system", lambda: ("Linux 6.1.0", "aarch64"))
    lockdown = Lockdown(frozenset({Layer.SECCOMP}), {Role.WORKER: None, Role.COMPILER: None})
    for layer in set(Layer) - {Layer.SECCOMP}:
        lockdown.drop(layer, State.OFF, "not asked for")
    lockdown._prepare(lambda _layer: None)  # as `prepare`, but for its fork: this process may have threads
    for role in (Role.WORKER, Role.COMPILER):
        found = lockdown.without(role, Layer.SECCOMP)
        assert found is not None
        assert found[0] is State.MISSING
        assert "aarch64" in found[1]
