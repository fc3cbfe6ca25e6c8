"""Two ends joined by bytes: whole conversations, and the ways in which a peer may break one."""

from __future__ import annotations

import random

import pytest
import wire_samples as samples
from wire_end import SUPERVISOR, WORKER, End

from pdsandbox.protocol import messages as m
from pdsandbox.protocol.codec import ProtocolError
from pdsandbox.protocol.frames import HEADER_BYTES
from pdsandbox.protocol.orders import TABLE, State

SLOT = samples.SLOT
ROW_ERROR = m.Error(m.Failure.TRAP, fuel=3, trap_code=10, frames=samples.TRAPPED.frames)

LOADING = (
    m.Ready(),
    samples.LOAD,
    m.HostCall(7, SLOT * 3, b"from a start function"),
    m.MemRead(64, 8, 8),
    m.MemData(b"8 bytes."),
    m.HostReturn(b""),
    m.Loaded(1234),
)
WORKING = (
    *LOADING,
    m.Resolve(samples.ADD, "é\0".encode()),
    m.Call(0, m.SPIN, 10**9, 5 * 10**6, SLOT * 2),
    m.Result(2, SLOT),
    m.Resolve(samples.ADD, b"another"),
    m.CallMany(1, m.CONTINUED, 10**9, 0, rows=1, width=2, slots=SLOT * 2),
    m.Results(4, done=1, width=2, failed=False, slots=SLOT * 2),
    m.Call(0, 0, 10**9, 5 * 10**6, SLOT * 2),
    m.HostCall(0, SLOT, b"to", b"body"),
    m.MemWrite(0, 4, b"data"),
    m.MemDone(),
    m.MemRead(2**64 - 1, 1, 1),
    m.Error(m.Failure.MEMORY),
    m.HostFail(),
    m.Error(m.Failure.REMOTE, fuel=7),
    m.CallMany(0, 0, 10**9, 0, rows=2, width=2, slots=SLOT * 4),
    m.HostCall(0, b""),
    m.HostReturn(SLOT),
    m.Results(40, done=2, width=2, failed=False, slots=SLOT * 4),
    m.CallMany(0, 0, 10**9, 0, rows=3, width=1, slots=SLOT * 3),
    m.Results(41, done=1, width=1, failed=True, slots=SLOT),
    ROW_ERROR,
    m.MemWrite(0, 2, b"ab"),
    m.MemDone(),
    m.MemRead(0, 3, 1 << 21),
    m.MemData(b"abc"),
    m.MemGrow(2),
    m.MemGrown(1, 1 << 40, 3 << 16),
    m.MemGrow(1, 7),
    m.Error(m.Failure.MEMORY),
    m.Call(0, 0, 1, 0, b""),
    samples.TRAPPED,
    m.Call(0, m.SPIN, 10, 0, b""),
    m.HostLog(7, SLOT * 3, b"one"),
    m.HostCall(0, SLOT),
    m.HostReturn(SLOT),
    m.HostLog(7, SLOT * 3, b"two", base=1 << 40, size=1 << 16),
    m.Result(5, SLOT, 1 << 40, 1 << 16),
    m.Call(0, m.SPIN, 10, 0, b""),
    m.HostLog(7, SLOT * 3, b"this one fails"),
    m.HostFail(),
    m.HostLog(7, SLOT * 3, b"sent meanwhile"),
    m.HostCall(0, SLOT),
    m.Error(m.Failure.REMOTE, fuel=7),
    m.Call(0, m.SPIN, 10, 0, b""),
    m.HostLog(7, SLOT * 3, b"the last that it did"),
    m.HostFail(),
    m.Result(5, SLOT),
    m.Load(10**9, 0, instance=1, first=8),
    m.HostCall(7, SLOT * 3, b"from another's start function"),
    m.HostReturn(b""),
    m.Loaded(1234),
    m.Resolve(samples.ADD, b"add", 8, 1),
    m.Call(8, 0, 10, 0, b""),
    m.Result(5, SLOT),
    m.Load(10**9, 0, instance=2, first=9),
    m.Error(m.Failure.START_TRAP, trap_code=10),
    m.Drop(2),
    m.MemRead(0, 3, 3, 1),
    m.MemData(b"abc"),
    m.Drop(0),
    m.Call(8, 0, 10, 0, b""),
    m.Result(5, SLOT),
)
COMPILING = (m.Ready(), m.Compile(False, b"\0asm\1\0\0\0"), samples.COMPILED, m.Artifact(b"a" * 100), m.Artifact(b"b"))
SCRIPTS = {
    "working": (WORKING, State.IDLE),
    "compiling": (COMPILING, State.COMPILED),
    "refused to load": ((*LOADING[:2], m.Error(m.Failure.LINK, text="unknown import")), State.GONE),
    "refused to compile": ((*COMPILING[:2], m.Error(m.Failure.COMPILE, text="no")), State.GONE),
}


# Where a conversation may end, so that the random ones come to every state.
RESTS = {State.FRESH, State.IDLE, State.COMPILED}


def ends() -> tuple[End, End]:
    """The supervisor's end and its peer's."""
    return End(SUPERVISOR), End(WORKER)


def deliver(message: m.Message, supervisor: End, worker: End, piece: int) -> list[m.Message]:
    """Send `message` from the end whose kind it is; the other reads `piece` bytes at a time."""
    sender, other = (supervisor, worker) if message.KIND in SUPERVISOR else (worker, supervisor)
    stream = sender.send(message)
    return [got for at in range(0, len(stream), piece) for got in other.receive(stream[at : at + piece])]


@pytest.mark.parametrize("piece", [1, 3, HEADER_BYTES, 1 << 20])
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_scripted_conversation(script: str, piece: int) -> None:
    """Each message arrives equal at the other end, whatever the reads are, and both ends are in the same state."""
    supervisor, worker = ends()
    said, last = SCRIPTS[script]
    for message in said:
        assert deliver(message, supervisor, worker, piece) == [message]
        assert supervisor.state is worker.state
    assert supervisor.state is last
    assert supervisor.reader.buffered == worker.reader.buffered == 0


def test_random_conversations() -> None:
    """Random legal conversations of 5,000 messages in all arrive complete, in random pieces, and stay in step."""
    rng = random.Random(5)
    of_kind: dict[int, list[m.Message]] = {}
    for message in samples.MESSAGES:
        of_kind.setdefault(message.KIND, []).append(message)
    supervisor, worker = ends()
    for _ in range(5_000):
        legal = sorted(kind for state, kind in TABLE if state is supervisor.state)
        if not legal or (supervisor.state in RESTS and rng.random() < 0.2):
            supervisor, worker = ends()
            continue
        message = rng.choice(of_kind[rng.choice(legal)])
        assert deliver(message, supervisor, worker, rng.randint(1, 64)) == [message]
        assert supervisor.state is worker.state


@pytest.mark.parametrize("at", range(len(WORKING)))
def test_a_message_out_of_turn_ends_it(at: int) -> None:
    """At each point of a conversation, every message that is not legal there is refused by either end."""
    for wrong in samples.MESSAGES:
        supervisor, worker = ends()
        for message in WORKING[:at]:
            deliver(message, supervisor, worker, 1 << 20)
        state = supervisor.state
        if (state, wrong.KIND) in TABLE:
            continue
        receiver = worker if wrong.KIND in SUPERVISOR else supervisor
        with pytest.raises(ProtocolError):
            list(receiver.receive(wrong.frame()))
        assert receiver.state is state


@pytest.mark.parametrize("opening", [LOADING, COMPILING], ids=["load", "compile"])
def test_the_first_request_may_cross_ready(opening: tuple[m.Message, ...]) -> None:
    """A request that was sent before READY arrived, and crosses it, leaves both ends in the same state."""
    ready, request, *_ = opening
    supervisor, worker = ends()
    to_worker, to_supervisor = supervisor.send(request), worker.send(ready)
    assert list(supervisor.receive(to_supervisor)) == [ready]
    assert list(worker.receive(to_worker)) == [request]
    assert supervisor.state is worker.state is TABLE[State.FRESH, request.KIND]


def test_an_answer_given_twice_is_seen() -> None:
    """A second RESULT in the same read is refused, and the first one was whole."""
    supervisor, worker = ends()
    for message in (*LOADING, m.Call(0, 0, 1, 1, b"")):
        deliver(message, supervisor, worker, 1 << 20)
    arriving = supervisor.receive(m.Result(1, SLOT).frame() + m.Result(1, b"").frame())
    assert next(arriving) == m.Result(1, SLOT)
    with pytest.raises(ProtocolError, match="IDLE"):
        next(arriving)


def test_half_a_message_is_none() -> None:
    """A frame without its last byte is no message: the receiver waits for it in the state it was in."""
    supervisor, worker = ends()
    deliver(m.Ready(), supervisor, worker, 1)
    stream = supervisor.send(samples.LOAD)
    assert list(worker.receive(stream[:-1])) == []
    assert worker.state is State.FRESH
    assert list(worker.receive(stream[-1:])) == [samples.LOAD]
    assert worker.state is State.LOADING
