import ctypes
import gc
import signal
import sys

import pytest

from pdsandbox.errors import (
    CallError,
    Cause,
    FuelExhausted,
    InstantiationError,
    MemoryAccessError,
)
from pdsandbox.externs import FuncType
from pdsandbox.imports import PD_TYPES, Offer, WasmImports
from pdsandbox.runtime.guest import Guest, RawFunction
from pdsandbox.runtime.hostcalls import HostCalls, RemoteOffer

NOTHING = FuncType((), ())
LOOP = """(module (import "a" "b" (func $b)) (memory (export "memory") 1)
  (func (export "f") (param i32) (loop $l (call $b)
    (br_if $l (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))))
  (func (export "ok") (result i32) i32.const 5))"""


def binder(calls=None, offers=(), remote=None, **limits):
    """A `bind` over a table of offers by import name; the HostCalls it made is appended to `calls`."""
    limits = {"host_calls": None, "host_call_bytes": None, "message_bytes": 1 << 20, **limits}
    made = []

    def bind(wanted, guest):
        if not made:
            made.append(HostCalls(guest, remote=remote, **limits))
            if calls is not None:
                calls.append(made[0])
        offer = dict(offers).get(wanted.name)
        return None if offer is None else made[0].bind(wanted, offer)

    return bind


def loop_guest(bench, fn, **limits):
    return bench.guest(LOOP, binder(offers={"b": Offer(NOTHING, fn)}, **limits))


@pytest.mark.parametrize("kind", [ValueError, SystemExit, RecursionError, MemoryError, GeneratorExit, StopIteration])
def test_whatever_a_function_raises_is_a_call_error(bench, kind):
    """The original is chained, only its class is named, and no later call sees it."""
    boom = kind("secret")

    def fn(_caller):
        raise boom

    guest = loop_guest(bench, fn)
    with pytest.raises(CallError) as caught:
        bench.call(guest, "f", 1)
    assert caught.value.message == f"host function raised {kind.__name__}"
    assert caught.value.cause is Cause.HOST_FUNCTION
    assert caught.value.__cause__ is boom
    assert guest.last_fuel > 0
    assert bench.call(guest, "ok")[0].value == 5


def test_an_interrupt_passes_unchanged(bench):
    """It is the user's, no failure of the function: the very object comes out, while instantiating as well."""
    error = KeyboardInterrupt()

    def fn(_caller):
        raise error

    guest = loop_guest(bench, fn)
    with pytest.raises(type(error)) as caught:
        bench.call(guest, "f", 1)
    assert caught.value is error
    assert bench.call(guest, "ok")[0].value == 5
    with pytest.raises(type(error)) as caught:
        bench.guest('(module (import "a" "b" (func $b)) (start $b))', binder(offers={"b": Offer(NOTHING, fn)}))
    assert caught.value is error


def test_a_function_that_raises_in_the_start_function(bench):
    """Instantiation fails, cause HOST_FUNCTION, with the original chained."""
    boom = ValueError("x")

    def fn(_caller):
        raise boom

    with pytest.raises(InstantiationError, match="host function raised ValueError") as caught:
        bench.guest('(module (import "a" "b" (func $b)) (start $b))', binder(offers={"b": Offer(NOTHING, fn)}))
    assert caught.value.cause is Cause.HOST_FUNCTION
    assert caught.value.__cause__ is boom


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
def test_a_signal_that_waits_at_the_door(bench):
    """Ctrl-C while the guest computes is raised as the next host function is entered, before its `try`: it must come
    out of the call as KeyboardInterrupt and not crash."""
    entered = []
    text = """(module (import "a" "b" (func $b)) (func (export "f") (param i32)
      (loop $l (br_if $l (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))) call $b)
      (func (export "ok") (result i32) i32.const 5))"""
    guest = bench.guest(text, lambda wanted, _guest: RawFunction(wanted.type, entered.append))

    def interrupt(_number, _frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(5):
            with pytest.raises(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, 0.01)
                bench.call(guest, "f", 200_000_000, fuel=2**60)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert entered == []
    assert bench.call(guest, "ok")[0].value == 5


def test_typed_arguments_and_results(bench):
    """Integers arrive signed, floats as floats, several results go back as a tuple."""
    got = []
    offer = Offer(
        FuncType(("i32", "i64", "f32", "f64"), ("f64", "i32")), lambda _c, *args: got.append(args) or (1.5, -7)
    )
    text = """(module (import "a" "b" (func $b (param i32 i64 f32 f64) (result f64 i32)))
      (func (export "f") (result f64 i32)
        (call $b (i32.const -1) (i64.const -2) (f32.const 0.5) (f64.const 2.5))))"""
    results = bench.call(bench.guest(text, binder(offers={"b": offer})), "f")
    assert got == [(-1, -2, 0.5, 2.5)]
    assert [results[0].to_float(), results[1].value] == [1.5, -7]


@pytest.mark.parametrize("value", ["x", None, 2**31, 1.5, (1, 2)])
def test_a_wrong_result_is_the_functions_failure(bench, value):
    """The wrong type, range or count ends the call with cause HOST_FUNCTION."""
    text = '(module (import "a" "b" (func $b (result i32))) (func (export "f") (result i32) call $b))'
    guest = bench.guest(text, binder(offers={"b": Offer(FuncType((), ("i32",)), lambda _c: value)}))
    with pytest.raises(CallError, match="returned what it must not") as caught:
        bench.call(guest, "f")
    assert caught.value.cause is Cause.HOST_FUNCTION


def test_host_call_count_limit(bench):
    """Exactly the limit passes; one more ends the call, and the next call starts anew."""
    made = []
    guest = loop_guest(bench, lambda _c: None, calls=made, host_calls=1000)
    bench.call(guest, "f", 1000)
    made[0].reset()
    with pytest.raises(CallError, match="host-call limit of 1,000 per call exceeded") as caught:
        bench.call(guest, "f", 1001)
    assert (caught.value.cause, caught.value.limit, caught.value.observed) == (Cause.HOST_FUNCTION, 1000, 1001)
    made[0].reset()
    bench.call(guest, "f", 1000)


SEND = """(module (import "env" "pd_send" (func $s (param i32 i32 i32 i32) (result i32)))
  (import "pd" "pd_log" (func $l (param i32 i32 i32))) (import "env" "pd_now_micros" (func $n (result i64)))
  (memory (export "memory") 1) (data (i32.const 0) "envelopepayload")
  (func (export "s") (param i32 i32 i32 i32) (result i32)
    (call $s (local.get 0) (local.get 1) (local.get 2) (local.get 3)))
  (func (export "l") (param i32 i32 i32) (call $l (local.get 0) (local.get 1) (local.get 2)))
  (func (export "n") (result i64) call $n))"""


def pd_offers(**functions):
    imports = WasmImports(**functions)
    return {name: imports.offer("env", name) for name in PD_TYPES}


def test_pd_functions_get_copies(bench):
    """Bytes and levels reach the callbacks; results reach the guest; time wraps to a signed i64."""
    got = []
    offers = pd_offers(
        pd_send=lambda e, p: got.append((e, p)) or -3,
        pd_log=lambda level, text: got.append((level, text)) or "ignored",
        pd_now_micros=lambda: 2**64 + 2**63,
    )
    guest = bench.guest(SEND, binder(offers=offers))
    assert bench.call(guest, "s", 0, 8, 8, 7)[0].value == -3
    bench.call(guest, "l", -1, 8, 3)
    assert bench.call(guest, "n")[0].value == -(2**63)
    assert got == [(b"envelope", b"payload"), (-1, b"pay")]


@pytest.mark.parametrize("functions", [{}, {"pd_send": lambda _e, _p: 1, "pd_log": lambda _n, _m: None}])
@pytest.mark.parametrize("args", [(0, 65537, 0, 0), (0, 0, -1, 1), (65536, 1, 0, 0), (-1, -1, 0, 0)])
def test_bad_pointers_end_the_call(bench, functions, args):
    """A pointer outside the memory is a MemoryAccessError, for stubs too."""
    guest = bench.guest(SEND, binder(offers=pd_offers(**functions)))
    with pytest.raises(MemoryAccessError):
        bench.call(guest, "s", *args)
    with pytest.raises(MemoryAccessError):
        bench.call(guest, "l", 0, 65530, 7)
    assert bench.call(guest, "n")[0].value == 0


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, "x", None])
def test_pd_send_must_answer_an_i32(bench, value):
    """Anything else is the callback's failure."""
    guest = bench.guest(SEND, binder(offers=pd_offers(pd_send=lambda _e, _p: value)))
    with pytest.raises(CallError, match="pd_send") as caught:
        bench.call(guest, "s", 0, 0, 0, 0)
    assert caught.value.cause is Cause.HOST_FUNCTION


def test_message_and_byte_limits(bench):
    """One message, and all bytes of a call, pass at their limit and end the call beyond it."""
    made = []
    guest = bench.guest(SEND, binder(made, pd_offers(), message_bytes=100, host_call_bytes=264))
    assert bench.call(guest, "s", 0, 50, 50, 50)[0].value == 0
    with pytest.raises(CallError, match="101 bytes is over the limit of 100") as caught:
        bench.call(guest, "s", 0, 50, 50, 51)
    assert caught.value.limit == 100
    made[0].reset()
    bench.call(guest, "s", 0, 68, 0, 0)  # 64 bytes of slots and 68 of data, twice: exactly 264
    bench.call(guest, "s", 0, 68, 0, 0)
    with pytest.raises(CallError, match="host-call limit of 264 bytes per call exceeded") as caught:
        bench.call(guest, "s", 0, 0, 0, 0)
    assert (caught.value.limit, caught.value.cause) == (264, Cause.HOST_FUNCTION)


def test_the_caller(bench):
    """Offsets are taken modulo 2**32; its own MemoryAccessError ends the call as such; afterwards it is dead."""
    kept = []

    def fn(caller):
        kept.append(caller)
        caller.memory_write(2**32 + 1, b"hi")
        assert caller.memory_read(1 - 2**32, 2) == b"hi"
        with pytest.raises(MemoryAccessError):
            caller.memory_read(0, 65537)
        caller.memory_read(-1, 1)

    guest = loop_guest(bench, fn)
    with pytest.raises(MemoryAccessError):
        bench.call(guest, "f", 1)
    with pytest.raises(CallError, match="only until its host function returns") as caught:
        kept[0].memory_read(0, 1)
    assert caught.value.cause is Cause.USAGE


def test_a_memory_error_of_the_functions_own(bench):
    """A MemoryAccessError that the function made itself is a failure of the function."""

    def fn(_caller):
        raise MemoryAccessError

    with pytest.raises(CallError, match="host function raised MemoryAccessError"):
        bench.call(loop_guest(bench, fn), "f", 1)


def test_remote_offers(bench):
    """A remote gets index, sizes, where the slots are and copied bytes; only pd_log needs no answer. What it raises
    passes unchanged."""
    got = []
    boom = RuntimeError("gone")

    class Remote:
        def bind(self, index, nargs, nresults, *, blobs, answered):
            def ask(address, copied):
                assert bool(copied) is blobs
                got.append((index, nargs, copied, nresults, answered))
                if index == 2:
                    raise boom
                ctypes.memmove(address, b"\x05" + bytes(nresults - 1), nresults)

            return ask

    offers = {name: RemoteOffer(type_, i, name) for i, (name, type_) in enumerate(PD_TYPES.items())}
    guest = bench.guest(SEND, binder(offers=offers, remote=Remote()))
    assert bench.call(guest, "s", 0, 8, 8, 7)[0].value == 5
    assert bench.call(guest, "n")[0].value == 5
    with pytest.raises(RuntimeError) as caught:
        bench.call(guest, "l", 1, 0, 3)
    assert caught.value is boom
    assert got == [(0, 64, (b"envelope", b"payload"), 16, True), (1, 0, (), 16, True), (2, 48, (b"env",), 0, False)]


def test_imports_that_do_not_fit(bench):
    """A mistyped import names both types; the same import twice is fine; twice with two types is not."""
    offers = {"b": Offer(NOTHING, lambda _c: None)}
    with pytest.raises(
        InstantiationError, match=r'"a"."b" has type \(i32\) -> \(\), but the host function has \(\) -> \(\)'
    ):
        bench.guest('(module (import "a" "b" (func (param i32))))', binder(offers=offers))
    bench.guest('(module (import "a" "b" (func)) (import "a" "b" (func)))', binder(offers=offers))
    with pytest.raises(InstantiationError, match="but the host function has"):
        bench.guest('(module (import "a" "b" (func)) (import "a" "b" (func (param i64))))', binder(offers=offers))


def test_fuel_runs_out_between_host_calls(bench):
    """A loop of host calls is stopped by fuel like any other."""
    guest = loop_guest(bench, lambda _c: None)
    with pytest.raises(FuelExhausted):
        bench.call(guest, "f", 2**31 - 1, fuel=5000)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("closing", [True, False])
def test_two_thousand_guests_leave_nothing(bench, closing):
    """Memory of guests that trapped, failed to link and raised comes back, closed or merely dropped."""
    module = bench.compile(LOOP)

    def fail(_caller):
        raise ValueError

    def rss():
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * 4096

    def once():
        guest = Guest(bench.engine, memory_bytes=1 << 20, memories=1, table_elements=10)
        guest.instantiate(module, binder(offers={"b": Offer(NOTHING, fail)}), None)
        with pytest.raises(CallError):
            bench.call(guest, "f", 1)
        with pytest.raises(FuelExhausted):
            bench.call(guest, "f", 1, fuel=1)
        if closing:
            guest.close()
        broken = Guest(bench.engine, memory_bytes=1, memories=1, table_elements=10)
        with pytest.raises(InstantiationError):
            broken.instantiate(module, binder(offers={"b": Offer(NOTHING, fail)}), None)

    for _ in range(200):
        once()
    gc.collect()
    before = rss()
    for _ in range(1000):
        once()
    gc.collect()
    assert rss() - before < 4 << 20
