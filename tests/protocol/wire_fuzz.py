"""Deterministic hostile input: arbitrary bytes, and valid frames that were damaged. One seed, one input.

`PDSANDBOX_FUZZ_TIMES=50` makes 50 times as many, `PDSANDBOX_FUZZ_SEED=7` others than CI has. An input that
broke something is made again by `hostile(random.Random(seed))`, with the seed that the failure names.
"""

from __future__ import annotations

import os
import random
import struct

import wire_samples as samples

from pdsandbox.protocol import control
from pdsandbox.protocol.frames import HEADER_BYTES, frame
from pdsandbox.protocol.orders import TABLE, State

TIMES = int(os.environ.get("PDSANDBOX_FUZZ_TIMES", "1"))
FIRST_SEED = int(os.environ.get("PDSANDBOX_FUZZ_SEED", "0")) << 40

FRAMES = [message.frame() for message in samples.MESSAGES]
PACKETS = [control.encode(packet) for packet in samples.PACKETS]
OF_KIND = {kind: [f for f in FRAMES if f[4] == kind] for kind in {f[4] for f in FRAMES}}
LEGAL = {state: sorted(kind for at, kind in TABLE if at is state) for state in State}
KINDS = sorted({message.KIND for message in samples.MESSAGES})
#: Lengths and counts that mean trouble: off by one, sign bits, the top, and more than any input holds.
BAD_U32 = (0, 1, 2, 15, 16, 17, 64, 65, 255, 256, 1000, 1001, 100_000, 100_001, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
BAD_U64 = (0, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1)
_u32 = struct.Struct("<I")
_u64 = struct.Struct("<Q")


def mutate(rng: random.Random, valid: bytes, pool: list[bytes]) -> bytes:
    """`valid` with one to four damages, some of them grafts from `pool`."""
    data = bytearray(valid)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        size = len(data)
        at = rng.randrange(size + 1)
        match rng.randrange(9):
            case 0 if at < size:
                data[at] ^= 1 << rng.randrange(8)
            case 1 if at < size:
                data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF))
            case 2:
                del data[at:]
            case 3:
                del data[at : at + rng.randint(1, 8)]
            case 4:
                data[at:at] = rng.randbytes(rng.randint(1, 8))
            case 5 if size >= 4:
                _u32.pack_into(data, rng.randrange(size - 3), rng.choice(BAD_U32))
            case 6 if size >= 8:
                _u64.pack_into(data, rng.randrange(size - 7), rng.choice(BAD_U64))
            case 7:
                end = rng.randrange(at, size + 1)
                data[at:at] = data[at:end]
            case _:
                graft = rng.choice(pool)
                data[at:] = graft[rng.randrange(len(graft)) :]
    return bytes(data)


def with_true_length(data: bytes) -> bytes:
    """The same frame with the length that it has, so that the damage reaches the decoder."""
    if len(data) < HEADER_BYTES:
        return data
    return _u32.pack(len(data) - HEADER_BYTES) + data[4:]


def conversation(rng: random.Random) -> list[bytes]:
    """Up to five frames that are legal one after the other, from some state on."""
    state, frames = rng.choice([state for state in State if LEGAL[state]]), []
    while len(frames) < 5 and LEGAL[state]:
        kind = rng.choice(LEGAL[state])
        frames.append(rng.choice(OF_KIND[kind]))
        state = TABLE[state, kind]
    return frames


def hostile(rng: random.Random) -> bytes:
    """One input for a reader of frames."""
    match rng.randrange(16):
        case 0:
            return rng.randbytes(rng.randrange(80))
        case 1:
            return frame(rng.randrange(256), rng.randbytes(rng.randrange(80)))
        case 2 | 3:
            return frame(rng.choice(KINDS), rng.randbytes(rng.choice((0, 8, 16, 24, rng.randrange(200)))))
        case 4:  # one kind's payload under another kind
            return frame(rng.choice(KINDS), rng.choice(FRAMES)[HEADER_BYTES:])
        case 5:  # a header that lies about its length
            valid = rng.choice(FRAMES)
            return _u32.pack(rng.choice(BAD_U32)) + valid[4:]
        case 6:  # a conversation with one frame damaged
            several = conversation(rng)
            at = rng.randrange(len(several))
            several[at] = mutate(rng, several[at], FRAMES)
            return b"".join(several)
        case 7:  # whole frames, legal or not
            return b"".join(conversation(rng) + rng.choices(FRAMES, k=rng.randrange(2)))
        case 8 | 9 | 10:
            return mutate(rng, rng.choice(FRAMES), FRAMES)
        case _:
            return with_true_length(mutate(rng, rng.choice(FRAMES), FRAMES))


def hostile_packet(rng: random.Random) -> bytes:
    """One packet for a fork server or its supervisor."""
    if rng.randrange(8) == 0:
        return rng.randbytes(rng.randrange(40))
    return mutate(rng, rng.choice(PACKETS), PACKETS)
