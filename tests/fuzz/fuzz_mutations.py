"""What a hostile worker or compiler does in place of sending one honest frame, by name. Pure, and the same everywhere.

A mutation takes dice and the honest frame and gives acts, done in order: ("write", bytes), ("close",), ("die", signal
or None, exit code or None), ("deaf",): reads no more, ("mute",): writes no more. The module travels into workers by
value; it uses nothing that is not loaded there.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

from pdsandbox.errors import Frame
from pdsandbox.externs import ExportType, FuncType, ImportType, MemoryType
from pdsandbox.protocol import messages as m

Act = tuple[Any, ...]
Acts = list[Act]

HEAD = 8
#: Where the peer has its guest's memory, and how much of it.
MEMORY_AT = 0x7F00_0000_0000
MEMORY_BYTES = 3 << 20
BAD_U32 = (0, 1, 2, 7, 8, 9, 15, 16, 17, 255, 256, 1000, 65535, 65536, 2**20, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
BAD_U64 = (0, 1, 9_999, 10_001, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
TEXTS = (
    "",
    "plain",
    "\x00\x07\x1b[2J\x1b]0;title\x07\r\n\x7f\x85\x9b",
    "\u202eright to left\u2028\u2029\ufeff\ud7ff\ufffd",
    "  blank \t\v\f first\nTraceback:\n  second\r\nthird\x1b[31m",
    "%s %n {0} {} \\ ' \"",
    "active segment: no, it is not",
    "é𝄞" * 300,
    "a\n" * 300_000,
    "x" * (1 << 20),
)


class Dice:
    """A random generator (splitmix64) that gives the same in every version of Python, and imports nothing."""

    def __init__(self, seed: int) -> None:
        self._state = seed & (2**64 - 1)

    def _next(self) -> int:
        self._state = (self._state + 0x9E3779B97F4A7C15) & (2**64 - 1)
        z = self._state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
        return z ^ (z >> 31)

    def below(self, bound: int) -> int:
        """0 to bound - 1."""
        return self._next() % bound

    def choice(self, items: Sequence[Any]) -> Any:
        return items[self.below(len(items))]

    def one_in(self, count: int) -> bool:
        return self.below(count) == 0

    def data(self, size: int) -> bytes:
        """`size` random bytes."""
        words = [self._next() for _ in range(size // 8 + 1)]
        return struct.pack(f"<{len(words)}Q", *words)[:size]


def framed(kind: int, payload: bytes, claimed: int | None = None) -> bytes:
    """One frame, with the length that it has or claims to have."""
    return struct.pack("<IB3x", len(payload) if claimed is None else claimed, kind) + payload


def write(*pieces: bytes) -> Acts:
    return [("write", piece) for piece in pieces]


# --- frames made to mislead ---


def odd_place(dice: Dice) -> tuple[int, int]:
    """Where a guest's memory is, and how large; true, false, or said to be nowhere."""
    if dice.one_in(3):
        return 0, 0
    base = dice.choice((MEMORY_AT, MEMORY_AT, 1, MEMORY_AT + 8, *BAD_U64))
    return base, dice.choice((MEMORY_BYTES, MEMORY_BYTES, 0, 20, MEMORY_BYTES + 16, 100 << 20, *BAD_U64))


def odd_error(dice: Dice) -> bytes:
    """An ERROR, most often one that can be decoded, with unlikely fields."""
    failure = dice.below(m.Failure.COUNT)
    base, size = odd_place(dice)
    names = tuple(None if dice.one_in(3) else dice.choice(TEXTS[:8]) for _ in range(2))
    payload = m.Error(
        failure,
        fuel=dice.choice(BAD_U64) if dice.one_in(4) else 0,
        trap_code=dice.choice((None, 0, 9, 10, 11, 17, 22, 48, 49, 255, 2**62)),
        limit=dice.choice((None, 0, 1, 2**63 - 1)),
        exit_code=dice.choice(BAD_U32),
        text=dice.choice(TEXTS),
        frames=tuple(Frame(dice.choice(BAD_U32), *names, 0, dice.choice(BAD_U64)) for _ in range(dice.below(4))),
        base=base,
        size=size,
    ).payload()
    match dice.below(8):
        case 0:  # no such failure
            payload = bytes([dice.choice((m.Failure.COUNT, 127, 255))]) + payload[1:]
        case 1:  # neither a count nor -1
            payload = payload[:9] + struct.pack("<q", -dice.choice((2, 2**31, 2**63))) + payload[17:]
        case 2:  # not UTF-8
            payload = m.Error(failure, text="abc").payload().replace(b"abc", b"\xff\xc0\x80")
    return framed(m.ERROR, payload)


def odd_host_call(dice: Dice, kind: int = m.HOST_CALL) -> bytes:
    """A HOST_CALL, or a HOST_LOG, with indexes and sizes that may or may not fit."""
    slots = dice.data(16 * dice.below(4)) if dice.one_in(2) else struct.pack("<i12x", dice.below(16))
    first, second = dice.data(dice.below(40)), dice.data(dice.below(40))
    sizes = [len(slots), len(first), len(second)]
    if dice.one_in(4):
        sizes[dice.below(3)] = dice.choice(BAD_U32)
    index = dice.choice((0, 0, 1, 2, 3, 4, 2**31, 2**32 - 1))
    return framed(kind, m.HOST_CALL_LAYOUT.pack(index, *sizes, *odd_place(dice)) + slots + first + second)


def odd_log(dice: Dice) -> bytes:
    """A HOST_LOG; one in two is one that a guest might have made, and one in four of these fails."""
    if dice.one_in(2):
        return odd_host_call(dice, m.HOST_LOG)
    text = (b"\0" if dice.one_in(4) else b"") + dice.data(dice.below(40))
    return m.HostLog(2, struct.pack("<i12xi12xi12x", 1, 0, 2), text, b"", *odd_place(dice)).frame()


def odd_stream(dice: Dice) -> bytes:
    """What a guest says of its standard streams, with numbers and data that may or may not fit."""
    kind = dice.choice((m.STREAM_OUT, m.STREAM_OUT, m.STREAM_WRITE, m.STREAM_READ, m.STREAM_POLL, m.LINK_TIMES))
    data = dice.data(dice.below(12)) if dice.one_in(2) else bytes(dice.below(4))
    if dice.one_in(16):
        data = bytes(dice.choice((65535, 65536, 65537, 200_000)))
    number = dice.choice(BAD_U32) if dice.one_in(2) else dice.below(4)
    return framed(kind, m.STREAM_LAYOUT.pack(number) + data)


def any_frame(dice: Dice) -> bytes:
    """A frame that some worker or compiler might send at some time."""
    fuel = dice.choice(BAD_U64) if dice.one_in(3) else dice.below(20)
    kind = FuncType(("i32",) * dice.below(3), ("i64",))
    base, size = odd_place(dice)
    choices: tuple[Callable[[], bytes], ...] = (
        lambda: m.Ready().frame(),
        lambda: m.Loaded(fuel, base, size).frame(),
        lambda: m.Result(fuel, dice.data(16 * dice.below(6)), base, size).frame(),
        lambda: framed(
            m.RESULTS,
            m.RESULTS_LAYOUT.pack(fuel, base, size, dice.choice(BAD_U32), dice.choice((0, 1, 2, 3)), dice.below(3))
            + dice.data(16 * dice.below(6)),
        ),
        lambda: m.MemData(dice.data(dice.choice((0, 1, 15, 16, 17, 4096)))).frame(),
        lambda: m.MemDone().frame(),
        lambda: m.Artifact(dice.data(dice.below(100))).frame(),
        lambda: m.Compiled(
            dice.choice(BAD_U64),
            (ImportType(dice.choice(TEXTS[:8]), "f", kind), ImportType("h", "memory", MemoryType(1))),
            (ExportType(dice.choice(TEXTS[:8]), kind), ExportType("one", kind)),
        ).frame(),
        lambda: odd_error(dice),
        lambda: odd_host_call(dice),
        lambda: odd_log(dice),
        lambda: odd_stream(dice),
        # What only a supervisor says.
        lambda: framed(dice.choice((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 16)), dice.data(dice.below(64))),
    )
    made: bytes = dice.choice(choices)()
    return made


# --- what is done to the honest frame ---


def _with_payload(frame: bytes, payload: bytes) -> bytes:
    return framed(frame[4], payload)


def _damaged(dice: Dice, frame: bytes) -> bytes:
    """One to three damages of the payload (or of the header, if there is no payload); the length stays true."""
    data = bytearray(frame)
    for _ in range(1 + dice.below(3)):
        low = HEAD if len(data) > HEAD else 4
        # The head of the payload more often than slots and data, where every bit is allowed.
        at = low + dice.below(min(len(data) - low, 24) if dice.one_in(2) else len(data) - low)
        match dice.below(4):
            case 0:
                data[at] ^= 1 << dice.below(8)
            case 1:
                data[at] = dice.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2 if at + 4 <= len(data):
                struct.pack_into("<I", data, at, dice.choice(BAD_U32))
            case 3 if at + 8 <= len(data):
                struct.pack_into("<Q", data, at, dice.choice(BAD_U64))
    return bytes(data)


def _cut(dice: Dice, frame: bytes) -> bytes:
    return frame[: dice.below(len(frame))]


def _in_pieces(dice: Dice, frame: bytes) -> list[bytes]:
    """At most 40 pieces: small ones at the front, where the header is."""
    pieces, at = [], 0
    while at < len(frame) and len(pieces) < 40:
        size = 1 + dice.below(9) if at < 64 else 1 + dice.below(len(frame))
        pieces.append(frame[at : at + size])
        at += size
    return [*pieces, frame[at:]] if at < len(frame) else pieces


def _resized(dice: Dice, frame: bytes) -> bytes:
    """A payload that is some slots or bytes too long or too short, with its true length."""
    payload = frame[HEAD:]
    by = dice.choice((1, 4, 8, 15, 16, 16, 16, 32, 4096))
    return _with_payload(frame, payload + dice.data(by) if dice.one_in(2) else payload[: max(0, len(payload) - by)])


def _fuel(dice: Dice, frame: bytes) -> bytes:
    """Another figure where most replies have their fuel."""
    at = HEAD + (1 if frame[4] == m.ERROR else 0)
    if len(frame) < at + 8:
        return frame
    return frame[:at] + struct.pack("<Q", dice.choice(BAD_U64)) + frame[at + 8 :]


def _moved(dice: Dice, frame: bytes) -> bytes:
    """Another place where it says where the guest's memory is."""
    at = {m.LOADED: 8, m.RESULT: 8, m.RESULTS: 8, m.HOST_CALL: 16, m.HOST_LOG: 16}.get(frame[4], len(frame) - HEAD - 16)
    if at < 0 or len(frame) < HEAD + at + 16:
        return frame
    return frame[: HEAD + at] + struct.pack("<QQ", *odd_place(dice)) + frame[HEAD + at + 16 :]


def _many(frame: bytes) -> bytes:
    """More of it than a pipe holds."""
    return frame * (1 + 100_000 // len(frame))


def _death(dice: Dice) -> Act:
    return dice.choice((("die", 9, None), ("die", 11, None), ("die", None, 0), ("die", None, 3)))


MUTATIONS: dict[str, Callable[[Dice, bytes], Acts]] = {
    "honest": lambda _, frame: write(frame),
    "damage": lambda dice, frame: write(_damaged(dice, frame)),
    "damage, then silence": lambda dice, frame: [*write(_damaged(dice, frame)), ("mute",)],
    "cut, length adjusted": lambda dice, frame: write(_with_payload(frame, _cut(dice, frame)[HEAD:])),
    "cut, then silence": lambda dice, frame: [*write(_cut(dice, frame)), ("mute",)],
    "cut, then closed": lambda dice, frame: [*write(_cut(dice, frame)), ("close",)],
    "cut, then dead": lambda dice, frame: [*write(_cut(dice, frame)), _death(dice)],
    "resized": lambda dice, frame: write(_resized(dice, frame)),
    "false length": lambda dice, frame: write(framed(frame[4], frame[HEAD:], dice.choice(BAD_U32))),
    "length off by a little": lambda dice, frame: write(
        framed(frame[4], frame[HEAD:], max(0, len(frame) - HEAD + dice.choice((-1, 1, 8, 16))))
    ),
    "reserved bytes": lambda dice, frame: write(frame[:5] + dice.choice((b"\1\0\0", b"\0\0\x80")) + frame[8:]),
    "wrong kind": lambda dice, frame: write(frame[:4] + bytes([dice.below(64)]) + frame[5:]),
    "any kind": lambda dice, frame: write(frame[:4] + bytes([dice.below(256)]) + frame[5:]),
    "empty payload": lambda _, frame: write(_with_payload(frame, b"")),
    "random payload": lambda dice, frame: write(_with_payload(frame, dice.data(len(frame) - HEAD))),
    "another frame instead": lambda dice, _: write(any_frame(dice)),
    "another frame before": lambda dice, frame: write(any_frame(dice), frame),
    "another frame before, in one write": lambda dice, frame: write(any_frame(dice) + frame),
    "another frame behind": lambda dice, frame: write(frame + any_frame(dice)),
    "twice": lambda _, frame: write(frame, frame),
    "twice in one write": lambda _, frame: write(frame + frame),
    "extra bytes": lambda dice, frame: write(frame + dice.data(1 + dice.below(40))),
    "in pieces": lambda dice, frame: write(*_in_pieces(dice, frame)),
    "damaged, in pieces": lambda dice, frame: write(*_in_pieces(dice, _damaged(dice, frame))),
    "fuel": lambda dice, frame: write(_fuel(dice, frame)),
    "memory elsewhere": lambda dice, frame: write(_moved(dice, frame)),
    "odd HOST_LOG instead": lambda dice, _: write(odd_log(dice)),
    "odd HOST_LOG before": lambda dice, frame: write(odd_log(dice), frame),
    "odd HOST_LOG before, in one write": lambda dice, frame: write(odd_log(dice) + frame),
    "logs without end before": lambda dice, frame: write(_many(odd_log(dice)) + frame),
    "odd ERROR instead": lambda dice, _: write(odd_error(dice)),
    "odd ERROR before": lambda dice, frame: write(odd_error(dice), frame),
    "odd HOST_CALL instead": lambda dice, _: write(odd_host_call(dice)),
    "odd HOST_CALL before": lambda dice, frame: write(odd_host_call(dice), frame),
    "odd stream instead": lambda dice, _: write(odd_stream(dice)),
    "odd stream before": lambda dice, frame: write(odd_stream(dice), frame),
    "odd stream before, in one write": lambda dice, frame: write(odd_stream(dice) + frame),
    "streams without end before": lambda dice, frame: write(_many(odd_stream(dice)) + frame),
    "random bytes": lambda dice, _: write(dice.data(1 + dice.below(100))),
    "a flood": lambda dice, frame: write(frame + _many(any_frame(dice))),
    "silence": lambda _, __: [("mute",)],
    "closed": lambda _, __: [("close",)],
    "said, then closed": lambda _, frame: [*write(frame), ("close",)],
    "dead": lambda dice, _: [_death(dice)],
    "said, then dead": lambda dice, frame: [*write(frame), _death(dice)],
    "said, then deaf": lambda _, frame: [*write(frame), ("deaf",)],
    "deaf, then said": lambda _, frame: [("deaf",), *write(frame)],
}
NAMES = tuple(MUTATIONS)
