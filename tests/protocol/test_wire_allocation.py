"""What a hostile peer sends costs memory in proportion to what it sent, never to what it announced."""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
import wire_samples as samples
from wire_fuzz import FIRST_SEED, hostile

from pdsandbox.errors import Frame
from pdsandbox.externs import ExportType, FuncType, GlobalType, ImportType, TagType
from pdsandbox.protocol import messages as m
from pdsandbox.protocol.codec import ProtocolError, Reader
from pdsandbox.protocol.frames import HEADER, HEADER_BYTES, FrameReader
from pdsandbox.protocol.metadata import MAX_TYPES

# The dearest byte is in an export of 7 bytes that becomes two objects and a place in a list: 16 times, measured.
FACTOR = 20
# Tracebacks, the error's text, and what the interpreter keeps for itself.
CONSTANT = 64 << 10
TOP = struct.pack("<I", 2**32 - 1)


@pytest.fixture(autouse=True)
def _traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def peak(action: Callable[[], object]) -> int:
    """Bytes allocated at most, at any one time, while `action` runs."""
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        action()
    except ProtocolError:
        pass
    return tracemalloc.get_traced_memory()[1] - before


def allowed(size: int) -> int:
    return size * FACTOR + CONSTANT


def read_all(data: bytes) -> None:
    reader = FrameReader(m.SMALL_CAP)
    reader.feed(data)
    while (got := reader.next()) is not None:
        m.decode(*got)


@pytest.mark.parametrize("value", [2**32 - 1, 2**31, 2**24])
def test_no_length_inside_a_message_is_believed(value: int) -> None:
    """A huge number over any four bytes of any message, counts and lengths among them, allocates nothing for it."""
    number = struct.pack("<I", value)
    for sample in samples.MESSAGES:
        payload = sample.payload()
        for at in range(len(payload) - 3):
            tampered = payload[:at] + number + payload[at + 4 :]
            assert peak(lambda: m.decode(sample.KIND, tampered)) < allowed(len(tampered)), (sample, at)  # noqa: B023


COUNTS = {
    "offers": (m.LOAD, 16),
    "sys_path": (m.LOAD, 20),
    "frames": (m.ERROR, 33),
    "imports": (m.COMPILED, 8),
    "exports": (m.COMPILED, 12),
    "parameters": (m.RESOLVE, 8),
    "results": (m.RESOLVE, 12),
    "error text": (m.ERROR, 29),
}


@pytest.mark.parametrize("field", COUNTS)
def test_a_count_of_four_billion_is_refused(field: str) -> None:
    """Each list and byte string that announces 2**32 - 1 of what is not there is refused, and costs nothing."""
    kind, at = COUNTS[field]
    # Zeros are the shortest legal fields of these messages before the tampered one, and not enough after it.
    payload = bytes(at) + TOP + bytes(1000)
    with pytest.raises(ProtocolError, match=r"4294967295 (items|bytes)"):
        m.decode(kind, payload)
    assert peak(lambda: m.decode(kind, payload)) < CONSTANT


def test_the_codec_refuses_before_it_allocates() -> None:
    """Byte strings, text and lists longer than what is left are refused by length alone."""
    for read in (Reader.data, Reader.text, Reader.path, lambda r: r.many(r.u8, 1, 2**32)):
        with pytest.raises(ProtocolError):
            read(Reader(TOP + bytes(100)))
        assert peak(lambda: read(Reader(TOP + bytes(100)))) < CONSTANT  # noqa: B023
    # Items of no bytes would pass any check against what is left: there `most` refuses.
    with pytest.raises(ProtocolError):
        Reader(TOP).many(lambda: None, 0, 1000)


@pytest.mark.parametrize("lengths", [(2**32 - 16, 0, 0), (0, 2**32 - 1, 0), (2**32 - 16, 2**32 - 1, 2**32 - 1)])
def test_host_calls_cannot_announce_gigabytes(lengths: tuple[int, int, int]) -> None:
    """A host call whose three lengths come to gigabytes is refused, also where 32-bit sums would wrap around."""
    payload = m.HOST_CALL_LAYOUT.pack(0, *lengths, 0, 0) + bytes(64)
    for kind in (m.HOST_CALL, m.HOST_LOG):
        with pytest.raises(ProtocolError):
            m.decode(kind, payload)
        assert peak(lambda: m.decode(kind, payload)) < CONSTANT  # noqa: B023


@pytest.mark.parametrize("where", [(2**64 - 1, 2**64 - 1), (0, 2**63), (1 << 47, 1 << 40)])
def test_no_memory_s_size_is_believed(where: tuple[int, int]) -> None:
    """A guest memory of 2**64 bytes, told in any message that tells one, is a number: it costs what zero costs."""
    base, size = where
    for message in (
        m.Loaded(0, base, size),
        m.Result(0, b"", base, size),
        m.Results(0, 0, 0, False, b"", base, size),
        m.Error(0, base=base, size=size),
        m.HostCall(0, b"", base=base, size=size),
        m.HostLog(0, b"", base=base, size=size),
    ):
        payload = message.payload()
        assert m.decode(message.KIND, payload) == message
        assert peak(lambda: m.decode(message.KIND, payload)) < CONSTANT  # noqa: B023


@pytest.mark.parametrize(
    ("rows", "width"), [(2**32 - 1, 2**32 - 1), (2**31, 2), (2**28, 1), (1, 2**28), (2**16, 2**16)]
)
def test_rows_cannot_announce_gigabytes(rows: int, width: int) -> None:
    """Rows times slots that come to gigabytes are refused, also where 32-bit and 64-bit products would wrap around."""
    for kind, payload in (
        (m.RESULTS, m.RESULTS_LAYOUT.pack(0, 0, 0, rows, width, 0)),
        (m.CALL_MANY, m.CALL_MANY_LAYOUT.pack(0, 0, 0, 0, rows, width)),
    ):
        with pytest.raises(ProtocolError, match="do not match"):
            m.decode(kind, payload)
        assert peak(lambda: m.decode(kind, payload)) < CONSTANT  # noqa: B023


@pytest.mark.parametrize("cap", [m.SMALL_CAP, 2**32 - 1])
def test_a_header_allocates_nothing(cap: int) -> None:
    """A header that announces 4 GiB costs nothing, whether the cap refuses it or has room for it."""

    def announce() -> None:
        reader = FrameReader(cap)
        reader.feed(HEADER.pack(2**32 - 1, m.ARTIFACT))
        assert reader.next() is None
        assert reader.wanted() == 2**32 - 1

    assert peak(announce) < CONSTANT


def test_a_reader_holds_no_more_than_it_was_fed() -> None:
    """A frame of 1 MiB that drips in costs itself, its copy, and the slack of a growing buffer."""
    data = m.Artifact(bytes(1 << 20)).frame()

    def drip() -> None:
        reader = FrameReader(m.CHUNK_BYTES)
        for at in range(0, len(data), 4096):
            reader.feed(data[at : at + 4096])
        assert reader.next() == (m.ARTIFACT, data[HEADER_BYTES:])

    assert peak(drip) < 4 * len(data)


NUMBER = GlobalType("i32", mutable=False)
FEW = 5000
DEAR = {
    "exports of 7 bytes": m.Compiled(0, (), (ExportType("", NUMBER),) * FEW),
    "imports of 11 bytes": m.Compiled(0, (ImportType("", "", NUMBER),) * FEW, ()),
    "one-byte names": m.Compiled(0, (ImportType("\xe9", "ab", FuncType(("i32",), ("i32",))),) * FEW, ()),
    "tags of many types": m.Compiled(0, (), (ExportType("", TagType(("i32",) * MAX_TYPES)),) * 100),
    "a wide character": m.Compiled(0, (), (ExportType("a" * 100_000 + "\U0001f600", NUMBER),)),
    "offers of 26 bytes": m.Load(None, 0, (m.OfferSpec("", "", FuncType((), ()), 0),) * FEW, ("",) * FEW),
    "frames": m.Error(0, frames=(Frame(2**32 - 1, "a", "", 2**64 - 1, 2**64 - 1),) * m.MAX_FRAMES),
}


@pytest.mark.parametrize("what", DEAR)
def test_the_dearest_messages_cost_a_small_multiple(what: str) -> None:
    """Messages made of the fields that grow most when decoded cost less than 20 times their bytes."""
    payload = DEAR[what].payload()
    assert peak(lambda: m.decode(DEAR[what].KIND, payload)) < allowed(len(payload))


def test_fuzzed_input_costs_a_small_multiple() -> None:
    """Of 3,000 arbitrary and damaged streams, none costs more than a small multiple of its bytes."""
    for seed in range(FIRST_SEED, FIRST_SEED + 3000):
        data = hostile(random.Random(seed))
        assert peak(lambda: read_all(data)) < allowed(len(data)), seed  # noqa: B023
