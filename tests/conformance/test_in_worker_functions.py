"""Host functions that run in the sandbox: shipped by value, so nothing that they change comes back."""

from __future__ import annotations

import threading

import pytest

from pdsandbox import F64, I32, CallError, Cause, HostFunction, MemoryAccessError, WasmImports, in_worker

ONE = """(module (import "env" "callback" (func $callback (param i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "run") (param i32) (result i32) (call $callback (local.get 0)))
  (func (export "ok") (result i32) (i32.const 42)))"""
COUNTS = {"calls": 0}
FACTOR = 3


def importing(fn, params=("i32",), results=("i32",)):
    """Imports with `fn` as env.callback, shipped to the worker."""
    return WasmImports(functions={("env", "callback"): HostFunction(in_worker(fn), params, results)})


def helper(value):
    return value * FACTOR


def count(caller, value):
    COUNTS["calls"] += 1
    return helper(value) + COUNTS["calls"]


def read_and_write(caller, offset):
    data = caller.memory_read(offset, 4)
    caller.memory_write(offset + 2**32, data[::-1])
    return len(data)


def fail(caller, value):
    if value:
        raise ValueError("secret")
    return value


def failed(instance, *call):
    """The CallError, cause HOST_FUNCTION, after which the instance still answers."""
    with pytest.raises(CallError) as caught:
        instance.call(*call)
    assert caught.value.cause is Cause.HOST_FUNCTION
    assert instance.alive
    assert instance.call("ok", []) == [I32(42)]
    return caught.value


def test_what_a_shipped_function_changes_stays_there(instantiate):
    """Its globals come along as copies: they keep their state there, per instance, and ours are not touched."""
    COUNTS["calls"] = 0
    imports = importing(count)
    one, other = instantiate(ONE, imports), instantiate(ONE, imports)
    assert [one.call("run", [5])[0].value for _ in range(3)] == [16, 17, 18]
    assert other.call("run", [5]) == [I32(16)]
    assert COUNTS == {"calls": 0}


def test_a_closure_is_shipped_as_it_was(instantiate):
    """Changes made here after `in_worker` do not arrive."""
    state = [10]
    imports = importing(lambda caller, value: value + state[0])
    state[0] = 99
    assert instantiate(ONE, imports).call("run", [1]) == [I32(11)]


def test_a_shipped_function_uses_the_guests_memory(instantiate):
    """The caller is the same there as here, offsets modulo 2**32 included."""
    instance = instantiate(ONE, importing(read_and_write))
    instance.memory_write(8, b"abcd")
    assert instance.call("run", [8]) == [I32(4)]
    assert instance.memory_read(8, 4) == b"dcba"
    for offset in (65536, -1):
        with pytest.raises(MemoryAccessError):
            instance.call("run", [offset])
    assert instance.call("run", [8]) == [I32(4)]


def test_a_shipped_function_that_raises(instantiate):
    """HOST_FUNCTION, without the original's text, and the instance stays usable."""
    instance = instantiate(ONE, importing(fail))
    for _ in range(3):
        error = failed(instance, "run", [1])
        assert "secret" not in error.message
        assert instance.call("run", [0]) == [I32(0)]


@pytest.mark.parametrize(
    "exception", [SystemExit, RecursionError, MemoryError, BaseException, KeyError], ids=lambda cls: cls.__name__
)
def test_whatever_a_shipped_function_raises_ends_only_the_call(instantiate, exception):
    """Not even SystemExit ends the worker."""

    def callback(caller, value):
        raise exception(5)

    failed(instantiate(ONE, importing(callback)), "run", [1])


@pytest.mark.parametrize("answer", [None, "1", 1.0, (1,), 2**31, -(2**31) - 1], ids=repr)
def test_a_wrong_result_of_a_shipped_function(instantiate, answer):
    """Results are checked there as they are here."""
    failed(instantiate(ONE, importing(lambda caller, value: answer)), "run", [1])


def test_floats_and_several_results(instantiate):
    """The same types and the same conversions as for functions that run here."""
    instance = instantiate(
        """(module (import "env" "callback" (func $f (param f64 i64) (result f64 i64)))
          (func (export "run") (param f64 i64) (result f64 i64) (call $f (local.get 0) (local.get 1))))""",
        importing(lambda caller, x, n: (x / 2, -n), ("f64", "i64"), ("f64", "i64")),
    )
    assert instance.func("run")(3.0, 7) == (1.5, -7)
    assert instance.call("run", [F64.from_float(-0.0), 0])[0] == F64.from_float(-0.0)


def test_functions_here_and_there_side_by_side(instantiate):
    """One instance may import both kinds, and both see the same memory."""
    seen = []

    def here(caller, offset):
        seen.append(caller.memory_read(offset, 4))
        return 0

    instance = instantiate(
        """(module (import "env" "there" (func $there (param i32) (result i32)))
          (import "env" "here" (func $here (param i32) (result i32)))
          (memory (export "memory") 1) (data (i32.const 0) "abcd")
          (func (export "run") (result i32)
            (i32.add (call $there (i32.const 0)) (call $here (i32.const 0)))))""",
        WasmImports(
            functions={
                ("env", "there"): HostFunction(in_worker(read_and_write), ("i32",), ("i32",)),
                ("env", "here"): HostFunction(here, ("i32",), ("i32",)),
            }
        ),
    )
    assert instance.call("run", []) == [I32(4)]
    assert seen == [b"dcba"]


def test_the_limit_on_host_calls_holds_there_too(host_factory, instantiate):
    """Where a function runs makes no difference to how often it may be called."""
    instance = instantiate(
        """(module (import "env" "callback" (func $f (param i32) (result i32)))
          (func (export "ok") (result i32) (i32.const 42))
          (func (export "run") (param i32)
            (loop $again
              (drop (call $f (i32.const 1)))
              (local.set 0 (i32.sub (local.get 0) (i32.const 1)))
              (br_if $again (local.get 0)))))""",
        importing(lambda caller, value: value),
        on=host_factory(host_calls=50),
    )
    instance.call("run", [50])
    assert failed(instance, "run", [51]).limit == 50
    instance.call("run", [50])


def test_what_cannot_be_shipped_is_a_type_error_before_there_is_an_instance():
    """At `in_worker`, by name."""
    lock = threading.Lock()

    def locked(caller, value):
        return lock.locked()

    with pytest.raises(TypeError, match="locked"):
        importing(locked)
