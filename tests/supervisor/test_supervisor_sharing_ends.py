"""Workers shared by the instances of one module: whose turn it is, and what the end of one means for the others."""

from __future__ import annotations

import gc
import os
import threading

import pytest
from supervising import (
    MIB,
    PATIENCE_S,
    Thread,
    eventually,
    expect,
    gone,
    make_guest,
    stop_process,
    wait_process_ends,
)

from pdsandbox import (
    I32,
    CallError,
    Cause,
    EngineConfig,
    HostFunction,
    InstantiationError,
    WallClockExceeded,
    WasmImports,
    WorkerCrashed,
)

#: Twelve exports: more than a worker numbers unasked.
MANY = "".join(f'(func (export "f{n}") (result i32) (i32.const {n}))' for n in range(12))
STARTS = """(module (import "env" "ask" (func $ask (param i32) (result i32))) (memory (export "memory") 1)
  (func $start (if (call $ask (i32.const 0)) (then (unreachable)))) (start $start)
  (func (export "ok") (result i32) (i32.const 42)))"""


@pytest.fixture
def host(make_supervisor):
    return make_supervisor(isolation="module")


class Inside:
    """A host function that says when it is entered, and returns when it is let go."""

    def __init__(self):
        self.entered, self.leave = threading.Event(), threading.Event()

    def __call__(self, value):
        self.entered.set()
        assert self.leave.wait(PATIENCE_S)
        return value


def guests(host, count, **callbacks):
    return [make_guest(host, **callbacks) for _ in range(count)]


# --- turns ---


def test_from_inside_a_host_function_of_another(host):
    """Refused at once in the thread of the call, CallError, USAGE; the call goes on. A new instance of the same module
    can be had there, in a worker of its own."""
    refused = []

    def ask(value):
        refused.append(expect(CallError, Cause.USAGE, lambda: two.call("ok")))
        refused.append(expect(CallError, Cause.USAGE, lambda: two.memory_read(0, 1)))
        fresh = make_guest(host)
        assert fresh.pid != one.pid
        assert fresh.call("ok") == [I32(42)]
        return value + 1

    one, two = make_guest(host, ask=ask), make_guest(host)
    assert one.call("ask", [1]) == [I32(2)]
    assert len(refused) == 2
    assert "another instance in its worker" in str(refused[0])
    assert two.call("ok") == [I32(42)]


def test_another_thread_waits_at_most_its_wall_s(host):
    """While one's host function runs, another's call waits for the turn, as for one instance; then it works."""
    inside = Inside()
    one, two = make_guest(host, ask=inside), make_guest(host)
    first = Thread(lambda: one.call("ask", [5]))
    assert inside.entered.wait(PATIENCE_S)
    error = expect(CallError, Cause.USAGE, lambda: two.call("ok", wall_s=0.05))
    assert error.limit == 0.05
    second = Thread(lambda: two.call("ok"))
    inside.leave.set()
    assert first.result() == [I32(5)]
    assert second.result() == [I32(42)]


def test_a_host_function_that_waits_for_a_neighbours_thread(make_supervisor):
    """No deadlock: the neighbour's call gives up after its `wall_s`, and both go on."""
    host = make_supervisor(isolation="module", wall_s=PATIENCE_S)
    one = make_guest(host, ask=lambda value: Thread(lambda: meet(value)).result())
    two = make_guest(host)

    def meet(value):
        expect(CallError, Cause.USAGE, lambda: two.call("ok", wall_s=0.05))
        return value

    assert one.call("ask", [3]) == [I32(3)]
    assert two.call("ok") == [I32(42)]


def test_instantiating_waits_for_a_busy_worker_as_long_as_a_call(make_supervisor):
    """Then it is another worker."""
    host = make_supervisor(isolation="module", wall_s=1.0)
    inside = Inside()
    one = make_guest(host, ask=inside)
    call = Thread(lambda: one.call("ask", [1], wall_s=PATIENCE_S))
    assert inside.entered.wait(PATIENCE_S)
    other = make_guest(host)
    assert other.pid != one.pid
    inside.leave.set()
    assert call.result() == [I32(1)]
    assert make_guest(host).pid == one.pid


# --- ends ---


def test_the_last_to_be_closed_ends_the_worker(host):
    """Before that each closed instance is gone, and nobody else is."""
    found = guests(host, 3)
    pid = found[0].pid
    for at, instance in enumerate(found):
        assert os.path.exists(f"/proc/{pid}")
        instance.close()
        gone(instance, CallError, Cause.CLOSED)
        expect(CallError, Cause.CLOSED, lambda instance=instance: instance.func("ok"))
        instance.kill()  # without effect
        instance.close()
        assert [each.call("ok") for each in found[at + 1 :]] == [[I32(42)]] * (2 - at)
    wait_process_ends(pid)
    assert make_guest(host).pid != pid


def test_dropped_instances_give_up_their_places(host):
    """Without being closed; the last one's worker ends."""
    found = guests(host, 2)
    places, handle, pid = found[0]._worker._places, found[0]._handle, found[0].pid
    del found[1]
    gc.collect()
    eventually(lambda: len(places) == 1)
    eventually(lambda: not handle.attention)  # the worker has been told
    assert found[0].call("ok") == [I32(42)]
    del found[0]
    gc.collect()
    wait_process_ends(pid)


def test_a_guest_comes_to_its_end_when_its_instance_is_closed(host):
    """By another thread, while neighbours are there: they live, so the guest comes to its end, and the call tells."""
    inside = Inside()
    one, two = make_guest(host, ask=inside), make_guest(host)
    call = Thread(lambda: one.call("ask", [5]))
    assert inside.entered.wait(PATIENCE_S)
    one.close()
    assert not one.alive
    gone(one, CallError, Cause.CLOSED)  # at once, though the turn is another thread's
    inside.leave.set()
    expect(CallError, Cause.CLOSED, call.result)
    assert two.call("ok") == [I32(42)]
    gone(one, CallError, Cause.CLOSED)


def test_a_call_ends_when_the_last_is_closed(host):
    """One whose instance was closed before, and runs on: nobody is left to wait for it."""
    inside = Inside()
    one, two = make_guest(host, ask=inside), make_guest(host)
    call = Thread(lambda: one.call("ask", [5]))
    assert inside.entered.wait(PATIENCE_S)
    one.close()
    two.close()
    inside.leave.set()
    expect(CallError, Cause.CLOSED, call.result)
    gone(two, CallError, Cause.CLOSED)


def test_closing_from_inside_its_own_host_function(host):
    """The call ends with that; the neighbour goes on."""
    one, two = make_guest(host, ask=lambda value: one.close() or value), make_guest(host)
    expect(CallError, Cause.CLOSED, lambda: one.call("ask", [5]))
    gone(one, CallError, Cause.CLOSED)
    assert two.call("ok") == [I32(42)]
    assert make_guest(host).pid == two.pid


def test_what_could_not_be_added_harms_nobody(host):
    """A start function that traps, one whose host function fails, a missing import: the error, and the others go on."""
    module = host.compile(STARTS)
    ask = {"ok": lambda _value: 0, "trap": lambda _value: 1, "raise": lambda _value: 1 // 0}
    offered = {
        name: WasmImports(
            functions={("env", "ask"): HostFunction(lambda _c, value, fn=fn: fn(value), ("i32",), ("i32",))}
        )
        for name, fn in ask.items()
    }
    one = host.instantiate(module, offered["ok"])
    for _ in range(3):
        expect(InstantiationError, Cause.GUEST_TRAP, lambda: host.instantiate(module, offered["trap"]))
        expect(InstantiationError, Cause.HOST_FUNCTION, lambda: host.instantiate(module, offered["raise"]))
        expect(InstantiationError, Cause.LINK, lambda: host.instantiate(module))
        two = host.instantiate(module, offered["ok"])
        assert one.pid == two.pid
        assert one.call("ok") == two.call("ok") == [I32(42)]
        two.close()
    assert len(one._worker._places) == 1


def test_a_neighbour_ends_the_worker_while_an_instance_is_added(host):
    """It gets another worker: nothing of it had been seen."""
    one = make_guest(host)
    stop_process(one.pid)
    adding = Thread(lambda: make_guest(host))
    eventually(lambda: one._handle.busy is not None)
    one.kill()
    fresh = adding.result()
    assert fresh.pid != one.pid
    assert fresh.call("ok") == [I32(42)]
    gone(one, WorkerCrashed, Cause.CANCELLED)


def test_the_supervisor_closes_while_an_instance_is_added(host):
    """InstantiationError, CLOSED, and no hang."""
    one = make_guest(host)
    stop_process(one.pid)
    adding = Thread(lambda: make_guest(host))
    eventually(lambda: one._handle.busy is not None)
    host.close()
    expect(InstantiationError, Cause.CLOSED, adding.result)


@pytest.mark.usefixtures("patience")
def test_one_that_can_be_interrupted_spares_its_neighbours(make_supervisor):
    """With an interruptible engine a deadline ends a call, and neither instance."""
    host = make_supervisor(isolation="module", engine=EngineConfig(interruptible=True))
    one, two = guests(host, 2)
    for instance in (two, one):
        expect(WallClockExceeded, Cause.WALL, lambda instance=instance: instance.call("spin", wall_s=0.1))
        assert one.call("ok") == two.call("ok") == [I32(42)]


def test_many_come_and_go(host):
    """Two hundred, one after the other beside one that stays: the worker keeps nothing of them."""
    module = host.compile(f'(module (memory (export "memory") 16) {MANY})')
    kept = host.instantiate(module)

    def come_and_go(times):
        for _ in range(times):
            with host.instantiate(module) as instance:
                assert instance.pid == kept.pid
                instance.memory_write(0, bytes([1]) * MIB)
                assert instance.call("f11") == [I32(11)]
        return kept._handle.read_resident()

    before = come_and_go(20)
    assert come_and_go(200) < before + 4 * MIB
