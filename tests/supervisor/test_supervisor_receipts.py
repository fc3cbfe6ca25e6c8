"""Receipts: what each call took, also when its worker was killed, and that nobody else pays for them."""

from __future__ import annotations

import asyncio
import contextvars
import os
import pickle
import signal
import threading

import pytest
from supervising import GUEST, MIB, PATIENCE_S, Thread, eventually, expect, imports, make_guest

from pdsandbox import (
    CallError,
    Cause,
    EngineConfig,
    FuelExhausted,
    Limits,
    Receipt,
    RssExceeded,
    Supervisor,
    Trap,
    WallClockExceeded,
    Wasi,
    WorkerCrashed,
    accounting,
    receipts,
)

FUEL = 1_000_000


@pytest.fixture
def metered():
    """A supervisor of the test's own that meters fuel."""
    with Supervisor(limits=Limits(fuel=FUEL, wall_s=60.0), spares=0) as host:
        yield host


@pytest.fixture(autouse=True)
def _nobody_wants_them_any_more():
    yield
    assert accounting.wanted == 0
    assert accounting.book() is None


def test_a_call(metered):
    """Every field, against what can be known otherwise."""
    module = metered.compile(GUEST)
    instance = metered.instantiate(module, imports())
    used = instance.fuel_consumed()
    with receipts() as taken:
        assert instance.call("add", [1, 2])[0].value == 3
        (receipt,) = taken
    assert isinstance(receipt, Receipt)
    assert (receipt.operation, receipt.func, receipt.cause) == ("call", "add", None)
    assert (receipt.sha256, receipt.pid) == (module.sha256, instance.pid)
    assert receipt.fuel == instance.fuel_consumed() - used > 0
    assert 0 < receipt.wall_s < PATIENCE_S
    assert 0 <= receipt.queue_s < PATIENCE_S
    assert 0 < receipt.cpu_s < PATIENCE_S
    assert 10 * MIB < receipt.peak_rss_bytes < 256 * MIB
    with pytest.raises(AttributeError):
        receipt.fuel = 0


def test_every_way_to_call(metered):
    """Through `func`, in a batch, and as a program: one receipt each, with what all of it took."""
    module = metered.compile("""(module (func (export "_start")) (func (export "one") (result i32) (i32.const 1)))""")
    instance = metered.instantiate(module, wasi=Wasi())
    with receipts() as taken:
        assert instance.func("one")() == 1
        instance.call_many("one", [[]] * 10)
        instance.run()
    assert [(r.operation, r.func) for r in taken] == [("call", "one"), ("call_many", "one"), ("run", "_start")]
    assert taken[1].fuel == 10 * taken[0].fuel
    assert sum(r.fuel for r in taken) == instance.fuel_consumed()


def test_nothing_but_calls_in_the_block(metered):
    """What is before and after it, and memory operations, leave none."""
    instance = make_guest(metered)
    instance.call("ok")
    with receipts() as taken:
        instance.memory_read(0, 1)
        assert taken == []
    instance.call("ok")
    assert taken == []


@pytest.mark.parametrize(
    ("func", "args", "cls", "cause"),
    [
        ("trap", [], Trap, Cause.GUEST_TRAP),
        ("spin", [], FuelExhausted, Cause.FUEL),
        ("nope", [], CallError, Cause.USAGE),
        ("add", [1], CallError, Cause.USAGE),
        ("ask", [1], CallError, Cause.HOST_FUNCTION),
    ],
)
def test_a_call_that_fails(metered, func, args, cls, cause):
    """The receipt is in the list and in the error; the fuel is what it used before it failed."""

    def ask(_value):
        raise ValueError

    instance = make_guest(metered, ask=ask)
    used = instance.fuel_consumed()
    with receipts() as taken:
        error = expect(cls, cause, lambda: instance.call(func, args))
    assert taken == [error.receipt]
    assert (error.receipt.func, error.receipt.cause) == (func, cause)
    assert error.receipt.fuel == instance.fuel_consumed() - used
    assert pickle.loads(pickle.dumps(error)).receipt == error.receipt
    assert expect(cls, cause, lambda: instance.call(func, args)).receipt is None


def test_a_function_that_is_no_name(metered):
    """What is not a name at all leaves none in the receipt."""
    instance = make_guest(metered)
    with receipts() as taken:
        expect(CallError, Cause.USAGE, lambda: instance.call(["x"], []))
    assert (taken[0].func, taken[0].fuel) == ("", 0)


def test_a_deadline():
    """Killed: how much fuel it used is known to nobody, its CPU time to the kernel."""
    with Supervisor(limits=Limits(fuel=None, wall_s=60.0), spares=0) as host:
        instance = make_guest(host)
        with receipts() as taken:
            error = expect(WallClockExceeded, Cause.WALL, lambda: instance.call("spin", wall_s=0.5))
            again = expect(WallClockExceeded, Cause.WALL, lambda: instance.call("spin"))
        assert taken == [error.receipt, again.receipt]
        receipt = error.receipt
        assert (receipt.cause, receipt.fuel, receipt.pid) == (Cause.WALL, None, instance.pid)
        assert receipt.wall_s >= 0.5
        assert 0.0 < receipt.cpu_s < PATIENCE_S
        assert receipt.peak_rss_bytes > 10 * MIB
        # The second one never ran.
        assert (again.receipt.fuel, again.receipt.cpu_s, again.receipt.wall_s) == (0, 0.0, 0.0)


def test_the_cpu_time_of_a_killed_worker_is_its_whole_life(metered):
    """It is read when the worker has ended, and so never less than what was seen while it ran."""
    seen = []
    instance = make_guest(metered, tell=lambda _value: (seen.append(instance._handle.cpu_s()), instance.kill()))
    with receipts():
        error = expect(WorkerCrashed, Cause.CANCELLED, lambda: instance.call("tell", [0]))
    assert instance._handle.cpu_in_all >= seen[0]
    assert 0 <= error.receipt.cpu_s <= instance._handle.cpu_in_all
    assert error.receipt.fuel is None


def test_memory():
    """One that is killed for its memory shows what was seen."""
    bomb = """(module (memory (export "memory") 1 2000) (func (export "grow") (local $at i32)
      (drop (memory.grow (i32.const 1500)))
      (loop $again (i32.store8 (local.get $at) (i32.const 1))
        (local.set $at (i32.add (local.get $at) (i32.const 4096)))
        (br_if $again (i32.lt_u (local.get $at) (i32.const 98304000))))))"""
    with Supervisor(limits=Limits(fuel=None, rss_bytes=64 * MIB), spares=0) as host:
        instance = host.instantiate(host.compile(bomb))
        with receipts():
            error = expect(RssExceeded, Cause.RSS, lambda: instance.call("grow"))
        assert error.receipt.peak_rss_bytes >= error.observed > 64 * MIB
        assert error.receipt.fuel is None


def test_a_peak_that_has_passed_is_seen(metered):
    """The kernel keeps it: also of memory that was given back before anybody looked."""
    grown = """(module (memory (export "memory") 1 2000) (func (export "grow") (local $at i32)
      (drop (memory.grow (i32.const 500)))
      (loop $again (i32.store8 (local.get $at) (i32.const 1))
        (local.set $at (i32.add (local.get $at) (i32.const 4096)))
        (br_if $again (i32.lt_u (local.get $at) (i32.const 32768000))))))"""
    instance = metered.instantiate(metered.compile(grown))
    with receipts() as taken:
        instance.call_many("grow", [])
        instance.call("grow")
    before, after = (receipt.peak_rss_bytes for receipt in taken)
    assert after - before > 28 * MIB


def test_a_crash(metered):
    """A worker that died by itself."""
    instance = make_guest(metered, tell=lambda _value: os.kill(instance.pid, signal.SIGBUS))
    with receipts() as taken:
        error = expect(WorkerCrashed, Cause.SIGNAL, lambda: instance.call("tell", [1]))
    assert taken == [error.receipt]
    assert (error.receipt.cause, error.receipt.fuel) == (Cause.SIGNAL, None)
    assert error.receipt.cpu_s > 0


@pytest.mark.orphans
def test_a_lost_fork_server(metered):
    """Nobody could look at the worker's end: its CPU time is not known."""
    instance = make_guest(metered, tell=lambda _value: os.kill(metered.stats().fork_server, signal.SIGKILL))
    with receipts():
        error = expect(WorkerCrashed, Cause.HOST, lambda: instance.call("run", fuel=1 << 62))
    assert (error.receipt.cause, error.receipt.cpu_s, error.receipt.fuel) == (Cause.HOST, None, None)


def test_an_interruptible_guest_survives():
    """At its deadline it is stopped, not killed; the engine has not booked the fuel of the loop that it was in."""
    engine = EngineConfig(fuel=True, interruptible=True)
    with Supervisor(limits=Limits(fuel=None, wall_s=60.0), engine=engine, spares=0) as host:
        instance = make_guest(host)
        with receipts():
            error = expect(WallClockExceeded, Cause.WALL, lambda: instance.call("spin", wall_s=0.3))
        assert instance.alive
        assert error.receipt.fuel is None
        assert error.receipt.cpu_s > 0
        with receipts() as taken:
            instance.call("ok")
        assert taken[0].fuel > 0


def test_without_metering_there_is_no_figure():
    """`None`, and the rest as ever."""
    with Supervisor(engine=EngineConfig(fuel=False), limits=Limits(wall_s=60.0), spares=0) as host:
        instance = make_guest(host)
        with receipts() as taken:
            instance.call("ok")
        assert taken[0].fuel is None
        assert taken[0].cpu_s > 0


def test_waiting_for_a_turn_is_counted_apart(metered):
    """Another thread has it; also for one whose turn never comes."""
    entered, gate = threading.Event(), threading.Event()
    instance = make_guest(metered, tell=lambda _value: (entered.set(), gate.wait(PATIENCE_S)))
    thread = Thread(lambda: instance.call("tell", [1]))
    assert entered.wait(PATIENCE_S)
    with receipts() as taken:
        error = expect(CallError, Cause.USAGE, lambda: instance.call("ok", wall_s=0.2))
        waiting = contextvars.copy_context()
        second = Thread(lambda: waiting.run(instance.call, "ok"))
        third = threading.Timer(0.2, gate.set)
        third.start()
        second.result()
        third.join()
    thread.result()
    refused, served = taken
    assert error.receipt is refused
    assert refused.queue_s >= 0.2
    assert (refused.wall_s, refused.cpu_s, refused.fuel) == (0.0, 0.0, 0)
    assert served.cause is None
    assert served.queue_s > 0.0


def test_threads_have_blocks_of_their_own(metered):
    """A thread's receipts are of its own calls; one without a block leaves none."""
    instance = make_guest(metered)

    def counted(calls):
        with receipts() as taken:
            for _ in range(calls):
                instance.call("ok")
        return len(taken)

    threads = [Thread(lambda count=count: counted(count)) for count in (1, 5, 9)]
    with receipts() as taken:
        plain = Thread(lambda: instance.call("ok"))
        assert [thread.result() for thread in threads] == [1, 5, 9]
        plain.result()
    assert taken == []


def test_blocks_nest(metered):
    """The outer one has the calls of the inner one, too."""
    instance = make_guest(metered)
    with receipts() as outer:
        instance.call("ok")
        with receipts() as inner:
            instance.call("add", [1, 2])
        instance.call("next")
    assert [r.func for r in outer] == ["ok", "add", "next"]
    assert [r.func for r in inner] == ["add"]


def test_calls_from_inside_a_host_function(metered):
    """Those of another instance leave theirs, first, since they end first."""
    other = make_guest(metered)
    instance = make_guest(metered, ask=lambda value: other.func("add")(value, 1))
    with receipts() as taken:
        assert instance.func("ask")(1) == 2
    assert [(r.func, r.pid) for r in taken] == [("add", other.pid), ("ask", instance.pid)]


def test_tasks_inherit_the_block_and_outlive_it(metered):
    """What a task that the block started calls in it counts; what it calls later is nobody's."""
    instance = make_guest(metered)

    async def main():
        called, left = asyncio.Event(), asyncio.Event()

        async def task():
            await asyncio.to_thread(instance.call, "ok")
            called.set()
            await left.wait()
            instance.call("ok")

        with receipts() as taken:
            running = asyncio.create_task(task())
            await called.wait()
        left.set()
        await running
        return taken

    assert len(asyncio.run(main())) == 1


def test_a_caller_that_is_torn_away(metered):
    """KeyboardInterrupt kills the worker, and leaves a receipt."""

    def interrupt(_value):
        signal.raise_signal(signal.SIGINT)

    instance = make_guest(metered, tell=interrupt)
    with receipts() as taken, pytest.raises(KeyboardInterrupt):
        instance.call("tell", [1])
    assert [r.cause for r in taken] == [Cause.CANCELLED]


def test_generations_tell_workers_apart(metered):
    """Each worker has a greater number than those before it, the same in its events; sharers have the same."""
    module = metered.compile(GUEST)
    with receipts() as taken:
        for _ in range(3):
            with metered.instantiate(module, imports()) as instance:
                instance.call("ok")
                instance.call("ok")
    numbers = [r.generation for r in taken]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) == 3


def test_receipts_leave_nothing_behind(metered):
    """Descriptors and processes are counted by the fixture; blocks that failed are closed, too."""
    instance = make_guest(metered)
    for _ in range(100):
        with pytest.raises(ZeroDivisionError), receipts():
            instance.call("ok")
            raise ZeroDivisionError
    eventually(lambda: metered.stats().busy == 0)
