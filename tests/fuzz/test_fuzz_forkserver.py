"""A fork server that sends anything: whoever waits for a child is told, and no descriptor stays."""

from __future__ import annotations

import collections
import os
import socket
import subprocess
import time
import types
from collections.abc import Iterator
from typing import Any

import pytest
from fuzz_effort import TIMES, Growth, naming, seeds
from fuzz_mutations import BAD_U32, BAD_U64, Dice
from fuzz_stage import check_error
from leaks import fds

from pdsandbox import Supervisor
from pdsandbox.platform import os_
from pdsandbox.protocol import control as c
from pdsandbox.supervisor import forkclient
from pdsandbox.supervisor.forkclient import ForkServer
from pdsandbox.supervisor.journal import Journal

PARTS = TIMES
ROUNDS = 1000
MIB = 1 << 20


class FakeProcess:
    """In place of the fork server's process: keeps its end of the control socket, and has ended if asked."""

    last: FakeProcess

    def __init__(self, *_args: Any, pass_fds: tuple[int, ...], **_options: Any) -> None:
        self.control = socket.socket(fileno=os.dup(pass_fds[0]))
        self.control.setblocking(False)
        self.pid = os.getpid()
        self.returncode: int | None = None
        FakeProcess.last = self

    def kill(self) -> None:
        self.returncode = -9

    def wait(self, _timeout: float) -> int:
        return -9


@pytest.fixture
def dead(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A pidfd of a process that has ended; and no process is started from here on."""
    process = subprocess.Popen(["true"])
    pidfd = os_.pidfd_open(process.pid)
    process.wait()
    fake = types.SimpleNamespace(
        Popen=FakeProcess, DEVNULL=subprocess.DEVNULL, TimeoutExpired=subprocess.TimeoutExpired
    )
    monkeypatch.setattr(forkclient, "subprocess", fake)
    yield pidfd
    os.close(pidfd)


CONFIG = Supervisor()._processes._make_config()


def packet(dice: Dice, tickets: list[int]) -> tuple[bytes, int]:
    """(a packet, how many descriptors go with it): valid, odd or damaged."""
    ticket = dice.choice(tickets) if not dice.one_in(5) else dice.choice(BAD_U64)
    pid = os.getpid() if not dice.one_in(4) else dice.choice(BAD_U32)
    made, count = dice.choice(
        (
            (c.Hello(pid), 1),
            (c.Spawned(ticket, pid), 1),
            (c.Spawned(ticket, pid), 1),
            (c.Refused(ticket, dice.choice((11, 12, 24, 0, *BAD_U32))), 0),
            (c.Exited(ticket, dice.choice((1, 9, 11, 64, 65, 2**62)), None), 0),
            (c.Exited(ticket, None, dice.choice((0, 1, 255, 2**62))), 0),
            (c.Spawn(ticket, 0), 0),
            (c.Kill(ticket), 0),
        )
    )
    data = c.encode(made)
    if dice.one_in(4):
        count = dice.below(5)
    match dice.below(10):
        case 0:
            data = dice.data(1 + dice.below(40))
        case 1:
            data = data[: 1 + dice.below(len(data))]
        case 2:
            data += dice.data(1 + dice.below(9))
        case 3:
            at = dice.below(len(data))
            data = data[:at] + bytes([data[at] ^ 1 << dice.below(8)]) + data[at + 1 :]
    return data, count


def run(seed: int, dead: int) -> str:
    """A fork server, two children asked for, up to ten packets; what it came to."""
    dice = Dice(seed)
    server = ForkServer("python", CONFIG, set(), Journal())
    process = FakeProcess.last
    handles = [server.spawn(c.Role.WORKER, server) for _ in range(2)]
    tickets = [handle.ticket for handle in handles]
    try:
        for _ in range(1 + dice.below(10)):
            data, count = packet(dice, tickets)
            os_.send_fds(process.control, data, [dead] * count)
            if dice.one_in(2):
                server.receive()
        if dice.one_in(4):
            process.control.close()
        server.receive()
        gone = server.gone
        if gone:
            assert server.handles() == []
        for handle in handles:
            if handle.ended:
                assert handle.wait_settled(0)
                check_error(handle.post_mortem(time.monotonic(), 0))
            else:
                assert not gone, "nobody told who waits for this child"
        return "lost" if gone else "in order"
    finally:
        process.control.close()
        server.leave()
        for handle in handles:
            assert handle.ended
            handle.release()


@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_a_fork_server_sends(dead: int, part: int) -> None:
    """Nothing is raised; a child is told of or lost; descriptors that came along are closed."""
    outcomes: collections.Counter[str] = collections.Counter()
    before = None
    for count, seed in enumerate(seeds(part, PARTS, ROUNDS)):
        had = len(fds())
        with naming(seed, lambda: "packets of a fork server"):
            outcomes[run(seed, dead)] += 1
            assert len(fds()) == had, "a descriptor was left"
        if count == ROUNDS // 10:
            before = Growth()
    if before is not None:
        before.check(8 * MIB)
        assert min(outcomes["lost"], outcomes["in order"]) > ROUNDS // 20
