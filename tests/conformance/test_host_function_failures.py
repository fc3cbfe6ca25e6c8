"""Host functions that fail: whatever they raise or answer ends the call, and only the call."""

from __future__ import annotations

import asyncio
import sys

import pytest

from pdsandbox import (
    I32,
    I64,
    CallError,
    Cause,
    FuelExhausted,
    GuestExit,
    HostFunction,
    MemoryAccessError,
    Trap,
    WasmImports,
    WorkerCrashed,
)

ONE = """(module (import "env" "callback" (func $callback (param i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "run") (param i32) (result i32) (call $callback (local.get 0)))
  (func (export "ok") (result i32) (i32.const 42)))"""


class Rude(BaseException):
    """An exception that no `except Exception` sees."""


def importing(fn, params=("i32",), results=("i32",)):
    """Imports with `fn` as env.callback."""
    return WasmImports(functions={("env", "callback"): HostFunction(fn, params, results)})


def failed(instance, *call):
    """The CallError, cause HOST_FUNCTION, after which the instance still answers."""
    with pytest.raises(CallError) as caught:
        instance.call(*call)
    assert caught.value.cause is Cause.HOST_FUNCTION
    assert instance.alive
    assert instance.call("ok", []) == [I32(42)]
    return caught.value


def recurse(depth=0):
    return recurse(depth + 1)


RAISED = [
    Exception("plain"),
    ValueError("bad \x1b[31m value"),
    KeyError(1),
    StopIteration(),
    AssertionError(),
    MemoryError(),
    RecursionError("made up"),
    SystemExit(3),
    GeneratorExit(),
    asyncio.CancelledError(),
    Rude("rude"),
    CallError("of our own", cause=Cause.CLOSED),
    Trap("made up"),
    FuelExhausted(),
    MemoryAccessError(),
    GuestExit("guest exited with 3", exit_code=3),
    WorkerCrashed("worker crashed: SIGSEGV"),
    OSError(2, "no such file"),
    ExceptionGroup("several", [ValueError(1)]),
]


@pytest.mark.parametrize("original", RAISED, ids=lambda original: type(original).__name__)
def test_whatever_a_callback_raises_ends_the_call(instantiate, original):
    """Cause HOST_FUNCTION, the very exception chained; the instance and the next callback are not touched by it."""
    raising = [True]

    def callback(caller, value):
        if raising[0]:
            raise original
        return value

    instance = instantiate(ONE, importing(callback))
    for _ in range(3):
        assert failed(instance, "run", [1]).__cause__ is original
    raising.clear()
    raising.append(False)
    assert instance.call("run", [5]) == [I32(5)]


def test_a_real_recursion_error(instantiate):
    """Python's own limit, hit inside a callback, does no more than any other exception."""
    instance = instantiate(ONE, importing(lambda caller, value: recurse()))
    assert isinstance(failed(instance, "run", [1]).__cause__, RecursionError)


def test_sys_exit_in_a_callback_does_not_end_the_program(instantiate):
    """It is an exception like any other."""
    instance = instantiate(ONE, importing(lambda caller, value: sys.exit(5)))
    assert failed(instance, "run", [1]).__cause__.code == 5


def test_keyboard_interrupt_goes_through(instantiate):
    """Who presses Ctrl-C inside a callback means the program."""

    def callback(caller, value):
        raise KeyboardInterrupt

    instance = instantiate(ONE, importing(callback))
    with pytest.raises(KeyboardInterrupt):
        instance.call("run", [1])


@pytest.mark.parametrize("answer", [None, "1", 1.0, b"1", (1,), [], 2**31, -(2**31) - 1, 2**200, I64(1)], ids=repr)
def test_a_result_of_the_wrong_type_or_range(instantiate, answer):
    """It ends the call like an exception, and the message tells what was wrong."""
    error = failed(instantiate(ONE, importing(lambda caller, value: answer)), "run", [1])
    assert "result" in error.message


@pytest.mark.parametrize("answer", [None, 1, (1,), (1, 2, 3), (1, 2**63), "ab"], ids=repr)
def test_a_wrong_number_of_results(instantiate, answer):
    """A function with two results answers with a pair."""
    instance = instantiate(
        """(module (import "env" "callback" (func $f (result i32 i64)))
          (func (export "run") (result i32 i64) (call $f)) (func (export "ok") (result i32) (i32.const 42)))""",
        importing(lambda caller: answer, (), ("i32", "i64")),
    )
    assert "result" in failed(instance, "run", []).message


def test_a_result_that_nobody_asked_for(instantiate):
    """A function without results answers None."""
    instance = instantiate(
        """(module (import "env" "callback" (func $f)) (func (export "run") (call $f))
          (func (export "ok") (result i32) (i32.const 42)))""",
        importing(lambda caller: 5, (), ()),
    )
    assert "result" in failed(instance, "run", []).message


def test_a_callback_with_a_wrong_number_of_parameters(instantiate):
    """Python's TypeError is chained."""
    error = failed(instantiate(ONE, importing(lambda: 1)), "run", [1])
    assert isinstance(error.__cause__, TypeError)


def test_the_guest_cannot_catch_a_host_functions_failure(instantiate, wat):
    """A handler for all exceptions does not get the host's: the call ends there, its state untouched."""

    def callback(caller):
        raise ValueError("secret")

    instance = instantiate(wat("catches_everything"), importing(callback, (), ()))
    failed(instance, "run", [])
    assert instance.call("survived", []) == [I32(0)]


def test_the_message_names_the_function_and_not_what_it_said(instantiate):
    """A message is safe to show: the original's text is on the original alone."""

    def callback(caller, value):
        raise ValueError("secret token")

    error = failed(instantiate(ONE, importing(callback)), "run", [1])
    assert "secret" not in error.message
    assert str(error.__cause__) == "secret token"


def test_an_exception_does_not_surface_in_a_later_call(instantiate, wat):
    """Neither in this instance nor in another one."""

    def callback(caller, value):
        raise ValueError("first")

    first, second = instantiate(ONE, importing(callback)), instantiate(wat("divide_by_zero"))
    failed(first, "run", [1])
    with pytest.raises(Exception, match="integer divide by zero") as caught:
        second.call("run", [])
    assert caught.value.__cause__ is None
    assert second.call("ok", []) == [I32(42)]


def test_a_failure_in_the_middle_of_many_host_calls(instantiate):
    """What came before it has happened, nothing after it does."""
    seen = []

    def callback(caller, value):
        seen.append(value)
        if value == 7:
            raise LookupError(value)
        return value

    instance = instantiate(
        """(module (import "env" "callback" (func $f (param i32) (result i32)))
          (func (export "ok") (result i32) (i32.const 42))
          (func (export "run") (local $i i32)
            (loop $again
              (drop (call $f (local.get $i)))
              (local.set $i (i32.add (local.get $i) (i32.const 1)))
              (br $again))))""",
        importing(callback),
    )
    assert isinstance(failed(instance, "run", []).__cause__, LookupError)
    assert seen == list(range(8))


def test_what_is_raised_while_a_result_is_looked_at(instantiate):
    """It ends the call, chained, also if the result can be looked at the second time: a signal handler's exception
    must not be lost."""
    original = TimeoutError("of a signal handler")

    class Once:
        raised = False

        def __index__(self):
            if not self.raised:
                self.raised = True
                raise original
            return 7

    instance = instantiate(ONE, importing(lambda _caller, _number: Once()))
    for _ in range(2):
        error = failed(instance, "run", [1])
        assert error.message == "host function raised TimeoutError"
        assert error.__cause__ is original
