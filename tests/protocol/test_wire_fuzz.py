"""Whatever bytes a hostile peer sends: a message or a ProtocolError, never anything else, never a hang."""

from __future__ import annotations

import collections
import random

import pytest
import wire_samples
from wire_end import advance
from wire_fuzz import FIRST_SEED, KINDS, TIMES, hostile, hostile_packet

from pdsandbox.protocol import control
from pdsandbox.protocol import messages as m
from pdsandbox.protocol.codec import ProtocolError
from pdsandbox.protocol.frames import HEADER_BYTES, FrameReader, frame
from pdsandbox.protocol.orders import Orders, State

# 100,000 is what the project promises of CI; in parts, so that each stays far below the time-out of a test.
PARTS = 20 * TIMES
INPUTS_A_PART = 5_000
CAP = 4096
STATES = list(State)
BEGINS = {kind: [state for state in State if Orders(state).legal(kind)] for kind in KINDS}
#: Every payload is one: the rest of it is data.
OPEN = {m.ARTIFACT, m.MEM_DATA}


class Seen:
    """How often what happened, to know that the inputs reach everything."""

    def __init__(self) -> None:
        self.decoded: collections.Counter[int] = collections.Counter()
        self.refused: collections.Counter[int] = collections.Counter()
        self.legal = self.illegal = self.bad_frames = 0


def feed(data: bytes, rng: random.Random, seen: Seen) -> None:
    """Read `data` as a supervisor or worker does, in pieces, until it breaks the protocol."""
    # In half of the cases a state in which what comes first is legal, if it is anywhere.
    fitting = BEGINS.get(data[4]) if len(data) > 4 and rng.random() < 0.5 else None
    reader, orders = FrameReader(CAP), Orders(rng.choice(fitting or STATES))
    piece = rng.choice((1, 3, 8, 64, CAP)) if len(data) < 100 else rng.choice((16, 64, CAP))
    frames = 0
    for at in range(0, len(data), piece):
        reader.feed(data[at : at + piece])
        while True:
            try:
                got = reader.next()
            except ProtocolError:
                seen.bad_frames += 1
                with pytest.raises(ProtocolError):
                    reader.wanted()
                return
            if got is None:
                assert 0 < reader.wanted() <= HEADER_BYTES + CAP
                break
            frames += 1
            assert frames * HEADER_BYTES <= len(data), "more frames than the bytes can hold"
            if not handle(*got, orders, seen):
                return


def handle(kind: int, payload: bytes, orders: Orders, seen: Seen) -> bool:
    """Decode one payload and move by it; whether the conversation goes on."""
    state = orders.state
    try:
        message = m.decode(kind, payload)
    except ProtocolError:
        seen.refused[kind] += 1
        return False
    seen.decoded[kind] += 1
    assert type(message) is m.MESSAGES[kind]
    assert m.decode(kind, message.payload()) == message, "what was accepted says something else when sent on"
    try:
        advance(orders, message)
    except ProtocolError:
        seen.illegal += 1
        assert orders.state is state
        return False
    seen.legal += 1
    return True


@pytest.mark.parametrize("part", range(PARTS))
def test_only_protocol_errors(part: int) -> None:
    """Arbitrary and damaged streams give messages or ProtocolError; each kind is both accepted and refused."""
    seen = Seen()
    for number in range(INPUTS_A_PART):
        seed = FIRST_SEED + part * INPUTS_A_PART + number
        rng = random.Random(seed)
        data = hostile(rng)
        try:
            feed(data, rng, seen)
        except BaseException as exc:
            exc.add_note(f"seed {seed}, input {data.hex()}")
            raise
    assert set(seen.decoded) == set(KINDS)
    assert set(seen.refused) >= set(KINDS) - OPEN
    assert min(seen.legal, seen.illegal, seen.bad_frames) > INPUTS_A_PART // 50


def test_every_byte_of_every_message_damaged() -> None:
    """Each byte of each sample set to each of eight values gives a message or ProtocolError."""
    seen = Seen()
    for sample in wire_samples.MESSAGES:
        payload = sample.payload()
        for at in range(len(payload)):
            for value in {0, 1, 2, 0x7F, 0x80, 0xC0, 0xFF, payload[at] ^ 0x20}:
                damaged = payload[:at] + bytes([value]) + payload[at + 1 :]
                handle(sample.KIND, damaged, Orders(), seen)
    assert set(seen.decoded) >= {sample.KIND for sample in wire_samples.MESSAGES if sample.payload()}


def test_every_truncation_of_every_stream() -> None:
    """A stream cut anywhere gives the frames before the cut, and waits for the rest of the one that was cut."""
    for sample in wire_samples.MESSAGES:
        whole = frame(200, b"before") + sample.frame()
        for end in range(14, len(whole)):
            reader = FrameReader(CAP)
            reader.feed(whole[:end])
            assert reader.next() == (200, b"before")
            assert reader.next() is None
            assert reader.wanted() == min(len(whole) - end, max(22 - end, 0) or len(whole))


def test_packets_give_only_protocol_errors() -> None:
    """Damaged packets of the fork server's socket are decoded or give ProtocolError."""
    kinds: collections.Counter[type] = collections.Counter()
    for number in range(20_000 * TIMES):
        seed = FIRST_SEED + number
        data = hostile_packet(random.Random(seed))
        try:
            packet = control.decode(data)
            assert control.encode(packet) == data
            kinds[type(packet)] += 1
        except ProtocolError:
            kinds[ProtocolError] += 1
        except BaseException as exc:
            exc.add_note(f"seed {seed}, input {data.hex()}")
            raise
    assert set(kinds) == {ProtocolError, *map(type, wire_samples.PACKETS)}
