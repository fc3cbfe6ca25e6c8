"""A memory that grows: before, between and inside calls, whoever looks at it, its end is where it is now."""

from __future__ import annotations

import pytest
from reaching import EVERY_WAY, PAGE, outside

from pdsandbox import I32, I64, CallError, FuelExhausted, HostFunction, Trap, WasmImports, in_worker

pytestmark = EVERY_WAY

CALLING = """(module
  (import "m" "host" (func $host (param i32) (result i32)))
  (import "m" "shipped" (func $shipped (param i32)))
  (memory (export "{name}") 1 100)
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
  (func (export "grow_and_call") (param i32) (result i32)
    (drop (memory.grow (i32.const 3)))
    (i32.store8 (local.get 0) (i32.const 7))
    (call $host (local.get 0)))
  (func (export "call_and_grow") (param i32) (result i32)
    (drop (call $host (local.get 0)))
    (memory.grow (i32.const 3)))
  (func (export "shipped") (param i32) (call $shipped (local.get 0)))
  (func (export "grow_and_trap") (drop (memory.grow (i32.const 1))) (unreachable))
  (func (export "grow_and_loop") (drop (memory.grow (i32.const 1))) (loop $l (br $l)))
  (func (export "trap_if") (param i32) (result i32)
    (if (local.get 0) (then (unreachable)))
    (memory.grow (i32.const 1))))"""


def _store(caller, at):
    caller.memory_write(at, b"shipped")


@pytest.fixture(params=["memory", "m"])
def calling(request, instantiate):
    """calling(host): an instance of CALLING whose memory has that name, before anything was done with it."""

    def make(host=lambda caller, value: value):
        functions = {
            ("m", "host"): HostFunction(host, ("i32",), ("i32",)),
            ("m", "shipped"): HostFunction(in_worker(_store), ("i32",)),
        }
        return instantiate(CALLING.format(name=request.param), WasmImports(functions=functions))

    return make


def test_right_after_instantiating(calling):
    """Nothing needs to have been called."""
    for use in (
        lambda instance: instance.memory_read(PAGE - 2, 2) == b"\0\0",
        lambda instance: instance.memory_read_into(PAGE - 2, bytearray(2)) == 2,
        lambda instance: instance.memory_write(PAGE - 2, b"xx") is None,
    ):
        assert use(calling())
        outside(lambda: calling().memory_write(PAGE - 1, b"xx"))


def reach(instance, pages):
    """Its memory has just so many pages, and the new end takes and gives data."""
    instance.memory_write(pages * PAGE - 3, b"end")
    buffer = bytearray(3)
    assert instance.memory_read_into(pages * PAGE - 3, buffer) == 3
    assert bytes(buffer) == instance.memory_read(pages * PAGE - 3, 3) == b"end"
    outside(lambda: instance.memory_read(pages * PAGE, 1))
    outside(lambda: instance.memory_read_into(pages * PAGE - 1, bytearray(2)))
    outside(lambda: instance.memory_write(pages * PAGE - 2, b"end"))


def test_growth_between_operations(calling):
    """However a call ends, and however many follow: what it grew is there, and no more."""
    instance = calling()
    reach(instance, 1)
    assert instance.call("grow", [1]) == [I32(1)]
    reach(instance, 2)
    assert instance.func("grow")(1) == 2
    reach(instance, 3)
    with pytest.raises(Trap):
        instance.call("grow_and_trap")
    reach(instance, 4)
    with pytest.raises(FuelExhausted):
        instance.call("grow_and_loop", fuel=100_000)
    reach(instance, 5)
    assert len(instance.call_many("trap_if", [[0]] * 3)) == 3
    reach(instance, 8)
    with pytest.raises(Trap) as caught:
        instance.call_many("trap_if", [[0], [0], [1], [0]])
    assert caught.value.row == 2
    reach(instance, 10)
    with pytest.raises(CallError):
        instance.call("grow", ["one"])
    assert instance.call("grow", [0]) == [I32(10)]
    assert instance.call("grow", [2**31 - 1]) == [I32(-1)]
    reach(instance, 10)
    instance.call("shipped", [10 * PAGE - 7])
    assert instance.memory_read(10 * PAGE - 8, 8) == b"\0shipped"


@pytest.mark.parametrize("batch", [False, True], ids=["call", "call_many"])
@pytest.mark.parametrize("used", [False, True], ids=["for the first time", "again"])
def test_growth_in_the_call_of_a_host_function(calling, batch, used):
    """A host function sees the memory of that very moment, its end, and what the guest wrote there a moment ago."""
    end, seen = 4 * PAGE, []

    def host(caller, at):
        seen.append(caller.memory_read(at, 1))
        for attempt in (lambda: caller.memory_read(end, 1), lambda: caller.memory_write(end - 1, b"xx")):
            outside(attempt)
        caller.memory_write(at, b"host")
        seen.append(caller.memory_read(at, end - at))
        return 42

    instance = calling(host)
    if used:
        assert instance.memory_read(PAGE, 0) == b""
        assert instance.call("grow", [0]) == [I32(1)]
    at = end - 4
    if batch:
        assert instance.call_many("grow_and_call", [[at]]) == [[I32(42)]]
    else:
        assert instance.call("grow_and_call", [at]) == [I32(42)]
    assert seen == [b"\7", b"host"]
    assert instance.memory_read(at, 4) == b"host"
    reach(instance, 4)


def test_growth_after_a_host_function(calling):
    """What a host function saw is no measure of what there is once the call has returned."""
    instance = calling(lambda caller, value: len(caller.memory_read(value, 1)))
    for pages in (1, 4, 7):
        assert instance.call("call_and_grow", [pages * PAGE - 1]) == [I32(pages)]
        reach(instance, pages + 3)


def test_a_start_function_and_its_host_function(host, instantiate):
    """While instantiating, too; and what it grew is there afterwards."""
    seen = []

    def f(caller):
        seen.append(caller.memory_read(2 * PAGE - 1, 1))
        caller.memory_write(2 * PAGE - 1, b"!")
        outside(lambda: caller.memory_read(2 * PAGE, 1))

    source = """(module (import "m" "f" (func $f)) (memory (export "{}") 1)
      (func $start (drop (memory.grow (i32.const 1))) (i32.store8 (i32.const 131071) (i32.const 63)) (call $f))
      (start $start))"""
    for name in ("memory", "m"):
        instance = instantiate(source.format(name), WasmImports(functions={("m", "f"): HostFunction(f)}))
        assert seen.pop() == b"?"
        assert instance.memory_read(2 * PAGE - 1, 1) == b"!"
        reach(instance, 2)


def test_two_memories_are_two(instantiate):
    """Only the exported one is read and written, however the other one grows."""
    instance = instantiate("""(module (memory $a 1) (memory $b (export "memory") 1)
      (func (export "grow") (drop (memory.grow $a (i32.const 5))) (i32.store8 $a (i32.const 0) (i32.const 65)))
      (func (export "load") (result i32) (i32.load8_u $b (i32.const 0))))""")
    instance.memory_write(0, b"b")
    instance.call("grow")
    reach(instance, 1)
    assert instance.memory_read(0, 1) == b"b"
    assert instance.call("load") == [I32(ord("b"))]


def test_a_64_bit_memory_that_grows(instantiate):
    """Such a memory may move when it grows: what was there has stayed, and the new pages are there."""
    instance = instantiate("""(module (memory (export "memory") i64 1)
      (func (export "grow") (param i64) (result i64) (memory.grow (local.get 0))))""")
    instance.memory_write(10, b"kept")
    assert instance.call("grow", [10]) == [I64(1)]
    assert instance.memory_read(10, 4) == b"kept"
    reach(instance, 11)
    assert instance.call("grow", [700]) == [I64(11)]
    assert instance.memory_read(10, 4) == b"kept"
    reach(instance, 711)
