"""Actors whose workers die: the restart policy decides, and no message is handled twice."""

from __future__ import annotations

import os
import signal

import pytest
from acting import ENVELOPE, count

from pdsandbox import Cause, Quarantined, RestartPolicy, WallClockExceeded, WasmImports, WorkerCrashed

pytestmark = [
    pytest.mark.deaths,
    pytest.mark.parametrize("host_kind", ["supervisor", "module"], indirect=True, scope="session"),
]


@pytest.fixture
def mortal(drive):
    """mortal(**policy): an actor whose worker dies at the message "d"."""

    def make(**policy):
        handled = []

        def die(_level, _message):
            handled.append(it.actor.plugin.starts)
            os.kill(it.actor.plugin.current().pid, signal.SIGKILL)

        restart = RestartPolicy(**{"backoff_s": 0} | policy)
        it = drive(imports=WasmImports(pd_log=die), restart=restart)
        it.taken()
        return it, handled

    return make


def dies(it):
    with pytest.raises(WorkerCrashed) as caught:
        it.actor.on_message(ENVELOPE, b"d")
    assert caught.value.cause is Cause.SIGNAL
    assert set(it.taken()) <= {b"s"}  # the greeting of one that was started for it


def test_the_next_message_finds_a_new_instance_that_was_started(mortal):
    """The one that killed it is not handled again; the new instance greets first, and has forgotten everything."""
    it, handled = mortal()
    it.actor.on_message(ENVELOPE, b"one")
    assert it.taken() == [b"one", count(1)]
    dies(it)
    assert it.actor.on_message(ENVELOPE, b"more") is True
    assert it.taken() == [b"s", b"more", count(1)]
    assert (handled, it.actor.plugin.starts) == ([1], 2)


def test_an_actor_that_keeps_dying_is_quarantined(mortal):
    """Its messages are refused, each with since when, why and until when."""
    it, handled = mortal(restarts=2)
    for _ in range(3):
        dies(it)
    for _ in range(100):
        with pytest.raises(Quarantined) as caught:
            it.actor.on_message(ENVELOPE, b"d")
    assert (caught.value.until - caught.value.since).total_seconds() == pytest.approx(300)
    assert "worker crashed: SIGKILL" in caught.value.message
    assert handled == [1, 2, 3]
    it.actor.plugin.reset()
    assert it.actor.on_message(ENVELOPE, b"fine"[::-1]) is True


def test_open_passes_messages_over(mortal):
    """Also the one at which it died."""
    it, handled = mortal(on_failure="open")
    assert [it.actor.on_message(ENVELOPE, payload) for payload in (b"x", b"d", b"x")] == [True, False, False]
    assert it.taken() == [b"x", count(1)]
    assert handled == [1]


def test_a_deadline_is_a_death(drive, host_factory):
    """By the host's limit."""
    it = drive(on=host_factory(wall_s=1.0, fuel=None))
    it.taken()
    with pytest.raises(WallClockExceeded):
        it.actor.on_message(ENVELOPE, b"l")
    assert it.actor.on_message(ENVELOPE, b"x") is True
    assert it.taken() == [b"s", b"x", count(1)]


def test_stopping_a_dead_actor_calls_nobody(mortal):
    """No instance is started to be told that it stops."""
    it, _ = mortal()
    dies(it)
    it.actor.on_stop(1)
    assert (it.taken(), it.actor.plugin.starts) == ([], 1)
