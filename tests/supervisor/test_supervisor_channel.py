"""What a process says before it ends counts, in whatever order the kernel tells of the two; not what comes too late."""

from __future__ import annotations

import os
import select
import time
import types

import pytest
from supervising import PATIENCE_S, eventually, expect, gone

from pdsandbox import Cause, CompileError, InstantiationError, WallClockExceeded
from pdsandbox.protocol.orders import State
from pdsandbox.supervisor import channel

WALL_S = 1.0
MANY = '(module (func (export "one") (result i32) (i32.const 1)))'


class TellsOfTheEndFirst:
    """A poll object that, once armed, tells of the process's end before it tells of the reply that came before it.

    poll(2) looks at one descriptor after the other: what is written between two looks, it does not report.
    """

    armed = False
    lied = 0

    def __init__(self):
        self._poll = select.poll()
        self._fds = []

    def register(self, fd, events):
        self._fds.append(fd)
        self._poll.register(fd, events)

    def poll(self, timeout=None):
        found = self._poll.poll(timeout)
        cls = type(self)
        if cls.armed and len(self._fds) == 2 and self._fds[0] in [fd for fd, _ in found]:
            pidfd = self._fds[1]
            assert select.select([pidfd], [], [], PATIENCE_S)[0], "the process was to end after its reply"
            cls.armed = False
            cls.lied += 1
            return [(pidfd, select.POLLIN)]
        return found


@pytest.fixture
def tells_of_the_end_first(monkeypatch):
    """Armed for what comes after READY."""
    TellsOfTheEndFirst.armed, TellsOfTheEndFirst.lied = False, 0
    fake = types.SimpleNamespace(poll=TellsOfTheEndFirst, POLLIN=select.POLLIN, POLLOUT=select.POLLOUT)
    monkeypatch.setattr(channel, "select", fake)
    receive = channel.Channel.receive

    def arming(self, watch, **options):
        TellsOfTheEndFirst.armed = self.orders.state in (State.COMPILING, State.LOADING)
        return receive(self, watch, **options)

    monkeypatch.setattr(channel.Channel, "receive", arming)
    return TellsOfTheEndFirst


def until_it_lied(poll, action):
    """Repeat until a reply had to be waited for: one that is there at the first look is no test."""
    for number in range(50):
        action(number)
        if poll.lied:
            return
    raise AssertionError("every reply was there at once")


def test_a_compilers_last_words(make_supervisor, tells_of_the_end_first):
    """Its artifact is taken; not "crashed: exit code 0"."""
    host = make_supervisor()

    def compiles(number):
        source = f'(module (func (export "n") (result i32) (i32.const {number})))'
        assert host.compile(source).exports() == ["n"]

    until_it_lied(tells_of_the_end_first, compiles)


def test_a_compilers_last_error(make_supervisor, tells_of_the_end_first):
    """So is its error."""
    host = make_supervisor()
    until_it_lied(
        tells_of_the_end_first,
        lambda _number: expect(CompileError, Cause.COMPILE, lambda: host.compile("(module (func (result i32)))")),
    )


def test_a_workers_last_words(host, tells_of_the_end_first, monkeypatch):
    """A worker that could not instantiate says why, and ends; that is what is raised."""
    with monkeypatch.context() as real:
        real.setattr(channel, "select", select)
        trapping = host.compile("(module (func $s (unreachable)) (start $s))")
    until_it_lied(
        tells_of_the_end_first,
        lambda _number: expect(InstantiationError, Cause.GUEST_TRAP, lambda: host.instantiate(trapping)),
    )


def test_a_reply_piece_by_piece_has_the_deadline_too(make_supervisor, monkeypatch):
    """A worker that always has one more byte of its reply is never waited for; it is ended all the same."""
    host = make_supervisor(wall_s=WALL_S)
    instance = host.instantiate(host.compile(MANY))
    rows = 2000
    assert len(instance.call_many("one", [()] * rows)) == rows
    pieces = []

    def late(fd, buffers):
        if not pieces:
            eventually(lambda: time.monotonic() > deadline)
        pieces.append(fd)
        return os.readv(fd, [buffers[0][:1]])

    fake = types.SimpleNamespace(**{**vars(os), "readv": late})
    monkeypatch.setattr(channel, "os", fake)
    deadline = time.monotonic() + WALL_S + channel.LATE_S
    error = expect(WallClockExceeded, Cause.WALL, lambda: instance.call_many("one", [()] * rows))
    assert error.limit == WALL_S
    assert len(pieces) < 100
    gone(instance, WallClockExceeded, Cause.WALL)
