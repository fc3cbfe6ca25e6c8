"""`poll_oneoff`: clocks, streams and files, with the real time and with one that the guest's sleeping moves."""

from __future__ import annotations

import os
import threading
import time

import pytest

from pdsandbox import Clock, Dir
from pdsandbox.runtime.wasi import abi

MS = 10**6
S = 10**9


def clock(userdata, ns, *, clock_id=abi.MONOTONIC, flags=0):
    return userdata, abi.EVENT_CLOCK, clock_id, ns, 0, flags


def read(userdata, fd):
    return userdata, abi.EVENT_READ, fd, 0, 0, 0


def write(userdata, fd):
    return userdata, abi.EVENT_WRITE, fd, 0, 0, 0


def poll(probe, *subscriptions):
    """(errno, [(userdata, error, type, bytes, flags), …])"""
    probe.write(0x400, b"".join(abi.subscription.pack(*each) for each in subscriptions))
    code = probe.call("poll_oneoff", 0x400, 0x4000, len(subscriptions), 0x100)
    if code:
        return code, None
    return code, [abi.event.unpack(probe.read(0x4000 + 32 * i, 32)) for i in range(probe.u32())]


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


def test_a_sleep_lasts_as_long_as_it_should(probe):
    """Never shorter; relative and absolute, on both clocks."""
    p = probe()
    for subscription in (
        lambda: clock(7, 5 * MS),
        lambda: clock(7, 5 * MS, clock_id=abi.REALTIME),
        lambda: clock(7, time.time_ns() + 5 * MS, clock_id=abi.REALTIME, flags=abi.ABSTIME),
    ):
        before = time.monotonic_ns()
        assert poll(p, subscription()) == (0, [(7, 0, abi.EVENT_CLOCK, 0, 0)])
        assert time.monotonic_ns() - before >= 4.9 * MS


def test_the_past_is_over_at_once(probe):
    """An absolute time that has gone by."""
    assert poll(probe(), clock(1, 5, flags=abi.ABSTIME))[1] == [(1, 0, 0, 0, 0)]


def test_the_first_of_several_wakes(probe):
    """And only it."""
    p = probe(clock=Clock())
    assert poll(p, clock(1, 2 * S), clock(2, S), clock(3, 3 * S))[1] == [(2, 0, 0, 0, 0)]
    assert poll(p, clock(1, S), clock(2, S))[1] == [(1, 0, 0, 0, 0), (2, 0, 0, 0, 0)]


def test_sleeping_moves_a_clock_of_the_guest_s_own_at_once(probe):
    """A year of sleep takes no time, and is over afterwards."""
    p, year = probe(clock=Clock(start_ns=S)), 365 * 86_400 * S
    assert poll(p, clock(1, year))[0] == 0
    p.call("clock_time_get", abi.REALTIME, 0, 0x100)
    assert p.u64() == year + S
    assert poll(p, clock(1, 2 * year, flags=abi.ABSTIME))[0] == 0
    p.call("clock_time_get", abi.MONOTONIC, 0, 0x100)
    assert p.u64() == 2 * year
    assert poll(p, clock(1, 2**64 - 1))[0] == 0


def test_files_and_bytes_are_always_ready(probe, tmp_path):
    """Also at their end, which the event tells."""
    (tmp_path / "f").write_bytes(b"xy")
    p = probe(dirs=[Dir(tmp_path, "/", "rw")], stdin=b"z")
    fd = p.open("f", rights=abi.rights("fd_read fd_write"))[1]
    ready = [(1, 0, abi.EVENT_READ, 1, 0), (2, 0, abi.EVENT_WRITE, 1, 0)]
    assert poll(p, read(1, fd), write(2, fd))[1] == ready
    assert poll(p, read(1, 0), write(2, 1))[1] == ready
    assert p.fd_read(fd)[1] == b"xy"
    assert poll(p, read(1, fd))[1] == [(1, 0, abi.EVENT_READ, 1, abi.HANGUP)]


def test_what_is_ready_comes_without_the_clock(probe, pipe):
    """A clock that is not due is not told."""
    p = probe(stdin=pipe[0])
    os.write(pipe[1], b"x")
    assert poll(p, clock(1, 3600 * S), read(2, 0))[1] == [(2, 0, abi.EVENT_READ, 1, 0)]
    assert poll(p, clock(1, 3600 * S), write(3, 2))[1] == [(3, 0, abi.EVENT_WRITE, 1, 0)]


def test_nothing_to_read_waits_for_the_clock(probe, pipe):
    """On a pipe that stays empty."""
    p = probe(stdin=pipe[0])
    assert poll(p, read(1, 0), clock(2, 3 * MS))[1] == [(2, 0, 0, 0, 0)]
    p = probe(stdin=pipe[0], clock=Clock())
    assert poll(p, read(1, 0), clock(2, 3600 * S))[1] == [(2, 0, 0, 0, 0)]


@pytest.mark.parametrize("grants", [{}, {"clock": Clock()}])
def test_a_wait_ends_when_something_comes(probe, pipe, grants):
    """Without a clock among them only the world outside wakes the guest, whatever time it believes in."""
    p = probe(stdin=pipe[0], **grants)
    writer = threading.Thread(target=lambda: os.write(pipe[1], b"x"))
    writer.start()
    assert poll(p, read(1, 0))[1] == [(1, 0, abi.EVENT_READ, 1, 0)]
    writer.join()


def test_an_end_counts_as_something(probe):
    """The other side has gone."""
    r, w = os.pipe()
    os.close(w)
    try:
        assert poll(probe(stdin=r), read(1, 0))[1] == [(1, 0, abi.EVENT_READ, 1, 0)]
    finally:
        os.close(r)


@pytest.mark.parametrize(
    ("subscriptions", "code"),
    [
        ([], abi.INVAL),
        ([clock(1, 0, clock_id=2)], abi.INVAL),
        ([clock(1, 0, clock_id=9)], abi.INVAL),
        ([clock(1, 0, flags=2)], abi.INVAL),
        ([(1, 3, 0, 0, 0, 0)], abi.INVAL),
        ([read(1, 99)], abi.BADF),
        ([clock(1, 0), read(1, 99)], abi.BADF),
        ([read(1, 1)], abi.BADF),
        ([write(1, 0)], abi.BADF),
        ([read(1, 3)], abi.BADF),
    ],
)
def test_what_cannot_be_waited_for_is_refused(probe, tmp_path, subscriptions, code):
    """As a whole, as wasmtime does."""
    assert poll(probe(dirs=[Dir(tmp_path, "/")]), *subscriptions) == (code, None)


def test_more_than_can_be_needed_is_refused(probe):
    """4096 pass; one more would only cost memory."""
    p = probe(clock=Clock())
    assert p.call("poll_oneoff", 0x400, 0x400, 4096, 0x100) == 0
    assert p.u32() == 4096
    assert p.call("poll_oneoff", 0x400, 0x400, 4097, 0x100) == abi.NOMEM
