"""The wall clock: what ends at `wall_s`, wherever the time goes while the worker has the word."""

from __future__ import annotations

import functools
import operator
import os
import signal
import time

import pytest
from bombs import data_segment, many_exports, many_table_elements
from supervising import GUEST, MIB, Thread, eventually, expect, gone, imports, make_guest, stop_process, together

from pdsandbox import I32, CallError, Cause, HostFunction, WallClockExceeded, WasmImports, in_worker

WALL_S = 0.3
#: A limit of a whole supervisor: what is not to miss it, such as loading, must not on a busy machine either.
HOST_WALL_S = 1.0

BULK = """(module (memory (export "memory") 1024) (table $t 1000000 funcref)
  (func (export "fill") (loop $l (memory.fill (i32.const 0) (i32.const 1) (i32.const 67108864)) (br $l)))
  (func (export "copy") (loop $l (memory.copy (i32.const 1) (i32.const 0) (i32.const 67108863)) (br $l)))
  (func (export "table") (loop $l
    (table.fill $t (i32.const 0) (ref.null func) (i32.const 1000000))
    (table.copy $t $t (i32.const 1) (i32.const 0) (i32.const 999999)) (br $l)))
  (func (export "grow") (loop $l (drop (memory.grow (i32.const 0))) (br $l))))"""


def stopped(action, wall_s=WALL_S):
    """`action()` ends in WallClockExceeded with this limit and text."""
    error = expect(WallClockExceeded, Cause.WALL, action)
    assert error.limit == wall_s
    assert str(error) == f"WASM trap: wall-clock limit of {wall_s:g} s exceeded"
    assert error.pid
    return error


OPERATIONS = {
    "call": lambda instance: instance.call("spin"),
    "func": lambda instance: instance.func("spin")(),
    "call_many": lambda instance: instance.call_many("spin", [[]]),
    "call with plenty of fuel": lambda instance: instance.call("spin", fuel=2**62),
}


def all_stopped(operations, make):
    """Each operation, on an instance of its own that `make()` gives, ends at the limit of a whole supervisor; they run
    at the same time, because each takes all of that. The instances are gone."""
    instances = [make() for _ in operations]

    def stops(what, operation, instance):
        try:
            assert stopped(lambda: operation(instance), HOST_WALL_S).pid == instance.pid
            gone(instance, WallClockExceeded, Cause.WALL)
        except BaseException as exc:
            exc.add_note(f"in {what}")
            raise

    together(
        *(
            functools.partial(stops, what, operation, instance)
            for (what, operation), instance in zip(operations.items(), instances, strict=True)
        )
    )


def test_an_endless_loop_ends_at_the_limit(make_supervisor):
    """`Limits.wall_s` holds in each kind of call; the instance is gone, its neighbour answers."""
    host = make_supervisor(wall_s=HOST_WALL_S)
    neighbour = make_guest(host)
    all_stopped(OPERATIONS, lambda: make_guest(host))
    assert neighbour.call("ok", wall_s=60.0) == [I32(42)]


def test_a_calls_own_limit(host):
    """`call(wall_s=)` ends this call, where the supervisor's limit would be far away; without one it is generous."""
    instance = make_guest(host)
    assert instance.call("ask", [3], wall_s=30.0) == [I32(3)]
    assert instance.call_many("ask", [[3], [4]], wall_s=30.0) == [[I32(3)], [I32(4)]]
    stopped(lambda: instance.call("spin", wall_s=WALL_S))


def test_a_calls_own_limit_may_be_longer(make_supervisor):
    """It replaces the supervisor's in both directions: what takes longer than `Limits.wall_s` passes."""
    host = make_supervisor(wall_s=HOST_WALL_S)
    waited = []

    def ask(value):
        deadline = time.monotonic() + 1.5 * HOST_WALL_S
        while time.monotonic() < deadline:
            waited.append(value)
        return value

    instance = make_guest(host, ask=ask)
    assert instance.call("ask", [5], wall_s=60.0) == [I32(5)]
    assert waited


def test_one_limit_for_all_rows(host):
    """`call_many` has one deadline for its rows together; what was done before it passed is not known."""
    instance = make_guest(host)
    error = stopped(lambda: instance.call_many("run_if", [[0], [0], [1], [0]], wall_s=WALL_S))
    assert (error.row, error.results) == (None, [])  # how far the guest came died with it


def test_without_a_limit(make_supervisor):
    """`wall_s=None`: nothing ends a call but kill, and a call may still have a limit of its own."""
    host = make_supervisor(wall_s=None)
    instance = make_guest(host)
    assert instance.call("ask", [1]) == [I32(1)]
    stopped(lambda: instance.call("spin", wall_s=WALL_S))
    told = []
    other = make_guest(host, tell=told.append)
    running = Thread(lambda: other.call("run"))
    eventually(lambda: told == [0])
    assert running.running
    other.close()
    expect(CallError, Cause.CLOSED, running.result)


def test_bulk_operations(make_supervisor):
    """Instructions that run for milliseconds each are no way around the deadline."""
    host = make_supervisor(wall_s=HOST_WALL_S, rss_bytes=None, memory_bytes=128 * MIB)
    operations = {name: operator.methodcaller("call", name) for name in ("fill", "copy", "table", "grow")}
    all_stopped(operations, lambda: host.instantiate(host.compile(BULK)))


def test_a_start_function(make_supervisor):
    """A loop in it ends at the deadline; WallClockExceeded keeps its class while instantiating."""
    host = make_supervisor(wall_s=WALL_S)
    module = host.compile("(module (func $s (loop $l (br $l))) (start $s))")
    stopped(lambda: host.instantiate(module))


def test_a_huge_instantiation(make_supervisor):
    """Time that the engine takes before any instruction runs counts as well: 640 MB of tables."""
    host = make_supervisor(wall_s=0.03, rss_bytes=None, memory_bytes=None, table_elements=None)
    module = host.compile(many_table_elements())
    stopped(lambda: host.instantiate(module), 0.03)


@pytest.mark.parametrize("source", [many_exports, data_segment], ids=lambda source: source.__name__)
def test_a_large_instantiation_within_its_time(host, source):
    """Many exports, or much data, pass where there is time enough."""
    assert host.instantiate(host.compile(source())).alive


def _loop_for_ever(_caller):
    while True:
        pass


@pytest.mark.parametrize("where", ["call", "call_many", "start"])
def test_a_host_function_in_the_worker(make_supervisor, where):
    """`in_worker` code that does not come back ends at the deadline, too."""
    host = make_supervisor(wall_s=HOST_WALL_S)
    shipped = WasmImports(functions={("env", "f"): HostFunction(in_worker(_loop_for_ever))})
    start = "(start $f)" if where == "start" else ""
    module = host.compile(
        f'(module (import "env" "f" (func $f)) (func (export "ok")) (func (export "run") (call $f)) {start})'
    )
    if where == "start":
        stopped(lambda: host.instantiate(module, shipped), HOST_WALL_S)
    else:
        instance = host.instantiate(module, shipped)
        assert instance.call("ok") == []
        stopped(lambda: instance.call("run") if where == "call" else instance.call_many("run", [[]]), HOST_WALL_S)


def _return_at_once(_caller):
    pass


def test_a_host_function_in_the_worker_within_its_time(make_supervisor):
    """One that comes back is no reason to end anything, thousands of calls long."""
    host = make_supervisor(wall_s=30.0)
    shipped = WasmImports(functions={("env", "f"): HostFunction(in_worker(_return_at_once))})
    module = host.compile('(module (import "env" "f" (func $f)) (func (export "run") (call $f)))')
    assert host.instantiate(module, shipped).call_many("run", [[]] * 2000) == [[]] * 2000


SILENT = {
    "memory_read": lambda instance: instance.memory_read(0, 1),
    "memory_write": lambda instance: instance.memory_write(0, b"x"),
    "a large memory_write": lambda instance: instance.memory_write(0, bytes(60_000)),
    "first call of an export": lambda instance: instance.call("add", [1, 2]),
    "further call of an export": lambda instance: instance.call("ok"),
    "call_many": lambda instance: instance.call_many("ok", [[]] * 20_000),
}


@pytest.mark.usefixtures("piped")
def test_a_worker_that_does_not_answer(make_supervisor):
    """Stopped, it neither reads nor writes; the operation ends at the deadline all the same."""
    host = make_supervisor(wall_s=HOST_WALL_S)

    def make():
        instance = make_guest(host)
        assert instance.call("ok") == [I32(42)]
        stop_process(instance.pid)
        return instance

    all_stopped(SILENT, make)


@pytest.mark.usefixtures("piped")
def test_a_worker_that_pauses_within_its_time(host):
    """Stopped and continued before the deadline, it answers as if nothing had been."""
    instance = make_guest(host)
    assert instance.call("ok") == [I32(42)]
    for use, answer in (
        (lambda: instance.call("add", [1, 2]), [I32(3)]),
        (lambda: instance.memory_read(0, 4), bytes(4)),
        (lambda: instance.call_many("add", [(i, 1) for i in range(20_000)])[-1], [I32(20_000)]),
    ):
        stop_process(instance.pid)
        running = Thread(use)
        eventually(lambda: instance._talk.busy)
        os.kill(instance.pid, signal.SIGCONT)
        assert running.result() == answer


def test_memory_needs_no_worker_that_answers(make_supervisor):
    """Where the kernel copies, a worker that is stopped is read and written all the same, and goes on as if nothing
    had been."""
    host = make_supervisor(wall_s=HOST_WALL_S)
    instance = make_guest(host)
    stop_process(instance.pid)
    instance.memory_write(1, b"x" * 60_000)
    assert instance.memory_read(0, 60_002) == b"\0" + b"x" * 60_000 + b"\0"
    os.kill(instance.pid, signal.SIGCONT)
    assert instance.call("ok", wall_s=60.0) == [I32(42)]
    assert instance.memory_read(1, 1) == b"x"


def test_a_worker_stopped_while_instantiating(make_supervisor, spawned, monkeypatch):
    """Its start function was called, its answer never comes: WallClockExceeded, at the limit."""
    host = make_supervisor(wall_s=WALL_S)
    module = host.compile(
        GUEST.replace('(func (export "trap")', "(func $s (call $tell (i32.const 1))) (start $s) (func")
    )
    stopped(lambda: host.instantiate(module, imports(tell=lambda _: stop_process(spawned.pid_of(spawned.workers[-1])))))
