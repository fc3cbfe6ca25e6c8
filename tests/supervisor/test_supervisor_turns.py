"""Whose turn it is: two threads on one instance, how long one waits, and what a host function may do with instances."""

from __future__ import annotations

import threading

import pytest
from supervising import GUEST, PATIENCE_S, Thread, eventually, expect, gone, imports, make_guest, together

from pdsandbox import I32, CallError, Cause, Trap, WallClockExceeded, WasmImports, WorkerCrashed


class Inside:
    """A host function that says when it is entered, and returns when it is let go."""

    def __init__(self):
        self.entered, self.leave = threading.Event(), threading.Event()

    def __call__(self, value):
        self.entered.set()
        assert self.leave.wait(PATIENCE_S)
        return value


def test_two_threads_count_together(host):
    """No call of either is lost or runs twice, whatever it is mixed with."""
    instance = make_guest(host)

    def work(base):
        counted = []
        for i in range(250):
            counted.append(instance.call("next")[0].value)
            assert instance.call("add", [base, i]) == [I32(base + i)]
            if i % 10 == 0:
                assert instance.call_many("ask", [[base], [i]]) == [[I32(base)], [I32(i)]]
                instance.memory_write(base, i.to_bytes(4, "little"))
                assert instance.memory_read(base, 4) == i.to_bytes(4, "little")
                expect(Trap, Cause.GUEST_TRAP, lambda: instance.call("trap"))
        return counted

    one, other = together(lambda: work(0), lambda: work(8))
    assert sorted(one + other) == list(range(1, 501))
    assert one == sorted(one)
    assert other == sorted(other)


WAITING = {
    "call": lambda instance, wall_s: instance.call("ok", wall_s=wall_s),
    "call_many": lambda instance, wall_s: instance.call_many("ok", [[]], wall_s=wall_s),
}


@pytest.mark.parametrize("use", WAITING.values(), ids=WAITING)
def test_waiting_for_the_turn_is_bounded(host, use):
    """By the call's own `wall_s`: CallError, USAGE, that says how long; instance and other call are untouched."""
    inside = Inside()
    instance = make_guest(host, ask=inside)
    first = Thread(lambda: instance.call("ask", [5]))
    assert inside.entered.wait(PATIENCE_S)
    error = expect(CallError, Cause.USAGE, lambda: use(instance, 0.05))
    assert error.limit == 0.05
    assert "busy" in str(error)
    assert "0.05 s" in str(error)
    inside.leave.set()
    assert first.result() == [I32(5)]
    assert use(instance, None) in ([I32(42)], [[I32(42)]])


def test_waiting_is_bounded_for_what_has_no_limit_of_its_own(make_supervisor):
    """Memory and set_fuel wait as long as `Limits.wall_s`."""
    instance = make_guest(make_supervisor(wall_s=1.0), ask=(inside := Inside()))
    first = Thread(lambda: instance.call("ask", [5], wall_s=60.0))
    assert inside.entered.wait(PATIENCE_S)
    operations = (
        lambda: instance.call("ok"),
        instance.func("ok"),
        lambda: instance.memory_read(0, 1),
        lambda: instance.memory_write(0, b"x"),
        lambda: instance.set_fuel(5),
    )
    for error in together(*[lambda use=use: expect(CallError, Cause.USAGE, use) for use in operations]):
        assert error.limit == 1.0
    inside.leave.set()
    assert first.result() == [I32(5)]
    assert instance.call("ok") == [I32(42)]


def test_waiting_is_not_the_calls_time(host):
    """A call that waited half of its `wall_s`, and more, still has all of it to run."""
    inside, pause = Inside(), threading.Event()
    instance = make_guest(host, ask=lambda value: inside(value) if value == 1 else pause.wait(0.9) or value)
    first = Thread(lambda: instance.call("ask", [1]))
    assert inside.entered.wait(PATIENCE_S)
    second = Thread(lambda: instance.call("ask", [2], wall_s=1.5))
    pause.wait(0.9)
    inside.leave.set()
    assert first.result() == [I32(1)]
    assert second.result() == [I32(2)]  # 0.9 s waiting and 0.9 s running


REENTRY = {
    "call": lambda instance: instance.call("ok"),
    "call of what is not there": lambda instance: instance.call("no such export"),
    "call_many": lambda instance: instance.call_many("ok", [[]]),
    "memory_read": lambda instance: instance.memory_read(0, 1),
    "memory_write": lambda instance: instance.memory_write(0, b"x"),
    "set_fuel": lambda instance: instance.set_fuel(10),
    "func": lambda instance: instance.func("ok")(),
}


@pytest.mark.parametrize("use", REENTRY.values(), ids=REENTRY)
def test_from_inside_its_own_host_function(host, use):
    """Refused at once, CallError, USAGE; the call outside goes on and answers, and so do all after it."""
    refused = []

    def ask(value):
        refused.append(expect(CallError, Cause.USAGE, lambda: use(instance)))
        return value + 1

    instance = make_guest(host, ask=ask)
    assert instance.call("ask", [1]) == [I32(2)]
    assert instance.call_many("ask", [[1], [2]]) == [[I32(2)], [I32(3)]]
    assert len(refused) == 3
    assert "host function" in str(refused[0])
    assert instance.call("ok") == [I32(42)]


def test_what_needs_no_turn_works_inside(host):
    """Reading what is known here: alive, pid, fuel_consumed, a callable to be used later."""
    seen = []

    def ask(value):
        seen.append((instance.alive, instance.pid, instance.fuel_consumed() >= 0, callable(instance.func("ok"))))
        return value

    instance = make_guest(host, ask=ask)
    assert instance.call("ask", [1]) == [I32(1)]
    assert seen == [(True, instance.pid, True, True)]


def test_a_refusal_that_is_not_caught_is_the_host_functions_failure(host):
    """CallError, HOST_FUNCTION, with the refusal chained; the instance stays usable."""
    instance = make_guest(host, ask=lambda value: instance.call("ok"))
    error = expect(CallError, Cause.HOST_FUNCTION, lambda: instance.call("ask", [1]))
    assert isinstance(error.__cause__, CallError)
    assert error.__cause__.cause is Cause.USAGE
    assert instance.call("ok") == [I32(42)]


@pytest.mark.parametrize(
    ("end", "cls", "cause"),
    [("close", CallError, Cause.CLOSED), ("kill", WorkerCrashed, Cause.CANCELLED)],
)
def test_ending_it_from_inside(host, end, cls, cause):
    """close and kill work there; the call ends with their cause once the host function returns, whatever it returns."""
    seen = []

    def ask(value):
        getattr(instance, end)()
        seen.append(instance.alive)
        expect(CallError, Cause.USAGE, lambda: instance.call("ok"))  # still inside
        return value

    instance = make_guest(host, ask=ask)
    expect(cls, cause, lambda: instance.call("ask", [1]))
    assert seen == [False]
    gone(instance, cls, cause)


def test_ending_it_from_inside_and_then_failing(host):
    """The first cause wins over what the host function raises."""

    def ask(_value):
        instance.kill()
        raise ValueError

    instance = make_guest(host, ask=ask)
    expect(WorkerCrashed, Cause.CANCELLED, lambda: instance.call("ask", [1]))


def test_another_instance_from_a_host_function(host):
    """Nested as deep as one likes, of the same module, with memory and batches."""
    innermost = make_guest(host)
    chain = [innermost]
    for _ in range(8):
        below = chain[-1]

        def ask(value, below=below):
            assert below.memory_read(0, 1) == b"\0"
            assert below.call_many("add", [(1, value)]) == [[I32(1 + value)]]
            return below.call("ask", [value])[0].value + 1

        chain.append(make_guest(host, ask=ask))
    assert chain[-1].call("ask", [100]) == [I32(108)]
    assert [instance.call("ok") for instance in chain] == [[I32(42)]] * 9


def test_a_new_instance_from_a_host_function(host):
    """Compiling, instantiating and closing inside a call."""

    def ask(value):
        source = f'(module (func (export "n") (result i32) (i32.const {7000 + value})))'
        with host.instantiate(host.compile(source)) as inner:
            return inner.call("n")[0].value

    instance = make_guest(host, ask=ask)
    assert instance.call_many("ask", [[1], [2], [1]]) == [[I32(7001)], [I32(7002)], [I32(7001)]]


def test_round_about_to_itself(host):
    """A calls B calls A: the innermost is refused, B and A answer."""
    refused = []

    def back(value):
        refused.append(expect(CallError, Cause.USAGE, lambda: a.call("ok")))
        return value

    b = make_guest(host, ask=back)
    a = make_guest(host, ask=lambda value: b.call("ask", [value])[0].value)
    assert a.call("ask", [3]) == [I32(3)]
    assert len(refused) == 1


def test_its_own_host_function_through_another_thread(host):
    """A host function that waits for a thread that waits for the turn: both ends are bounded by `wall_s`."""
    errors = []

    def ask(value):
        waiting = Thread(lambda: instance.call("ok", wall_s=0.1))
        errors.append(expect(CallError, Cause.USAGE, waiting.result))
        return value

    instance = make_guest(host, ask=ask)
    assert instance.call("ask", [1]) == [I32(1)]
    assert "busy" in str(errors[0])


def test_the_nested_call_has_its_own_deadline(host):
    """An inner call that is stopped at its deadline is an exception in the host function; the outer call goes on."""
    inner = make_guest(host)
    errors = []

    def ask(value):
        errors.append(expect(WallClockExceeded, Cause.WALL, lambda: inner.call("spin", wall_s=0.1)))
        return value

    outer = make_guest(host, ask=ask)
    assert outer.call("ask", [6]) == [I32(6)]
    assert errors[0].limit == 0.1


def test_the_outer_deadline_passes_in_a_nested_call(host):
    """The outer worker dies at its deadline; the inner call is not touched, and the outer one raises after it."""
    inner = make_guest(host, ask=lambda value: eventually(lambda: not outer.alive) or value)
    outer = make_guest(host, ask=lambda value: inner.call("ask", [value])[0].value)
    expect(WallClockExceeded, Cause.WALL, lambda: outer.call("ask", [1], wall_s=0.2))
    assert inner.call("ok") == [I32(42)]


def test_a_start_function_cannot_reach_its_own_instance(host):
    """There is none yet; but other instances work from there."""
    other = make_guest(host)
    answers = []
    source = GUEST.replace('(func (export "trap")', "(func $s (call $tell (i32.const 6))) (start $s) (func")
    offered = imports(tell=lambda value: answers.append(other.call("add", [value, 1])))
    assert host.instantiate(host.compile(source), offered).call("ok") == [I32(42)]
    assert answers == [[I32(7)]]


def test_imports_may_be_shared(host):
    """One WasmImports for many instances, used from many threads."""
    told, lock = [], threading.Lock()

    def log(level, _message):
        with lock:
            told.append(level)

    source = """(module (import "env" "pd_log" (func $log (param i32 i32 i32))) (memory (export "memory") 1)
      (func (export "f") (param i32) (call $log (local.get 0) (i32.const 0) (i32.const 0))))"""
    shared, module = WasmImports(pd_log=log), host.compile(source)
    guests = [host.instantiate(module, shared) for _ in range(4)]
    together(*[lambda guest=guest, n=n: guest.call_many("f", [[n]] * 50) for n, guest in enumerate(guests)])
    assert sorted(told) == [n for n in range(4) for _ in range(50)]
