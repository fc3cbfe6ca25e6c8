"""The wall clock while a host function has the call's thread: a watchdog ends the worker, the call says so later."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import threading
import time

import psutil
import pytest
from supervising import GUEST, PATIENCE_S, Thread, expect, gone, imports, make_guest, together, wait_process_ends

from pdsandbox import I32, CallError, Cause, HostFunction, WallClockExceeded, WasmImports

#: A deadline before which a guest must have got to its host function, on a busy machine, too.
WALL_S = 1.0


class WaitsForTheEnd:
    """A host function that comes back only once its instance's worker has ended, however long after the deadline."""

    def __init__(self, pid_of):
        self.pid_of = pid_of
        self.saw = []

    def __call__(self, value):
        process = psutil.Process(self.pid_of())
        assert process.status() != psutil.STATUS_ZOMBIE
        wait_process_ends(process.pid)
        self.saw.append(value)
        return value


def stopped(action):
    error = expect(WallClockExceeded, Cause.WALL, action)
    assert error.limit == WALL_S
    assert str(error) == f"WASM trap: wall-clock limit of {WALL_S:g} s exceeded"


CALLS = {
    "call": lambda instance: instance.call("ask", [7], wall_s=WALL_S),
    "call_many": lambda instance: instance.call_many("ask", [[7], [8]], wall_s=WALL_S),
    "tell": lambda instance: instance.call("tell", [7], wall_s=WALL_S),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_the_worker_is_dead_before_the_callback_returns(host, call):
    """The deadline does not wait for the host function: it sees the worker end, returns, and then the call raises."""
    callback = WaitsForTheEnd(lambda: instance.pid)
    instance = make_guest(host, ask=callback, tell=callback)
    stopped(lambda: call(instance))
    assert callback.saw == [7]
    gone(instance, WallClockExceeded, Cause.WALL)


def test_while_somebody_waits_for_the_fork_server(make_supervisor):
    """Who asks it for a worker keeps a lock meanwhile, which the watchdog does without."""
    host = make_supervisor(spares=1)
    callback = WaitsForTheEnd(lambda: instance.pid)
    instance = make_guest(host, ask=callback)
    with host._processes._lock:
        Thread(lambda: stopped(lambda: instance.call("ask", [7], wall_s=WALL_S))).result()
    assert callback.saw == [7]


def test_the_supervisors_own_limit(make_supervisor):
    """The same for `Limits.wall_s`, and in `func`."""
    host = make_supervisor(wall_s=WALL_S)
    callback = WaitsForTheEnd(lambda: instance.pid)
    instance = make_guest(host, ask=callback)
    ask = instance.func("ask")
    stopped(lambda: ask(9))
    assert callback.saw == [9]


def test_in_a_start_function(make_supervisor, spawned):
    """A host function that the start function calls is no way around the deadline of instantiation."""
    host = make_supervisor(wall_s=WALL_S)
    callback = WaitsForTheEnd(lambda: spawned.pid_of(spawned.workers[-1]))
    module = host.compile(
        GUEST.replace('(func (export "trap")', "(func $s (call $tell (i32.const 4))) (start $s) (func")
    )
    stopped(lambda: host.instantiate(module, imports(tell=callback)))
    assert callback.saw == [4]


@pytest.mark.parametrize("memory", ["read", "write"])
def test_the_callers_memory_after_the_deadline(host, memory):
    """What a host function does then with its caller's memory fails; the call ends with the deadline all the same."""
    failed = []

    def late(caller):
        wait_process_ends(instance.pid)
        try:
            caller.memory_read(0, 1) if memory == "read" else caller.memory_write(0, b"x")
        except BaseException as exc:
            failed.append(type(exc))
            raise

    late_imports = WasmImports(functions={("env", "f"): HostFunction(late)})
    source = '(module (import "env" "f" (func $f)) (memory (export "memory") 1) (func (export "run") (call $f)))'
    instance = host.instantiate(host.compile(source), late_imports)
    stopped(lambda: instance.call("run", wall_s=WALL_S))
    assert failed == [WallClockExceeded]


def test_what_a_late_callback_raises_does_not_matter(host):
    """The first cause wins: it raised after the deadline, so the call ends with the deadline."""

    def late(value):
        wait_process_ends(instance.pid)
        raise ValueError(value)

    instance = make_guest(host, ask=late)
    stopped(lambda: instance.call("ask", [1], wall_s=WALL_S))


def test_a_callback_within_its_time(make_supervisor):
    """One that returns in time costs nothing, and its time is the call's: the next call has all of it again."""
    host = make_supervisor(wall_s=30.0)
    event = threading.Event()
    instance = make_guest(host, ask=lambda value: value + event.wait(0.05))
    for value in range(5):
        assert instance.call("ask", [value]) == [I32(value)]
    assert instance.call_many("ask", [[1]] * 3, wall_s=30.0) == [[I32(1)]] * 3


def test_many_short_callbacks_have_one_deadline(host):
    """Each returns at once; together they are a call that does not end, until the deadline."""
    source = """(module (import "env" "ask" (func $ask (param i32) (result i32)))
      (func (export "run") (loop $l (drop (call $ask (i32.const 1))) (br $l))))"""
    asked = []
    instance = host.instantiate(host.compile(source), imports(ask=lambda value: asked.append(value) or 0))
    error = expect(WallClockExceeded, Cause.WALL, lambda: instance.call("run", wall_s=WALL_S))
    assert error.limit == WALL_S
    assert len(asked) > 1


def test_two_late_callbacks_at_once(host):
    """One watchdog serves many: each worker ends at its own deadline, also one that came later but is nearer."""
    both_inside = threading.Barrier(2)

    def late(pid_of):
        waits = WaitsForTheEnd(pid_of)

        def callback(value):
            both_inside.wait(PATIENCE_S)
            return waits(value)

        return callback

    slow = make_guest(host, ask=late(lambda: slow.pid))
    fast = make_guest(host, ask=late(lambda: fast.pid))
    order = []

    def call(instance, wall_s):
        error = expect(WallClockExceeded, Cause.WALL, lambda: instance.call("ask", [1], wall_s=wall_s))
        order.append(error.limit)

    together(lambda: call(slow, 3 * WALL_S), lambda: call(fast, WALL_S))
    assert order == [WALL_S, 3 * WALL_S]


class _PollFd(ctypes.Structure):
    _fields_ = [("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short)]


def keep_the_gil_until_it_ends(pid):
    """Wait in C for the process's end, keeping the GIL: no other thread of this process runs. Whether it came."""
    descriptor = os.pidfd_open(pid)
    try:
        entry = _PollFd(descriptor, select.POLLIN, 0)
        return ctypes.PyDLL(None).poll(ctypes.byref(entry), 1, int(PATIENCE_S * 1000)) == 1
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("where", ["call", "call_many", "start"])
def test_the_kernel_timer_when_the_gil_is_taken(make_supervisor, spawned, where):
    """No thread of ours can run, so the worker's own timer ends it, within twice the limit plus two seconds."""
    host = make_supervisor(wall_s=WALL_S)
    took = []

    def callback(_value):
        pid = spawned.pid_of(spawned.workers[-1])
        started = time.monotonic()
        if keep_the_gil_until_it_ends(pid):
            took.append(time.monotonic() - started)
        return 0

    source = GUEST
    if where == "start":
        source = GUEST.replace('(func (export "trap")', "(func $s (call $tell (i32.const 4))) (start $s) (func")
    module = host.compile(source)
    if where == "start":
        stopped(lambda: host.instantiate(module, imports(tell=callback)))
    else:
        instance = host.instantiate(module, imports(tell=callback, ask=callback))
        stopped(lambda: instance.call("ask", [1]) if where == "call" else instance.call_many("ask", [[1]]))
        gone(instance, WallClockExceeded, Cause.WALL)
    assert len(took) == 1
    assert took[0] < 10 * (2 * WALL_S + 2)  # the bound, and room for a machine that is busy


def test_a_timer_of_an_earlier_call_ends_nothing(host):
    """A short deadline's timer must fire neither into a later, longer call nor into an idle instance."""
    later = threading.Event()
    idle, busy = make_guest(host), make_guest(host, ask=lambda value: value + later.wait(1.7))
    for instance in (idle, busy):
        assert instance.call("ok", wall_s=0.3) == [I32(42)]  # its timer is set to 1.45 s
    assert busy.call("ask", [1]) == [I32(1)]
    for instance in (idle, busy):
        assert instance.call("ok", wall_s=0.3) == [I32(42)]


def test_sigalrm_from_outside_is_no_deadline(host):
    """The timer's signal, sent by somebody else to an idle worker, is reported as what it is."""
    instance = make_guest(host)
    instance.call("ok")
    os.kill(instance.pid, signal.SIGALRM)
    wait_process_ends(instance.pid)
    with pytest.raises(Exception, match="SIGALRM") as caught:
        instance.call("ok")
    assert not isinstance(caught.value, WallClockExceeded | CallError)
    assert caught.value.cause is Cause.SIGNAL
