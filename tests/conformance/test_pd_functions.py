"""`pd_send`, `pd_now_micros` and `pd_log`: defaults, callbacks, pointers, and what a callback may answer."""

from __future__ import annotations

import pytest

from pdsandbox import I32, I64, CallError, Cause, HostFunction, MemoryAccessError, WasmImports

PAGE = 65536
BOTH = """(module
  (import "env" "pd_send" (func $send (param i32 i32 i32 i32) (result i32)))
  (import "env" "pd_now_micros" (func $now (result i64)))
  (import "env" "pd_log" (func $log (param i32 i32 i32)))
  (import "pd" "pd_send" (func $send2 (param i32 i32 i32 i32) (result i32)))
  (import "pd" "pd_now_micros" (func $now2 (result i64)))
  (import "pd" "pd_log" (func $log2 (param i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "envelopepayload")
  (func (export "send") (result i32)
    (call $send (i32.const 16) (i32.const 8) (i32.const 24) (i32.const 7)))
  (func (export "send2") (result i32)
    (call $send2 (i32.const 16) (i32.const 8) (i32.const 24) (i32.const 7)))
  (func (export "now") (result i64) (call $now))
  (func (export "now2") (result i64) (call $now2))
  (func (export "log") (param i32) (call $log (local.get 0) (i32.const 16) (i32.const 8)))
  (func (export "log2") (param i32) (call $log2 (local.get 0) (i32.const 16) (i32.const 8)))
  (func (export "ok") (result i32) (i32.const 42)))"""


def failed(instance, *call):
    """The CallError, cause HOST_FUNCTION, after which the instance still answers."""
    with pytest.raises(CallError) as caught:
        instance.call(*call)
    assert caught.value.cause is Cause.HOST_FUNCTION
    assert instance.alive
    assert instance.call("ok", []) == [I32(42)]
    return caught.value


def test_the_defaults_are_stubs(instantiate):
    """0, 0 and nothing, under both import modules."""
    instance = instantiate(BOTH)
    for suffix in ("", "2"):
        assert instance.call("send" + suffix, []) == [I32(0)]
        assert instance.call("now" + suffix, []) == [I64(0)]
        assert instance.call("log" + suffix, [1]) == []


def test_callbacks_run_here_and_see_bytes(instantiate):
    """Closures keep their state; envelope, payload and message arrive as bytes, under both import modules."""
    seen = []

    def send(envelope, payload):
        seen.append((envelope, payload))
        return -len(seen)

    imports = WasmImports(pd_send=send, pd_now_micros=lambda: 1234567, pd_log=lambda *args: seen.append(args))
    instance = instantiate(BOTH, imports)
    assert instance.call("send", []) == [I32(-1)]
    assert instance.call("send2", []) == [I32(-2)]
    assert instance.call("now", []) == instance.call("now2", []) == [I64(1234567)]
    instance.call("log", [3])
    instance.call("log2", [-1])
    assert seen == [(b"envelope", b"payload")] * 2 + [(3, b"envelope"), (-1, b"envelope")]
    assert {type(each) for pair in seen[:2] for each in pair} == {bytes}


@pytest.mark.parametrize(
    ("micros", "expected"),
    [
        (2**63 - 1, 2**63 - 1),
        (2**63, -(2**63)),
        (2**64 - 1, -1),
        (2**64, 0),
        (2**64 + 5, 5),
        (2**200 + 7, 7),
        (-1, -1),
    ],
)
def test_the_time_is_wrapped_to_64_bits(instantiate, micros, expected):
    """`pd_now_micros` is a u64, taken modulo 2**64; the guest's i64 is read as signed."""
    assert instantiate(BOTH, WasmImports(pd_now_micros=lambda: micros)).call("now", []) == [I64(expected)]


@pytest.mark.parametrize("answer", [2**31 - 1, -(2**31), 0, True], ids=repr)
def test_what_pd_send_may_answer(instantiate, answer):
    """Every i32."""
    assert instantiate(BOTH, WasmImports(pd_send=lambda *_: answer)).call("send", []) == [I32(int(answer))]


@pytest.mark.parametrize("answer", [2**31, -(2**31) - 1, 1.0, "0", None, b"", (0,), 2**200], ids=repr)
def test_what_pd_send_may_not_answer(instantiate, answer):
    """A wrong type or range ends the call; the guest sees nothing of it."""
    failed(instantiate(BOTH, WasmImports(pd_send=lambda *_: answer)), "send", [])


@pytest.mark.parametrize("answer", [1.0, "0", None, b""], ids=repr)
def test_what_pd_now_micros_may_not_answer(instantiate, answer):
    """Only an integer is a time."""
    failed(instantiate(BOTH, WasmImports(pd_now_micros=lambda: answer)), "now", [])


@pytest.mark.parametrize("call", ["send", "now"])
def test_an_answer_that_breaks_when_it_is_looked_at(instantiate, call):
    """What its `__index__` raises is the callback's failure, chained."""

    class Broken:
        def __index__(self):
            raise LookupError("secret")

    error = failed(instantiate(BOTH, WasmImports(pd_send=lambda *_: Broken(), pd_now_micros=Broken)), call, [])
    assert isinstance(error.__cause__, LookupError)
    assert "secret" not in error.message


def test_a_callback_with_a_wrong_signature_fails_the_call(instantiate):
    """A TypeError of Python's own is an exception like any other."""
    error = failed(instantiate(BOTH, WasmImports(pd_log=lambda: None)), "log", [1])
    assert isinstance(error.__cause__, TypeError)


def test_functions_win_over_pd_functions_of_the_same_name(instantiate):
    """For that import module alone, with the type that was given for it."""
    imports = WasmImports(
        pd_now_micros=lambda: 1,
        functions={("env", "pd_now_micros"): HostFunction(lambda caller: 2, results=("i64",))},
    )
    instance = instantiate(BOTH, imports)
    assert instance.call("now", []) == [I64(2)]
    assert instance.call("now2", []) == [I64(1)]


@pytest.mark.parametrize(("pointer", "length"), [(0, PAGE), (PAGE, 0), (PAGE - 1, 1), (0, 0)])
def test_pointers_up_to_the_exact_end(instantiate, wat, pointer, length):
    """The whole memory may be handed over, and nothing at its end."""
    logged = []
    instance = instantiate(wat("bad_pointers"), WasmImports(pd_log=lambda level, message: logged.append(message)))
    instance.call("log", [1, pointer, length])
    assert logged == [bytes(length)]


@pytest.mark.parametrize(
    ("pointer", "length"), [(PAGE, 1), (PAGE - 1, 2), (0, PAGE + 1), (-1, 1), (0, -1), (-1, -1), (1, -1), (PAGE + 1, 0)]
)
def test_pointers_outside_the_memory(instantiate, wat, pointer, length):
    """Pointers and lengths are unsigned; outside, the call ends, the callback is not called, the instance lives."""
    called = []
    imports = WasmImports(pd_log=lambda *args: called.append(args), pd_send=lambda *args: called.append(args) or 0)
    instance = instantiate(wat("bad_pointers"), imports)
    for call in (
        ("log", [1, pointer, length]),
        ("send", [pointer, length, 0, 0]),
        ("send", [0, 0, pointer, length]),
    ):
        with pytest.raises(MemoryAccessError) as caught:
            instance.call(*call)
        assert caught.value.cause is Cause.MEMORY
        assert instance.alive
        assert instance.call("ok", []) == [I32(42)]
    assert called == []


def test_what_a_callback_got_does_not_change_with_the_guests_memory(instantiate):
    """Bytes are copied before the callback sees them."""
    kept = []
    instance = instantiate(BOTH, WasmImports(pd_log=lambda level, message: kept.append(message)))
    instance.call("log", [1])
    instance.memory_write(16, b"OVERWRIT")
    instance.call("log", [1])
    assert kept == [b"envelope", b"OVERWRIT"]


def test_pd_pointers_mean_the_exported_memory(instantiate):
    """The memory of `memory_read` is the one that pointers point into."""
    logged = []
    instance = instantiate(
        """(module (import "env" "pd_log" (func $log (param i32 i32 i32)))
          (memory $a 1) (memory $b 1) (export "m" (memory $b)) (data (memory $b) (i32.const 0) "b")
          (func (export "log") (call $log (i32.const 0) (i32.const 0) (i32.const 1))))""",
        WasmImports(pd_log=lambda level, message: logged.append(message)),
    )
    instance.call("log", [])
    assert logged == [b"b"]


def test_a_pointer_without_a_memory(instantiate):
    """A module that exports no memory has nothing to point into."""
    instance = instantiate(
        """(module (import "env" "pd_log" (func $log (param i32 i32 i32)))
          (func (export "log") (call $log (i32.const 0) (i32.const 0) (i32.const 1))))""",
        WasmImports(pd_log=lambda *_: None),
    )
    with pytest.raises(MemoryAccessError):
        instance.call("log", [])
