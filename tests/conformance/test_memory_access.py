"""`memory_read` and `memory_write`: exact bounds, all or nothing, which memory it is."""

from __future__ import annotations

import array

import pytest
from reaching import EVERY_WAY, PAGE, outside

from pdsandbox import I32, CallError, MemoryAccessError

pytestmark = EVERY_WAY


def _released():
    view = memoryview(b"data")
    view.release()
    return view


def test_what_is_written_is_read_and_seen_by_the_guest(instance):
    """Both directions, at any place."""
    instance.memory_write(100, b"hello")
    assert instance.memory_read(100, 5) == b"hello"
    assert type(instance.memory_read(100, 5)) is bytes
    assert instance.call("load", [101]) == [I32(ord("e"))]
    instance.call("store", [102, 0x4C])
    assert instance.memory_read(99, 7) == b"\0heLlo\0"


@pytest.mark.parametrize(("offset", "length"), [(0, PAGE), (PAGE - 1, 1), (PAGE, 0), (0, 0), (PAGE - 5, 5)])
def test_up_to_the_exact_end(instance, offset, length):
    """The last byte belongs to the memory, and nothing at all can be had at its end."""
    data = bytes(i % 251 for i in range(length))
    instance.memory_write(offset, data)
    assert instance.memory_read(offset, length) == data


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (0, PAGE + 1),
        (PAGE - 1, 2),
        (PAGE, 1),
        (PAGE + 1, 0),
        (2**31, 1),
        (2**32 - 1, 1),
        (2**32, 0),
        (2**32, 1),
        (2**64 - 1, 2),
        (2**64, 1),
        (2**70, 1),
        (-1, 1),
        (-1, 0),
        (-(2**70), 1),
    ],
)
def test_one_beyond_and_far_beyond(instance, offset, length):
    """Not one byte outside can be read or written, and no offset is taken modulo anything."""
    outside(lambda: instance.memory_read(offset, length))
    outside(lambda: instance.memory_write(offset, b"x" * length))
    assert instance.memory_read(0, PAGE) == bytes(PAGE)


@pytest.mark.parametrize("length", [2**31, 2**32, 2**63, 2**64, 2**70])
def test_a_huge_length_is_outside_and_allocates_nothing(instance, length):
    """A length that no memory has is refused before anything is set aside for it."""
    outside(lambda: instance.memory_read(0, length))


@pytest.mark.parametrize("length", [-1, -PAGE, -(2**70)])
def test_a_negative_length_is_refused(instance, length):
    """It is never read as a very large one."""
    with pytest.raises((MemoryAccessError, ValueError)):
        instance.memory_read(0, length)


@pytest.mark.parametrize("offset", [None, 1.0, "0"], ids=repr)
def test_an_offset_that_is_no_integer_is_refused(instance, offset):
    """Nothing is converted into an offset."""
    for attempt in (lambda: instance.memory_read(offset, 1), lambda: instance.memory_write(offset, b"x")):
        with pytest.raises((CallError, MemoryAccessError, TypeError, ValueError)):
            attempt()
    assert instance.memory_read(0, 1) == b"\0"


def test_a_write_is_all_or_nothing(instance):
    """What does not fit as a whole leaves not even its beginning."""
    outside(lambda: instance.memory_write(PAGE - 3, b"four"))
    assert instance.memory_read(PAGE - 3, 3) == b"\0\0\0"


def test_growth_moves_the_end(instance):
    """After `memory.grow` the new pages can be read and written, and what was there has stayed."""
    instance.memory_write(PAGE - 4, b"last")
    outside(lambda: instance.memory_read(PAGE, 1))
    assert instance.call("grow", [2]) == [I32(1)]
    instance.memory_write(3 * PAGE - 1, b"x")
    assert instance.memory_read(PAGE - 4, 5) == b"last\0"
    assert instance.memory_read(3 * PAGE - 2, 2) == b"\0x"
    outside(lambda: instance.memory_read(3 * PAGE, 1))


def test_several_mebibytes_at_once(instance):
    """More than fits any pipe's buffer goes both ways unharmed."""
    size = 6 << 20
    assert instance.call("grow", [size // PAGE]) == [I32(1)]
    data = bytes(range(256)) * (size // 256)
    instance.memory_write(PAGE, data)
    assert instance.memory_read(PAGE, size) == data
    assert instance.memory_read(0, PAGE) == bytes(PAGE)


def test_no_memory_exported(instantiate):
    """Without a memory, or with one that is not exported, every access is an error, even of nothing."""
    for source in ("(module)", "(module (memory 1))", '(module (func (export "memory")))'):
        instance = instantiate(source)
        outside(lambda instance=instance: instance.memory_read(0, 1))
        outside(lambda instance=instance: instance.memory_read(0, 0))
        outside(lambda instance=instance: instance.memory_write(0, b"x"))


def test_an_empty_memory_has_only_its_end(instantiate):
    """A memory of no pages can be read for nothing."""
    instance = instantiate('(module (memory (export "memory") 0))')
    assert instance.memory_read(0, 0) == b""
    outside(lambda: instance.memory_read(0, 1))


def test_the_export_called_memory_is_the_memory(instantiate):
    """It wins over memories that are exported before it."""
    instance = instantiate("""(module (memory $a 1) (memory $b 1)
      (export "first" (memory $a)) (export "memory" (memory $b)) (data (memory $b) (i32.const 0) "b"))""")
    assert instance.memory_read(0, 1) == b"b"


def test_else_the_first_exported_memory_is(instantiate):
    """First in order of export, not of declaration."""
    instance = instantiate("""(module (memory $a 1) (memory $b 1) (func (export "f"))
      (export "z" (memory $b)) (export "a" (memory $a)) (data (memory $b) (i32.const 0) "b"))""")
    assert instance.memory_read(0, 1) == b"b"


def test_memory_is_meant_only_if_it_is_a_memory(instantiate):
    """A function called "memory" does not hide the first exported memory."""
    instance = instantiate("""(module (func (export "memory")) (memory (export "m") 1)
      (data (i32.const 0) "m"))""")
    assert instance.memory_read(0, 1) == b"m"


def test_a_64_bit_memory(instantiate):
    """Memories with 64-bit addresses are read and written alike."""
    instance = instantiate("""(module (memory (export "memory") i64 1)
      (func (export "load") (param i64) (result i32) (i32.load8_u (local.get 0))))""")
    instance.memory_write(PAGE - 1, b"x")
    assert instance.memory_read(PAGE - 1, 1) == b"x"
    assert instance.call("load", [PAGE - 1]) == [I32(ord("x"))]
    outside(lambda: instance.memory_read(PAGE, 1))
    outside(lambda: instance.memory_read(2**64 - 1, 1))


@pytest.mark.parametrize("data", ["text", 4, None, [1, 2], _released()], ids=lambda data: type(data).__name__)
def test_data_to_write_must_be_bytes(instance, data):
    """What has no bytes of its own is refused: a str, and an int, of which `bytes` would make zeros."""
    with pytest.raises(CallError) as caught:
        instance.memory_write(0, data)
    assert str(caught.value) == f"WASM call error: memory_write takes bytes, not {type(data).__name__}"
    assert instance.memory_read(0, 4) == bytes(4)


@pytest.mark.parametrize(
    "data",
    [bytearray(b"data"), memoryview(b"-data-")[1:5], memoryview(b"d-a-t-a")[::2], array.array("b", b"data")],
    ids=["bytearray", "a slice", "every other byte", "an array"],
)
def test_data_to_write_may_be_any_bytes(instance, data):
    """Whoever has the bytes, and wherever they are."""
    instance.memory_write(0, data)
    assert instance.memory_read(0, 5) == b"data\0"
