"""Memory, tables and stack: for each limit, just under passes and just over gives exactly its answer."""

from __future__ import annotations

import pytest

from pdsandbox import I32, Cause, InstantiationError, Trap, TrapCode

PAGE = 65536
GROWING = """(module (memory (export "memory") {minimum})
  (func (export "size") (result i32) (memory.size))
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0))))"""


def refused(make):
    """`make()` raises InstantiationError, cause LINK."""
    with pytest.raises(InstantiationError) as caught:
        make()
    assert caught.value.cause is Cause.LINK


def test_memory_bytes_for_growth(host_factory, instantiate):
    """`memory.grow` to exactly the limit passes; one page more answers -1 and changes nothing."""
    instance = instantiate(GROWING.format(minimum=1), on=host_factory(memory_bytes=10 * PAGE))
    assert instance.call("grow", [10]) == [I32(-1)]
    assert instance.call("grow", [9]) == [I32(1)]
    assert instance.call("grow", [0]) == [I32(10)]
    assert instance.call("grow", [1]) == [I32(-1)]
    assert instance.call("grow", [-1]) == [I32(-1)]
    assert instance.call("size", []) == [I32(10)]
    assert len(instance.memory_read(0, 10 * PAGE)) == 10 * PAGE


def test_memory_bytes_need_not_be_whole_pages(host_factory, instantiate):
    """The memory stays within the limit, in whole pages."""
    instance = instantiate(GROWING.format(minimum=1), on=host_factory(memory_bytes=3 * PAGE - 1))
    assert instance.call("grow", [1]) == [I32(1)]
    assert instance.call("grow", [1]) == [I32(-1)]


def test_memory_bytes_for_a_minimum(host_factory, instantiate):
    """A minimum of exactly the limit passes; one page more is an InstantiationError."""
    host = host_factory(memory_bytes=10 * PAGE)
    assert instantiate(GROWING.format(minimum=10), on=host).call("size", []) == [I32(10)]
    refused(lambda: instantiate(GROWING.format(minimum=11), on=host))


def test_a_maximum_above_the_limit_is_only_a_declaration(host_factory, instantiate):
    """A module may declare more than it gets."""
    host = host_factory(memory_bytes=2 * PAGE)
    instance = instantiate(GROWING.format(minimum="1 65536"), on=host)
    assert instance.call("grow", [1]) == [I32(1)]
    assert instance.call("grow", [1]) == [I32(-1)]


def test_memory_bytes_holds_for_each_memory(host_factory, instantiate):
    """Every memory may have the limit's bytes, no memory more."""
    host = host_factory(memory_bytes=4 * PAGE)
    instance = instantiate(
        """(module (memory $a 1) (memory $b 1)
          (func (export "a") (param i32) (result i32) (memory.grow $a (local.get 0)))
          (func (export "b") (param i32) (result i32) (memory.grow $b (local.get 0))))""",
        on=host,
    )
    for name in ("a", "b"):
        assert instance.call(name, [3]) == [I32(1)]
        assert instance.call(name, [1]) == [I32(-1)]


def test_memory_bytes_for_a_64_bit_memory(host_factory, instantiate):
    """64-bit addresses make no difference."""
    source = """(module (memory (export "memory") i64 1)
      (func (export "grow") (param i64) (result i64) (memory.grow (local.get 0))))"""
    grow = instantiate(source, on=host_factory(memory_bytes=4 * PAGE)).func("grow")
    assert [grow(1 << 40), grow(4), grow(3), grow(1)] == [-1, -1, 1, -1]


def test_a_memory_bomb_ends_at_the_limit(host_factory, instantiate, wat):
    """It gets the limit's pages, and -1 for all others; the instance stays usable."""
    instance = instantiate(wat("memory_bomb"), on=host_factory(memory_bytes=64 * PAGE))
    assert instance.call("run", []) == [I32(64)]
    assert instance.call("ok", []) == [I32(42)]


def test_a_bulk_fill_stays_inside(host_factory, instantiate, wat):
    """Bulk instructions get what growing gives, and no more."""
    host = host_factory(memory_bytes=64 * PAGE)
    assert instantiate(wat("memory_fill"), on=host).call("fill_once", [63]) == [I32(63)]
    assert instantiate(wat("memory_fill"), on=host).call("fill_once", [64]) == [I32(-1)]


@pytest.mark.parametrize("limit", [1, 3])
def test_memories(host_factory, instantiate, limit):
    """Exactly so many memories pass; one more is an InstantiationError."""
    host = host_factory(memories=limit)
    assert instantiate(f"(module {'(memory 1)' * limit})", on=host).alive
    refused(lambda: instantiate(f"(module {'(memory 1)' * (limit + 1)})", on=host))


def test_the_default_number_of_memories(instantiate):
    """Eight pass, nine do not."""
    assert instantiate(f"(module {'(memory 1)' * 8})").alive
    refused(lambda: instantiate(f"(module {'(memory 1)' * 9})"))


def test_table_elements_for_growth(host_factory, instantiate, wat):
    """`table.grow` to exactly the limit passes; one element more answers -1."""
    host = host_factory(table_elements=5001)
    instance = instantiate(wat("table_bomb"), on=host)
    assert instance.call("grow", [5001]) == [I32(-1)]
    assert instance.call("grow", [5000]) == [I32(1)]
    assert instance.call("grow", [1]) == [I32(-1)]
    assert instance.call("grow", [0]) == [I32(5001)]
    bomb = instantiate(wat("table_bomb"), on=host)
    assert bomb.call("run", []) == [I32(5001)]
    assert bomb.call("ok", []) == [I32(42)]


def test_table_elements_for_a_minimum(host_factory, instantiate):
    """A minimum of exactly the limit passes; one element more is an InstantiationError."""
    host = host_factory(table_elements=5000)
    assert instantiate("(module (table 5000 funcref))", on=host).alive
    refused(lambda: instantiate("(module (table 5001 funcref))", on=host))


def deepest(instance):
    """The greatest depth of recursion that does not exhaust the stack, by bisection."""
    low, high = 1, 1_000_000  # low passes, high traps
    while high - low > 1:
        middle = (low + high) // 2
        try:
            instance.call("deep", [middle])
        except Trap:
            high = middle
        else:
            low = middle
    return low


def test_stack_bytes(host_factory, instantiate, wat):
    """Recursion just under the limit passes, just over traps; four times the stack is about four times the depth."""
    depths = []
    for kib in (64, 256):
        instance = instantiate(wat("stack_bomb"), on=host_factory(stack_bytes=kib << 10))
        depth = deepest(instance)
        for _ in range(3):
            assert instance.call("deep", [depth]) == [I32(depth)]
            with pytest.raises(Trap) as caught:
                instance.call("deep", [depth + 1])
            assert caught.value.trap_code is TrapCode.STACK_OVERFLOW
            assert caught.value.cause is Cause.GUEST_TRAP
        assert instance.call("ok", []) == [I32(42)]
        depths.append(depth)
    assert 3 < depths[1] / depths[0] < 5


@pytest.mark.parametrize("kib", [16, 4096])
def test_stack_bytes_at_its_bounds(host_factory, instantiate, wat, kib):
    """The smallest and the largest stack work, and end in a trap all the same."""
    instance = instantiate(wat("stack_bomb"), on=host_factory(stack_bytes=kib << 10))
    assert instance.call("deep", [10]) == [I32(10)]
    with pytest.raises(Trap) as caught:
        instance.call("run", [])
    assert caught.value.trap_code is TrapCode.STACK_OVERFLOW
    assert instance.call("ok", []) == [I32(42)]


def test_limits_that_are_switched_off(host_factory, instantiate):
    """`None` leaves memories and tables to what the module declares."""
    host = host_factory(memory_bytes=None, table_elements=None)
    instance = instantiate(
        """(module (memory (export "memory") 1 5000) (table $t 1 2000000 funcref)
          (func (export "memory_grow") (param i32) (result i32) (memory.grow (local.get 0)))
          (func (export "table_grow") (param i32) (result i32) (table.grow $t (ref.null func) (local.get 0))))""",
        on=host,
    )
    assert instance.call("memory_grow", [4999]) == [I32(1)]
    assert instance.call("memory_grow", [1]) == [I32(-1)]
    assert instance.call("table_grow", [1_500_000]) == [I32(1)]
