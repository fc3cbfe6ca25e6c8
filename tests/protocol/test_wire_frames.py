"""Frames: caps, reserved bytes, and reads that end anywhere."""

from __future__ import annotations

import pytest

from pdsandbox.protocol.codec import ProtocolError
from pdsandbox.protocol.frames import HEADER, HEADER_BYTES, FrameReader, frame, parse_header

CAP = 100


def test_a_header_is_eight_bytes_before_the_payload() -> None:
    """A frame is the u32 length, the u8 kind, three zero bytes, then the payload."""
    assert frame(0xAB, b"xyz") == b"\x03\0\0\0\xab\0\0\0xyz"
    assert HEADER.size == HEADER_BYTES == 8


def test_the_cap_is_exact() -> None:
    """A payload of exactly the cap passes; a header that announces one byte more is refused."""
    reader = FrameReader(CAP)
    reader.feed(frame(1, b"x" * CAP))
    assert reader.next() == (1, b"x" * CAP)
    reader = FrameReader(CAP)
    reader.feed(frame(1, b"x" * (CAP + 1)))
    with pytest.raises(ProtocolError, match="101 bytes is over the cap of 100"):
        reader.next()


def test_a_cap_of_nothing_lets_empty_frames_pass() -> None:
    """With a cap of 0, only frames without payload are legal."""
    reader = FrameReader(0)
    reader.feed(frame(1, b"") + frame(2, b"x"))
    assert reader.next() == (1, b"")
    with pytest.raises(ProtocolError):
        reader.next()


@pytest.mark.parametrize("length", [CAP + 1, 2**31, 2**32 - 1])
def test_a_header_over_the_cap_is_refused_before_its_payload(length: int) -> None:
    """The eight bytes of the header are enough to refuse a frame, by `next` and by `wanted`, again and again."""
    reader = FrameReader(CAP)
    reader.feed(HEADER.pack(length, 1))
    for refuse in (reader.next, reader.wanted, reader.next):
        with pytest.raises(ProtocolError):
            refuse()
    assert reader.buffered == HEADER_BYTES


@pytest.mark.parametrize("at", [5, 6, 7])
@pytest.mark.parametrize("value", [1, 0x80, 0xFF])
def test_reserved_bytes_must_be_zero(at: int, value: int) -> None:
    """A header with anything in its reserved bytes is refused."""
    header = bytearray(HEADER.pack(0, 1))
    header[at] = value
    reader = FrameReader(CAP)
    reader.feed(header)
    with pytest.raises(ProtocolError, match="reserved"):
        reader.next()
    with pytest.raises(ProtocolError, match="reserved"):
        parse_header(header, 0, CAP)


@pytest.mark.parametrize("kind", [0, 1, 127, 128, 255])
def test_every_kind_passes_the_frame_layer(kind: int) -> None:
    """Frames carry any kind: which are known is not theirs to say."""
    reader = FrameReader(CAP)
    reader.feed(frame(kind, b"p"))
    assert reader.next() == (kind, b"p")


def test_a_header_is_parsed_where_it_lies() -> None:
    """`parse_header` reads at any offset of any buffer, and gives kind and length."""
    buffer = b"???" + HEADER.pack(CAP, 9)
    for kind_of_buffer in (bytes, bytearray, memoryview):
        assert parse_header(kind_of_buffer(buffer), 3, CAP) == (9, CAP)


def test_two_frames_in_one_read() -> None:
    """Two frames that arrive together come out one by one, and then nothing."""
    reader = FrameReader(CAP)
    reader.feed(frame(1, b"first") + frame(2, b"") + frame(3, b"third")[:-1])
    assert [reader.next(), reader.next(), reader.next()] == [(1, b"first"), (2, b""), None]
    assert reader.wanted() == 1
    reader.feed(b"d")
    assert [reader.next(), reader.next()] == [(3, b"third"), None]
    assert reader.buffered == 0


def test_one_byte_at_a_time() -> None:
    """A stream that drips byte by byte gives the same frames, each as soon as its last byte is there."""
    sent = [(1, b""), (255, b"x" * CAP), (7, b"\0" * 8), (0, b"a")]
    reader, got = FrameReader(CAP), []
    ends = []
    for at, byte in enumerate(b"".join(frame(*one) for one in sent), 1):
        reader.feed(bytes([byte]))
        if (one := reader.next()) is not None:
            got.append(one)
            ends.append(at)
    assert got == sent
    assert ends == [8, 116, 132, 141]


def test_wanted_leads_to_whole_frames() -> None:
    """Reading exactly what is wanted takes each frame and never a byte of the next, nor more than the cap."""
    sent = [(1, b"x" * CAP), (2, b""), (3, b"abc")]
    stream, at = b"".join(frame(*one) for one in sent), 0
    reader, got = FrameReader(CAP), []
    assert reader.wanted() == HEADER_BYTES
    while at < len(stream):
        step = reader.wanted()
        reader.feed(stream[at : at + step])
        at += step
        assert reader.buffered <= HEADER_BYTES + CAP
        if reader.wanted() == 0:
            one = reader.next()
            assert one is not None
            assert reader.buffered == 0
            got.append(one)
    assert got == sent


def test_wanted_counts_down() -> None:
    """`wanted` is what the header lacks, then what the payload lacks, then 0, also when more is there."""
    reader = FrameReader(CAP)
    whole = frame(1, b"0123456789")
    seen = []
    for byte in whole:
        seen.append(reader.wanted())
        reader.feed(bytes([byte]))
    assert seen == [*range(8, 0, -1), *range(10, 0, -1)]
    assert reader.wanted() == 0
    reader.feed(whole)
    assert reader.wanted() == 0


def test_frames_own_their_payload() -> None:
    """A payload stays as it was when more is read, and whatever buffer was fed may be used again."""
    reader = FrameReader(CAP)
    source = bytearray(frame(1, b"keep"))
    reader.feed(memoryview(source))
    source[:] = b"\xee" * len(source)
    got = reader.next()
    reader.feed(frame(2, b"x" * CAP))
    assert got == (1, b"keep")


def test_half_a_frame_stays_half() -> None:
    """Without its last byte, a frame never comes out."""
    reader = FrameReader(CAP)
    reader.feed(frame(1, b"ab")[:-1])
    assert [reader.next() for _ in range(3)] == [None] * 3
    assert reader.wanted() == 1
