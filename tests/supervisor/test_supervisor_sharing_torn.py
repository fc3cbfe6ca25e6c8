"""A worker whose first instance is torn away, and what those who wait for their turn in it have of that."""

from __future__ import annotations

import threading

import pytest
from interrupts import Interrupt
from supervising import PATIENCE_S, Thread, eventually

from pdsandbox import I32
from pdsandbox.supervisor import linking


@pytest.fixture
def host(make_supervisor):
    return make_supervisor(isolation="module")


def test_a_worker_whose_first_instance_was_torn_away_is_not_used(host, monkeypatch):
    """Another thread waited for its turn meanwhile. The descriptors of that worker are closed, and their numbers may
    be others' by now: nothing may be said there any more."""
    waiting, plan = threading.Event(), linking.plan
    module = host.compile('(module (func (export "f") (result i32) (i32.const 1)))')

    def torn(*args):
        monkeypatch.setattr(linking, "plan", plan)
        waiting.set()
        eventually(lambda: len(places()) == 2)
        raise Interrupt

    def places():
        return host._loader._sharing._current[module.sha256]._places

    monkeypatch.setattr(linking, "plan", torn)
    first = Thread(lambda: host.instantiate(module))
    assert waiting.wait(PATIENCE_S)
    second = Thread(lambda: host.instantiate(module))
    with pytest.raises(Interrupt):
        first.result()
    assert second.result().call("f") == [I32(1)]
