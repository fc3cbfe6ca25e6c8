"""Host functions in the supervisor: in which thread they run, what they keep, what leaves them, what it ends."""

from __future__ import annotations

import contextvars
import gc
import os
import sys
import threading
import weakref

import pytest
from supervising import GUEST, Thread, expect, gone, imports, make_guest, together

from pdsandbox import (
    I32,
    CallError,
    Cause,
    GuestExit,
    HostFunction,
    InstantiationError,
    MemoryAccessError,
    WasmImports,
    WorkerCrashed,
    in_worker,
)

PD = """(module
  (import "env" "pd_send" (func $send (param i32 i32 i32 i32) (result i32)))
  (import "pd" "pd_log" (func $log (param i32 i32 i32)))
  (import "env" "pd_now_micros" (func $now (result i64)))
  (memory (export "memory") 1)
  (data (i32.const 0) "0123456789")
  (func (export "send") (param i32 i32 i32 i32) (result i32)
    (call $send (local.get 0) (local.get 1) (local.get 2) (local.get 3)))
  (func (export "log") (param i32 i32 i32) (call $log (local.get 0) (local.get 1) (local.get 2)))
  (func (export "now") (result i64) (call $now))
  (func (export "sends") (param $n i32) (local $i i32)
    (loop $l (if (i32.lt_u (local.get $i) (local.get $n)) (then
      (i32.store (i32.const 100) (local.get $i))
      (drop (call $send (i32.const 100) (i32.const 4) (i32.const 0) (i32.const 10)))
      (call $log (local.get $i) (i32.const 0) (i32.const 1))
      (local.set $i (i32.add (local.get $i) (i32.const 1))) (br $l))))))"""


def pd_guest(host, **callbacks):
    return host.instantiate(host.compile(PD), WasmImports(**callbacks))


def test_pd_functions_run_here_in_the_thread_of_the_call(host):
    """This process, the caller's own thread, with its thread-locals and its context variables."""
    seen = []
    variable = contextvars.ContextVar("variable")

    def note(*_args):
        seen.append((os.getpid(), threading.get_ident(), variable.get()))
        return 0

    instance = pd_guest(host, pd_send=note, pd_log=note, pd_now_micros=note)

    def work(name):
        variable.set(name)
        instance.call("send", [0, 1, 1, 1])
        instance.call("log", [0, 0, 1])
        instance.call_many("now", [[]])
        return [(os.getpid(), threading.get_ident(), name)] * 3

    one, other = Thread(lambda: work("one")).result(), Thread(lambda: work("other")).result()
    assert seen == one + other


def test_in_a_start_function_too(host):
    """While instantiating, the thread of the call is the one that instantiates."""
    seen = []
    source = GUEST.replace('(func (export "trap")', "(func $s (call $tell (i32.const 6))) (start $s) (func")
    module = host.compile(source)

    def work():
        host.instantiate(module, imports(tell=lambda value: seen.append((value, threading.get_ident()))))
        return threading.get_ident()

    ident = Thread(work).result()
    assert seen == [(6, ident)]


def test_closures_keep_their_state_in_order(host):
    """Sends and logs of one call arrive in the order in which the guest made them; the outbox is simply a list."""
    outbox = []
    instance = pd_guest(
        host,
        pd_send=lambda envelope, payload: outbox.append((int.from_bytes(envelope, "little"), payload)) or 0,
        pd_log=lambda level, message: outbox.append((level, message)),
    )
    instance.call("sends", [500])
    expected = [item for i in range(500) for item in ((i, b"0123456789"), (i, b"0"))]
    assert outbox == expected
    instance.call_many("sends", [[2]] * 3)
    assert outbox == expected + expected[:4] * 3


def test_each_instance_has_its_own_callbacks(host):
    """Instances of one module, each with its own imports, called at once: nobody's messages get to another's outbox."""
    boxes = [[] for _ in range(6)]
    guests = [pd_guest(host, pd_send=lambda envelope, _payload, box=box: box.append(envelope) or 0) for box in boxes]
    together(*[lambda guest=guest, n=n: guest.call("sends", [10 * n]) for n, guest in enumerate(guests)])
    assert [len(box) for box in boxes] == [0, 10, 20, 30, 40, 50]


def test_the_time_reaches_the_guest(host):
    """pd_now_micros is a u64: taken modulo 2**64, in the guest's i64."""
    times = iter([0, 1_700_000_000_000_000, 2**63, 2**64 - 1, 2**64 + 5])
    now = pd_guest(host, pd_now_micros=lambda: next(times)).func("now")
    assert [now() for _ in range(5)] == [0, 1_700_000_000_000_000, -(2**63), -1, 5]


def test_the_callers_memory(host):
    """Reads what the guest wrote, writes what the guest then sees; large blocks, many times, in one host call."""
    source = """(module (import "env" "f" (func $f (param i32 i32) (result i32))) (memory (export "memory") 64)
      (func (export "run") (param i32 i32) (result i32)
        (i32.store (local.get 0) (i32.const 0x64636261))
        (drop (call $f (local.get 0) (local.get 1)))
        (i32.load (i32.add (local.get 0) (local.get 1)))))"""

    def f(caller, offset, length):
        assert caller.memory_read(offset, 4) == b"abcd"
        block = bytes(range(256)) * (length // 256)
        for at in (2, 1, 0):
            caller.memory_write(offset + at, block)
        assert caller.memory_read(offset, length + 2) == block + block[-1:] * 2
        caller.memory_write(offset + length, (77).to_bytes(4, "little"))
        return 0

    functions = {("env", "f"): HostFunction(f, ("i32", "i32"), ("i32",))}
    instance = host.instantiate(host.compile(source), WasmImports(functions=functions))
    assert instance.call("run", [8, 3 << 20]) == [I32(77)]
    assert instance.call_many("run", [[8, 256], [16, 512]]) == [[I32(77)]] * 2


def test_a_caller_in_another_thread_is_refused(host):
    """The pipes are in use by the thread of the call: CallError at once there, and the call goes on."""
    refusals = []

    def f(caller):
        refusals.append(expect(CallError, Cause.USAGE, Thread(lambda: caller.memory_read(0, 1)).result))
        assert caller.memory_read(0, 1) == b"\0"

    source = '(module (import "env" "f" (func $f)) (memory (export "memory") 1) (func (export "run") (call $f)))'
    functions = {("env", "f"): HostFunction(f)}
    instance = host.instantiate(host.compile(source), WasmImports(functions=functions))
    assert instance.call("run") == []
    assert len(refusals) == 1


class _Secret(Exception):
    pass


RAISED = [ValueError, _Secret, SystemExit, MemoryError, RecursionError, StopIteration, GeneratorExit, BaseException]
RAISED += [CallError, MemoryAccessError, GuestExit, OSError, TimeoutError, WorkerCrashed]


@pytest.mark.parametrize("cls", RAISED, ids=lambda cls: cls.__name__)
def test_whatever_it_raises(host, cls):
    """CallError, cause HOST_FUNCTION, with the original chained and its text not told; the instance stays usable."""
    raised = []

    def fails(_value):
        raised.append(cls("a secret"))
        raise raised[-1]

    instance = make_guest(host, ask=fails, tell=fails)
    for use in (
        lambda: instance.call("ask", [1]),
        lambda: instance.func("ask")(1),
        lambda: instance.call_many("tell", [[1], [2]]),
    ):
        error = expect(CallError, Cause.HOST_FUNCTION, use)
        assert error.__cause__ is raised[-1]
        assert "secret" not in str(error)
        assert instance.call("ok") == [I32(42)]
    assert len(raised) == 3


@pytest.mark.parametrize("cls", [ValueError, SystemExit], ids=lambda cls: cls.__name__)
def test_what_it_raises_while_instantiating(host, cls):
    """InstantiationError, cause HOST_FUNCTION, with the original chained."""
    raised = cls()

    def fails(_value):
        raise raised

    module = host.compile(
        GUEST.replace('(func (export "trap")', "(func $s (call $tell (i32.const 6))) (start $s) (func")
    )
    error = expect(InstantiationError, Cause.HOST_FUNCTION, lambda: host.instantiate(module, imports(tell=fails)))
    assert error.__cause__ is raised


WRONG = {"a str": "1", "None": None, "too large": 2**31, "a list": [1], "two": (1, 2), "a float": 1.5, "nothing": ()}


@pytest.mark.parametrize("value", WRONG.values(), ids=WRONG)
def test_what_it_must_not_return(host, value):
    """CallError, cause HOST_FUNCTION; the instance stays usable."""
    instance = make_guest(host, ask=lambda _value: value)
    expect(CallError, Cause.HOST_FUNCTION, lambda: instance.call("ask", [1]))
    assert instance.call("ok") == [I32(42)]


@pytest.mark.parametrize("where", ["call", "call_many", "func"])
def test_keyboard_interrupt_leaves_through_the_call(host, where):
    """It is the user's, not the guest's: it propagates as it is, and the instance is gone, cause CANCELLED."""
    interrupt = KeyboardInterrupt("the user's")

    def interrupted(_value):
        raise interrupt

    instance, neighbour = make_guest(host, ask=interrupted), make_guest(host)
    use = {
        "call": lambda: instance.call("ask", [1]),
        "call_many": lambda: instance.call_many("ask", [[1]]),
        "func": lambda: instance.func("ask")(1),
    }[where]
    with pytest.raises(KeyboardInterrupt) as caught:
        use()
    assert caught.value is interrupt
    gone(instance, WorkerCrashed, Cause.CANCELLED)
    assert neighbour.call("ok") == [I32(42)]


def test_keyboard_interrupt_while_instantiating(host):
    """It propagates, and nothing of the instance is left (the leak fixture counts)."""

    def interrupted(_value):
        raise KeyboardInterrupt

    module = host.compile(
        GUEST.replace('(func (export "trap")', "(func $s (call $tell (i32.const 6))) (start $s) (func")
    )
    with pytest.raises(KeyboardInterrupt):
        host.instantiate(module, imports(tell=interrupted))


def _where_am_i(_caller):
    import os

    return os.getpid()


def test_here_and_in_the_worker_side_by_side(host):
    """One guest may have both kinds: each runs where it should."""
    functions = {
        ("env", "here"): HostFunction(lambda _caller: os.getpid(), (), ("i32",)),
        ("env", "there"): HostFunction(in_worker(_where_am_i), (), ("i32",)),
    }
    source = """(module (import "env" "here" (func $here (result i32)))
      (import "env" "there" (func $there (result i32)))
      (func (export "both") (result i32 i32) (call $here) (call $there)))"""
    instance = host.instantiate(host.compile(source), WasmImports(functions=functions))
    assert instance.func("both")() == (os.getpid(), instance.pid)


def test_a_keyboard_interrupt_of_a_shipped_functions_own(host):
    """Nobody's Ctrl-C reaches a worker: it is an exception like any other, and the instance stays usable."""

    def interrupt(_caller):
        raise KeyboardInterrupt

    source = """(module (import "env" "there" (func $there)) {start}
      (func (export "run") (call $there)) (func (export "ok") (result i32) (i32.const 42)))"""
    offer = WasmImports(functions={("env", "there"): HostFunction(in_worker(interrupt))})
    instance = host.instantiate(host.compile(source.format(start="")), offer)
    error = expect(CallError, Cause.HOST_FUNCTION, lambda: instance.call("run"))
    assert error.message == "host function raised KeyboardInterrupt"
    assert instance.call("ok") == [I32(42)]
    module = host.compile(source.format(start="(start $there)"))
    expect(InstantiationError, Cause.HOST_FUNCTION, lambda: host.instantiate(module, offer))


def test_a_search_path_with_what_is_no_path(host, monkeypatch, tmp_path):
    """What importing skips here, a shipped function's worker does not get: no text, no bytes, no directory any more."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr(sys, "path", [*sys.path, "", "\ud800", "a\0b", 5, None, b"x", tmp_path])
    functions = {("env", "there"): HostFunction(in_worker(_where_am_i), (), ("i32",))}
    source = """(module (import "env" "there" (func $there (result i32)))
      (func (export "there") (result i32) (call $there)))"""
    instance = host.instantiate(host.compile(source), WasmImports(functions=functions))
    assert instance.func("there")() == instance.pid


def test_what_a_callback_holds_goes_with_its_instance(host):
    """A closed and dropped instance does not keep its callbacks, nor what they refer to."""

    class Service:
        def ask(self, value):
            return value

    service = Service()
    reference = weakref.ref(service)
    instance = make_guest(host, ask=service.ask)
    assert instance.call("ask", [2]) == [I32(2)]
    instance.close()
    del instance, service
    gc.collect()
    assert reference() is None
