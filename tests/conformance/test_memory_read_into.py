"""`memory_read_into`: any writable buffer in one piece is filled with what `memory_read` returns, or left alone."""

from __future__ import annotations

import array
import ctypes
import random

import pytest
from reaching import EVERY_WAY, PAGE, outside

from pdsandbox import I32, CallError, Cause, MemoryAccessError

pytestmark = EVERY_WAY
MIB = 1 << 20


def test_read_into_fills_all_of_a_buffer(instance):
    """It gets what memory_read would return, and the count is told."""
    data = bytes(i % 251 for i in range(PAGE))
    instance.memory_write(0, data)
    for offset, length in ((0, PAGE), (100, 1), (PAGE - 7, 7)):
        buffer = bytearray(length)
        assert instance.memory_read_into(offset, buffer) == length
        assert buffer == data[offset : offset + length]


BUFFERS = {
    "a slice": lambda: memoryview(bytearray(b"." * 24))[8:16],
    "an array of integers": lambda: array.array("q", [-1]),
    "an array of floats": lambda: array.array("f", [1.0, 2.0]),
    "a ctypes array": lambda: (ctypes.c_uint16 * 4)(1, 2, 3, 4),
    "a ctypes structure": lambda: _Pair(1, 2),
    "two dimensions": lambda: memoryview(bytearray(8)).cast("B", (2, 4)),
}


class _Pair(ctypes.BigEndianStructure):
    _fields_ = (("a", ctypes.c_uint32), ("b", ctypes.c_uint32))


@pytest.mark.parametrize("make", BUFFERS.values(), ids=BUFFERS)
def test_any_writable_buffer_in_one_piece_will_do(instance, make):
    """Its bytes are filled, whatever it calls its items."""
    instance.memory_write(5, b"\1\2\3\4\5\6\7\x80")
    buffer = make()
    assert instance.memory_read_into(5, buffer) == 8
    assert bytes(memoryview(buffer)) == b"\1\2\3\4\5\6\7\x80"


def test_read_into_a_slice_leaves_its_neighbours(instance):
    """Not one byte more than the slice."""
    instance.memory_write(0, b"#" * 100)
    buffer = bytearray(b"." * 24)
    assert instance.memory_read_into(0, memoryview(buffer)[8:16]) == 8
    assert buffer == b"." * 8 + b"#" * 8 + b"." * 8


def test_a_buffer_can_be_resized_afterwards(instance):
    """Nothing holds on to it."""
    buffer = bytearray(100)
    instance.memory_read_into(0, buffer)
    buffer += b"more"
    with pytest.raises(MemoryAccessError):
        instance.memory_read_into(PAGE, buffer)
    buffer.clear()


@pytest.mark.parametrize(
    "make",
    [
        bytearray,
        lambda: memoryview(bytearray(8))[3:3],
        lambda: array.array("q"),
        ctypes.c_int * 3 * 0,
        ctypes.c_int * 0 * 3,
    ],
)
def test_read_into_a_buffer_of_no_size(instance, make):
    """Nothing is read, at any place inside; outside it is an error all the same."""
    assert instance.memory_read_into(PAGE, make()) == 0
    outside(lambda: instance.memory_read_into(PAGE + 1, make()))


def _released():
    view = memoryview(bytearray(8))
    view.release()
    return view


NO_BUFFERS = {
    "a view of what it was": (_released(), "takes a writable buffer, not memoryview"),
    "bytes": (b"12345678", "takes a writable, contiguous buffer; this bytes is not"),
    "read-only": (memoryview(bytearray(8)).toreadonly(), "takes a writable, contiguous buffer; this memoryview is not"),
    "every other byte": (memoryview(bytearray(16))[::2], "takes a writable, contiguous buffer; this memoryview is not"),
    "backwards": (memoryview(bytearray(8))[::-1], "takes a writable, contiguous buffer; this memoryview is not"),
    "a length": (8, "takes a writable buffer, not int"),
    "text": ("12345678", "takes a writable buffer, not str"),
    "a list": ([0] * 8, "takes a writable buffer, not list"),
    "none": (None, "takes a writable buffer, not NoneType"),
}


@pytest.mark.parametrize(("buffer", "text"), NO_BUFFERS.values(), ids=NO_BUFFERS)
def test_what_cannot_be_filled_is_refused(instance, buffer, text):
    """CallError says what is wrong with it, and the instance stays usable."""
    instance.memory_write(0, b"#" * 8)
    with pytest.raises(CallError) as caught:
        instance.memory_read_into(0, buffer)
    assert caught.value.cause is Cause.USAGE
    assert str(caught.value) == f"WASM call error: memory_read_into {text}"
    assert instance.memory_read(0, 8) == b"#" * 8


@pytest.mark.parametrize("offset", [PAGE - 7, PAGE, 2**32, 2**63, 2**64, -1, -(2**70)])
def test_a_refused_read_into_leaves_the_buffer(instance, offset):
    """All of it is filled, or nothing."""
    buffer = bytearray(b"." * 8)
    outside(lambda: instance.memory_read_into(offset, buffer))
    assert buffer == b"." * 8


@pytest.mark.parametrize("offset", [None, 1.0, "0"], ids=repr)
def test_read_into_at_no_integer(instance, offset):
    """As for the others: CallError, and the buffer as it was."""
    buffer = bytearray(b"." * 8)
    with pytest.raises(CallError):
        instance.memory_read_into(offset, buffer)
    assert buffer == b"." * 8


def test_read_into_several_mebibytes(instance):
    """In as many pieces as it takes, and the part of a piece at the end."""
    assert instance.call("grow", [99]) == [I32(1)]
    data = random.Random(1).randbytes(100 * PAGE)
    instance.memory_write(0, data)
    buffer = bytearray(6 * MIB + 1)
    assert instance.memory_read_into(7, buffer) == len(buffer)
    assert buffer == data[7 : 7 + len(buffer)]
