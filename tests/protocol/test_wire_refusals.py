"""What is nearly a message: each rule that a payload can break by one, broken by one."""

from __future__ import annotations

import struct

import pytest
import wire_samples as samples

from pdsandbox.errors import Frame
from pdsandbox.externs import ExportType, TagType
from pdsandbox.protocol import messages as m
from pdsandbox.protocol.codec import ProtocolError, Reader

SLOT = samples.SLOT


def patched(payload: bytes, at: int, layout: str, value: int) -> bytes:
    """`payload` with one number in it replaced; it must have been another."""
    new = struct.pack(layout, value)
    changed = payload[:at] + new + payload[at + len(new) :]
    assert changed != payload
    return changed


ERROR = m.Error(0, text="ab", frames=samples.TRAPPED.frames).payload()
BARE = m.Error(0, frames=(Frame(0, None, None, 0, 0),)).payload()  # its flags at 41
TAG = m.Compiled(1, (), (ExportType("", TagType(())),)).payload()  # its kind at 20
LOAD = samples.LOAD.payload()
LOAD_OFFERS = 60
TRAP_CODE, LIMIT, TEXT, FRAMES = 9, 17, 33, 35
COMPILED = m.Compiled(1, (), (samples.COMPILED.exports[1],)).payload()  # a table: name at 16, tag at 25

REFUSED = {
    "fuel of -2": (m.LOAD, patched(LOAD, 0, "<q", -2)),
    "memory_bytes of -2**63": (m.LOAD, patched(LOAD, 16, "<q", -(2**63))),
    "one offer more than there are": (m.LOAD, patched(LOAD, LOAD_OFFERS, "<I", 100)),
    "failure beyond the last": (m.ERROR, patched(ERROR, 0, "<B", m.Failure.COUNT)),
    "trap code of -2": (m.ERROR, patched(ERROR, TRAP_CODE, "<q", -2)),
    "limit of -2": (m.ERROR, patched(ERROR, LIMIT, "<q", -2)),
    "text that is no UTF-8": (m.ERROR, patched(ERROR, TEXT, "<B", 0xFF)),
    "one frame more than there are": (m.ERROR, patched(ERROR, FRAMES, "<I", 3)),
    "a frame with an unknown flag": (m.ERROR, patched(BARE, 41, "<B", 4)),
    "a value type beyond the last": (m.RESOLVE, struct.pack("<IBI", 1, 8, 0)),
    "an unknown kind of type": (m.COMPILED, patched(TAG, 20, "<B", 5)),
    "an unknown element type": (m.COMPILED, patched(COMPILED, 26, "<B", 8)),
    "a flag of 2": (m.COMPILED, patched(COMPILED, 35, "<B", 2)),
    "a call's slots cut short": (m.CALL, m.Call(0, 0, 0, 0, SLOT).payload()[:-1]),
    "a call's head cut short": (m.CALL, m.Call(0, 0, 0, 0, b"").payload()[:-1]),
    "rows without their slots": (m.CALL_MANY, m.CallMany(0, 0, 0, 0, 2, 1, SLOT).payload()),
    "slots without their rows": (m.CALL_MANY, m.CallMany(0, 0, 0, 0, 0, 1, SLOT).payload()),
    "a result's slots cut short": (m.RESULT, m.Result(0, SLOT).payload()[:-1]),
    "results without their slots": (m.RESULTS, m.Results(0, 2, 1, False, SLOT).payload()),
    "results that failed twice": (m.RESULTS, patched(m.Results(0, 1, 1, True, SLOT).payload(), 32, "<I", 2)),
    "host call slots that are none": (m.HOST_CALL, m.HostCall(0, SLOT[:-1], b"a").payload()),
    "a host call a byte longer than it says": (m.HOST_CALL, m.HostCall(0, SLOT, b"a").payload() + b"b"),
    "a log a byte longer than it says": (m.HOST_LOG, m.HostLog(0, SLOT, b"a").payload() + b"b"),
    "a log's slots that are none": (m.HOST_LOG, m.HostLog(0, SLOT[:-1], b"a").payload()),
    "a log's head cut short": (m.HOST_LOG, m.HostLog(0, b"").payload()[:-1]),
    "LOADED without a memory's place": (m.LOADED, m.Loaded(1).payload()[:-8]),
    "LOADED with slots": (m.LOADED, m.Loaded(1).payload() + SLOT),
    "a result without a memory's size": (m.RESULT, m.Result(1, b"").payload()[:-8]),
    "an ERROR without a memory's place": (m.ERROR, BARE[:-16]),
    "an ERROR that goes on behind it": (m.ERROR, BARE + bytes(8)),
    "half a returned slot": (m.HOST_RETURN, SLOT[:8]),
    "READY with something to say": (m.READY, b"\0"),
    "a source of neither kind": (m.COMPILE, b"\x02(module)"),
    "no source at all": (m.COMPILE, b""),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_nearly_a_message_is_refused(what: str) -> None:
    """A payload that breaks one rule is a ProtocolError."""
    kind, payload = REFUSED[what]
    with pytest.raises(ProtocolError):
        m.decode(kind, payload)


@pytest.mark.parametrize(
    "raw",
    [b"\xff", b"\xc3", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"ok\x80"],
    ids=["no lead byte", "cut", "overlong NUL", "surrogate", "beyond Unicode", "stray continuation"],
)
def test_text_is_strict_utf8(raw: bytes) -> None:
    """Text that is no well-formed UTF-8 is refused; as a path the same bytes pass, and are kept."""
    framed = struct.pack("<I", len(raw)) + raw
    with pytest.raises(ProtocolError, match="UTF-8"):
        Reader(framed).text()
    assert Reader(framed).path().encode("utf-8", "surrogateescape") == raw


def test_a_list_is_refused_before_its_first_item() -> None:
    """A list with more items than the bytes left can hold is refused without reading any; one that fits is read."""
    taken: list[int] = []
    reader = Reader(struct.pack("<I", 3) + bytes(8))
    with pytest.raises(ProtocolError, match="3 items"):
        reader.many(lambda: taken.append(reader.u32()), 4, 100)
    assert taken == []
    assert Reader(struct.pack("<I3I", 3, 7, 8, 9)).many(lambda: None, 4, 3) == [None] * 3
    with pytest.raises(ProtocolError, match="4 items"):
        Reader(struct.pack("<I", 4) + bytes(16)).many(lambda: None, 4, 3)


def test_an_end_that_is_none_is_refused() -> None:
    """Bytes that are left over after the last field are counted in the refusal."""
    reader = Reader(b"abc")
    reader.u8()
    with pytest.raises(ProtocolError, match="2 bytes too many"):
        reader.end()
    assert reader.rest() == b"bc"
    reader.end()
