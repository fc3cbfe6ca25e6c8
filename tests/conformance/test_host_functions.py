"""`HostFunction`: types, several results, the caller's memory, re-entry, other instances."""

from __future__ import annotations

import math

import pytest

from pdsandbox import (
    F32,
    F64,
    I32,
    I64,
    CallError,
    Capability,
    Cause,
    HostFunction,
    MemoryAccessError,
    WasmError,
    WasmImports,
)

PAGE = 65536
ONE = """(module (import "env" "callback" (func $callback (param i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "run") (param i32) (result i32) (call $callback (local.get 0)))
  (func (export "ok") (result i32) (i32.const 42)))"""


def importing(fn, params=("i32",), results=("i32",)):
    """Imports with `fn` as env.callback."""
    return WasmImports(functions={("env", "callback"): HostFunction(fn, params, results)})


def test_integers_arrive_signed_and_floats_as_floats(instantiate):
    """All four types, at their extremes, in both directions."""
    seen = []

    def callback(caller, *args):
        seen.append(args)
        return args[::-1]

    instance = instantiate(
        """(module (import "env" "callback" (func $f (param i32 i64 f32 f64) (result f64 f32 i64 i32)))
          (func (export "run") (param i32 i64 f32 f64) (result f64 f32 i64 i32)
            (call $f (local.get 0) (local.get 1) (local.get 2) (local.get 3))))""",
        importing(callback, ("i32", "i64", "f32", "f64"), ("f64", "f32", "i64", "i32")),
    )
    for args in [(-1, -1, 0.5, -0.5), (2**31 - 1, 2**63 - 1, math.inf, 1e300), (-(2**31), -(2**63), -0.0, 5e-324)]:
        assert instance.func("run")(*args) == args[::-1]
        assert seen[-1] == args
        assert [type(each) for each in seen[-1]] == [int, int, float, float]


def test_no_result_one_and_several(instantiate):
    """None, a bare value, a tuple, a list."""
    source = """(module (import "env" "none" (func $none)) (import "env" "one" (func $one (result i64)))
      (import "env" "three" (func $three (result i32 i32 i32))) (import "env" "list" (func $list (result i32 i32)))
      (func (export "none") (call $none)) (func (export "one") (result i64) (call $one))
      (func (export "three") (result i32 i32 i32) (call $three))
      (func (export "list") (result i32 i32) (call $list)))"""
    functions = {
        ("env", "none"): HostFunction(lambda caller: None),
        ("env", "one"): HostFunction(lambda caller: -5, results=("i64",)),
        ("env", "three"): HostFunction(lambda caller: (1, -2, 3), results=("i32",) * 3),
        ("env", "list"): HostFunction(lambda caller: [4, 5], results=("i32",) * 2),
    }
    instance = instantiate(source, WasmImports(functions=functions))
    assert instance.call("none", []) == []
    assert instance.call("one", []) == [I64(-5)]
    assert instance.call("three", []) == [I32(1), I32(-2), I32(3)]
    assert instance.call("list", []) == [I32(4), I32(5)]


def test_results_may_be_wasm_values(instantiate):
    """So a NaN's payload can be chosen, which a Python float cannot carry."""
    value = F32(0x7FA00001)
    instance = instantiate(
        """(module (import "env" "callback" (func $f (result f32 f64)))
          (func (export "run") (result f32 f64) (call $f)))""",
        importing(lambda caller: (value, F64(0x7FF4000000000001)), (), ("f32", "f64")),
    )
    assert instance.call("run", []) == [value, F64(0x7FF4000000000001)]


def test_the_caller_reads_and_writes_the_guests_memory(instantiate):
    """While the call lasts, up to the exact end."""

    def callback(caller, offset):
        before = caller.memory_read(offset, 4)
        caller.memory_write(offset, before[::-1])
        caller.memory_write(PAGE - 1, b"!")
        assert caller.memory_read(0, PAGE)[-1:] == b"!"
        assert caller.memory_read(PAGE, 0) == b""
        return int.from_bytes(before, "little")

    instance = instantiate(ONE, importing(callback))
    instance.memory_write(8, b"abcd")
    assert instance.call("run", [8]) == [I32(int.from_bytes(b"abcd", "little"))]
    assert instance.memory_read(8, 4) == b"dcba"
    assert instance.memory_read(PAGE - 1, 1) == b"!"


def test_the_callers_offsets_are_taken_modulo_2_to_the_32(instantiate):
    """A pointer that arrived as a negative i32 is the high address that the guest meant."""
    read = []

    def callback(caller, offset):
        read.append(caller.memory_read(offset + 2**32, 4))
        caller.memory_write(offset - 2**32, b"back")
        with pytest.raises(MemoryAccessError):
            caller.memory_read(-1, 1)
        with pytest.raises(MemoryAccessError):
            caller.memory_write(-1, b"x")
        return 0

    instance = instantiate(ONE, importing(callback))
    instance.memory_write(8, b"data")
    assert instance.call("run", [8]) == [I32(0)]
    assert read == [b"data"]
    assert instance.memory_read(8, 4) == b"back"


@pytest.mark.parametrize("attempt", ["read", "write"])
def test_a_pointer_of_the_guests_outside_its_memory(instantiate, attempt):
    """What the caller's memory refuses is a MemoryAccessError also outside the callback; the instance lives."""

    def callback(caller, offset):
        if attempt == "read":
            caller.memory_read(offset, 1)
        caller.memory_write(offset, b"x")
        return 0

    instance = instantiate(ONE, importing(callback))
    for offset in (PAGE, -1, -(2**31)):
        with pytest.raises(MemoryAccessError) as caught:
            instance.call("run", [offset])
        assert caught.value.cause is Cause.MEMORY
        assert instance.alive
    assert instance.call("run", [0]) == [I32(0)]


def test_a_callback_may_handle_a_bad_pointer_itself(instantiate):
    """Caught there, the call goes on."""

    def callback(caller, offset):
        try:
            return len(caller.memory_read(offset, 1))
        except MemoryAccessError:
            return -1

    instance = instantiate(ONE, importing(callback))
    assert instance.call("run", [PAGE]) == [I32(-1)]
    assert instance.call("run", [0]) == [I32(1)]


def test_the_caller_is_good_only_until_its_function_returns(instantiate):
    """Kept and used later, it refuses instead of touching memory."""
    kept = []

    def callback(caller, value):
        kept.append(caller)
        return value

    instance = instantiate(ONE, importing(callback))
    instance.call("run", [1])
    for attempt in (lambda: kept[0].memory_read(0, 1), lambda: kept[0].memory_write(0, b"x")):
        with pytest.raises((WasmError, RuntimeError)):
            attempt()
    assert instance.memory_read(0, 1) == b"\0"
    assert instance.call("ok", []) == [I32(42)]


def test_memory_without_an_exported_one(instantiate):
    """A guest that exports no memory has none for its host functions either."""

    def callback(caller, value):
        with pytest.raises(MemoryAccessError):
            caller.memory_read(0, 0)
        return 3

    instance = instantiate(ONE.replace('(export "memory")', ""), importing(callback))
    assert instance.call("run", [0]) == [I32(3)]


def test_reentry_is_refused_at_once(instantiate):
    """An instance cannot be called from inside its own host function; caught there, the call goes on."""
    seen = []

    def callback(caller, value):
        for attempt in (
            lambda: instance.call("ok", []),
            lambda: instance.call_many("ok", [[]]),
            lambda: instance.func("run")(0),
        ):
            with pytest.raises(CallError) as caught:
                attempt()
            seen.append(caught.value.cause)
        return value + 1

    instance = instantiate(ONE, importing(callback))
    assert instance.call("run", [1]) == [I32(2)]
    assert seen == [Cause.USAGE] * 3
    assert instance.call("ok", []) == [I32(42)]


def test_reentry_that_nobody_catches_fails_the_call(instantiate):
    """Then the callback has raised, and its exception is chained."""

    def callback(caller, value):
        return instance.call("ok", [])[0].value

    instance = instantiate(ONE, importing(callback))
    with pytest.raises(CallError) as caught:
        instance.call("run", [1])
    assert caught.value.cause is Cause.HOST_FUNCTION
    assert isinstance(caught.value.__cause__, CallError)
    assert caught.value.__cause__.cause is Cause.USAGE
    assert instance.call("ok", []) == [I32(42)]


@pytest.mark.requires(Capability.INDEPENDENCE)
def test_another_instance_may_be_called_from_a_host_function(instantiate, wat):
    """Calls nest through several instances, traps of the inner one included."""
    inner = instantiate(ONE, importing(lambda caller, value: value * 2))
    bad = instantiate(wat("unreachable"))

    def callback(caller, value):
        with pytest.raises(WasmError, match="unreachable"):
            bad.call("run", [])
        return inner.call("run", [value])[0].value + 1

    outer = instantiate(ONE, importing(callback))
    assert outer.call("run", [5]) == [I32(11)]
    assert outer.call("run", [6]) == [I32(13)]


def test_an_inner_instances_error_is_chained_to_the_outer_calls(instantiate, wat):
    """A callback that lets an inner trap through has raised: HOST_FUNCTION outside, the trap as its reason."""
    bad = instantiate(wat("divide_by_zero"))
    outer = instantiate(ONE, importing(lambda caller, value: bad.call("run", [])))
    with pytest.raises(CallError) as caught:
        outer.call("run", [5])
    assert caught.value.cause is Cause.HOST_FUNCTION
    assert caught.value.__cause__.cause is Cause.GUEST_TRAP
    assert outer.call("ok", []) == bad.call("ok", []) == [I32(42)]


def test_a_callback_may_compile_and_instantiate(host, instantiate):
    """The host itself is free while one of its instances waits for a callback."""

    def callback(caller, value):
        with host.instantiate(host.compile(ONE.replace("42", "43")), importing(lambda caller, x: x)) as fresh:
            return fresh.call("ok", [])[0].value + value

    assert instantiate(ONE, importing(callback)).call("run", [1]) == [I32(44)]


def test_many_host_calls_in_one_call(instantiate):
    """Thousands of host calls within one call, each with the right value."""
    seen = []
    instance = instantiate(
        """(module (import "env" "callback" (func $f (param i32) (result i32)))
          (func (export "run") (param $n i32) (result i32) (local $i i32) (local $sum i32)
            (loop $again
              (local.set $sum (i32.add (local.get $sum) (call $f (local.get $i))))
              (local.set $i (i32.add (local.get $i) (i32.const 1)))
              (br_if $again (i32.lt_s (local.get $i) (local.get $n))))
            (local.get $sum)))""",
        importing(lambda caller, value: seen.append(value) or value * 3),
    )
    assert instance.call("run", [5000]) == [I32(3 * sum(range(5000)))]
    assert seen == list(range(5000))
