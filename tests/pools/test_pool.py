"""Pools over every host: calls, the queue, what is refused, and how they close."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import threading
import time
import weakref

import pytest
from pooling import SOURCE, Scene, Thread, eventually, expect

from pdsandbox import (
    I32,
    CallError,
    Capability,
    Cause,
    InstantiationError,
    PoolFull,
    PoolTimeout,
    Quarantined,
    RestartPolicy,
    Trap,
    WasmImports,
)


def test_calls_are_answered_by_instances_that_stay(scene):
    """One serves many calls; a trap ends its call and nothing else."""
    it = scene(max=1)
    assert it.pool.call("count") == [I32(1)]
    expect(Trap, Cause.GUEST_TRAP, lambda: it.pool.call("trap"))
    assert it.pool.call("count", fuel=1000) == [I32(2)]
    assert it.pool.call("add", [1, 2], wall_s=None) == [I32(3)]
    assert it.pool._keeper.starts == 1


def test_the_minimum_is_ready_before_it_is_asked_for(scene):
    """And no more than that is started for callers who come one by one."""
    it = scene(min=2, max=4)
    assert it.pool.wait_ready(60)
    assert (it.pool._roster.alive, it.pool._keeper.starts) == (2, 2)
    for _ in range(5):
        it.pool.call("count")
    assert it.pool._keeper.starts == 2
    assert "0 of 2 instances are in use (max=4)" in repr(it.pool)


@pytest.mark.requires(Capability.INDEPENDENCE)
def test_more_are_started_for_callers_who_come_together(scene):
    """Up to `max`."""
    it = scene(min=0, max=3)
    threads = [it.holding(n) for n in range(3)]
    last = it.queued(3)
    assert (len(it.pool._roster.leased), it.pool._roster.total, it.pool._roster.waiting) == (3, 3, 1)
    it.release()
    assert [thread.result() for thread in [*threads, last]] == [[I32(n + 1)] for n in range(4)]
    assert it.pool._keeper.starts == 3


def test_one_call_too_many_is_pool_full_and_says_the_numbers(scene):
    """Just as many as may wait do."""
    it = scene(max=1, queue=2)
    threads = [it.holding(0), it.queued(1), it.queued(2)]
    error = expect(PoolFull, Cause.USAGE, lambda: it.pool.call("work", [3]))
    assert str(error) == ("WASM call error: the pool is full: 2 wait (queue=2); 1 of 1 instances are in use (max=1)")
    assert (error.limit, error.observed, error.waiting, error.running, error.instances) == (2, 2, 2, 1, 1)
    again = pickle.loads(pickle.dumps(error))
    assert (again, again.waiting, again.tenant) == (error, 2, None)
    it.release()
    for thread in threads:
        thread.result()
    assert sorted(it.calls) == [0, 1, 2]


def test_who_waited_long_enough_is_told_so_and_runs_never(scene):
    """PoolTimeout; the call was not made, then or later."""
    it = scene(max=1)
    thread = it.holding(0)
    error = expect(PoolTimeout, Cause.USAGE, lambda: it.pool.call("work", [1], timeout=0.02))
    assert "no instance of the pool was free within 0.02 s; 1 of 1 instances are in use (max=1), 0 more" in str(error)
    assert (error.limit, error.waiting, error.running) == (0.02, 0, 1)
    assert error.waited_s == error.observed >= 0.02
    expect(PoolTimeout, Cause.USAGE, lambda: it.pool.call("work", [1], timeout=0))
    it.release()
    thread.result()
    assert it.pool.call("work", [2]) == [I32(3)]
    assert it.calls == [0, 2]


def test_the_pools_own_timeout_is_for_calls_that_say_nothing(scene):
    """Of calls and of borrowed instances."""
    it = scene(max=1, timeout=0.01)
    thread = it.holding(0, timeout=60)
    assert expect(PoolTimeout, Cause.USAGE, lambda: it.pool.call("work", [1])).limit == 0.01
    assert expect(PoolTimeout, Cause.USAGE, it.pool.instance().__enter__).limit == 0.01
    it.release()
    thread.result()


@pytest.mark.requires(Capability.WALL_CLOCK)
def test_waiting_is_not_running(scene):
    """A call that waited longer than its `wall_s` still has all of that to run."""
    it = scene(max=1)
    thread = it.holding(0)
    waits = it.queued(1, wall_s=1.0, timeout=60)
    until = time.monotonic() + 1.1
    eventually(lambda: time.monotonic() > until)
    it.release()
    thread.result()
    assert waits.result() == [I32(2)]


def test_a_borrowed_instance_is_one_callers_alone(scene):
    """Calls and memory in between are the same instance's; then others may have it."""
    it = scene(max=1)
    with it.pool.instance() as instance:
        instance.memory_write(0, b"mine")
        waits = it.queued(5)
        assert instance.call("count") == [I32(1)]
        assert instance.memory_read(0, 4) == b"mine"
        assert it.calls == []
    assert waits.result() == [I32(6)]
    borrowing = it.pool.instance()
    with borrowing:
        expect(CallError, Cause.USAGE, borrowing.__enter__)
    with borrowing as instance:
        assert instance.call("count") == [I32(2)]


def test_an_error_of_the_callers_own_costs_no_instance(scene):
    """Wrong arguments, and what is raised while one is borrowed."""
    it = scene(max=1)
    expect(CallError, Cause.USAGE, lambda: it.pool.call("add", [1]))
    expect(CallError, Cause.USAGE, lambda: it.pool.call("nothing"))
    with pytest.raises(ZeroDivisionError), it.pool.instance():
        _ = 1 / 0
    assert it.pool.call("count") == [I32(1)]
    assert it.pool._keeper.starts == 1


def test_a_callback_that_would_wait_for_itself_is_refused_at_once(scene):
    """Its call goes on; where another instance may be had, it gets that."""
    it = scene(max=1)
    errors = []
    it.does[1] = lambda: errors.append(expect(CallError, Cause.USAGE, lambda: it.pool.call("add", [1, 1])))
    assert it.pool.call("work", [1]) == [I32(2)]
    assert "would wait for itself" in str(errors[0])
    with it.pool.instance():
        expect(CallError, Cause.USAGE, lambda: it.pool.call("add", [1, 1]))


@pytest.mark.requires(Capability.INDEPENDENCE)
def test_a_callback_may_use_another_instance_of_its_pool(scene):
    """Where one may be had without its giving back its own."""
    it = scene(min=1, max=2)
    answers = []
    it.does[1] = lambda: answers.append(it.pool.call("add", [1, 1]))
    assert it.pool.call("work", [1]) == [I32(2)]
    assert answers == [[I32(2)]]


def test_a_start_function_that_waits_for_its_own_pool_is_refused_at_once(host):
    """It is the pool's own thread that would wait."""
    begins = "(start $go) (func $go (drop (call $work (i32.const 7))))"
    source = SOURCE.replace('(func (export "trap")', f'{begins} (func (export "trap")')
    it, errors = None, []
    made = threading.Event()

    def ask():
        assert made.wait(60)
        errors.append(expect(CallError, Cause.USAGE, lambda: it.pool.call("add", [1, 1])))

    class Asking(Scene):
        def __init__(self, host):
            super().__init__(host, source, max=1)

        def _work(self, caller, value):
            ask()
            return value

    it = Asking(host)
    made.set()
    with it.pool:
        assert it.pool.call("add", [1, 2]) == [I32(3)]
    assert "would wait for itself" in str(errors[0])


@pytest.mark.parametrize("wrong", [-1, float("nan"), "1", True, 86_401])
def test_waits_that_make_no_sense_are_refused(scene, wrong):
    """Of the pool, of a call, and of its end; the pool serves on."""
    it = scene(max=1)
    with pytest.raises(ValueError, match="timeout"):
        it.host.pool(it.pool._keeper.recipe[0], timeout=wrong)
    with it.pool.instance():
        expect(CallError, Cause.USAGE, lambda: Thread(lambda: it.pool.call("count", timeout=wrong)).result())
    expect(CallError, Cause.USAGE, lambda: it.pool.close(grace_s=wrong))
    expect(CallError, Cause.USAGE, lambda: it.pool.wait_ready(wrong))
    assert it.pool.call("count") == [I32(1)]


def test_other_bad_input(scene):
    """Tenants and policies of other types."""
    it = scene(max=1)
    expect(CallError, Cause.USAGE, lambda: it.pool.call("count", tenant=[]))
    expect(CallError, Cause.USAGE, lambda: it.pool.call("count", tenant=1.5))
    with pytest.raises(TypeError, match="restart"):
        it.host.pool(it.pool._keeper.recipe[0], restart=3)
    with pytest.raises(ValueError, match="min"):
        it.host.pool(it.pool._keeper.recipe[0], min=3, max=2)
    assert it.host.pool.__doc__


def test_a_module_that_cannot_be_started_says_why(host):
    """The start's own error, to who waits for it and to who calls; soon the policy ends that."""
    module = host.compile(SOURCE)
    with host.pool(module, WasmImports(), restart=RestartPolicy(on_failure="closed")) as pool:
        expect(InstantiationError, Cause.LINK, lambda: pool.wait_ready(60))
        error = expect(Quarantined, Cause.LINK, lambda: pool.call("count"))
        assert isinstance(error.__cause__, InstantiationError)
        assert (pool._keeper.starts, pool._roster.total) == (0, 0)
    with host.pool(module, "imports", min=0) as pool:
        for _ in range(3):
            expect(InstantiationError, Cause.USAGE, lambda: pool.call("count"))


def test_close_finishes_what_runs_and_refuses_what_waits_and_comes(scene):
    """It returns when all has ended."""
    it = scene(max=1)
    runs, waits = it.holding(0), it.queued(1)
    closing = Thread(lambda: it.pool.close(grace_s=60))
    expect(CallError, Cause.CLOSED, waits.result)
    expect(CallError, Cause.CLOSED, lambda: it.pool.call("count"))
    expect(CallError, Cause.CLOSED, it.pool.instance().__enter__)
    expect(CallError, Cause.CLOSED, it.pool.wait_ready)
    it.release()
    assert runs.result() == [I32(1)]
    closing.result()
    it.pool.close()
    assert it.pool._roster.total == 0
    assert it.calls == [0]
    assert "closed" in repr(it.pool)


def test_close_may_come_from_a_callback(scene):
    """It does not wait for its own call, which ends as one whose instance was closed."""
    it = scene(max=1)
    it.does[0] = lambda: it.pool.close(grace_s=60)
    with contextlib.suppress(CallError):
        assert it.pool.call("work", [0]) == [I32(1)]
    expect(CallError, Cause.CLOSED, lambda: it.pool.call("count"))


def test_a_pool_that_is_dropped_ends(host):
    """With its thread, and its instances."""
    pool = host.pool(host.compile('(module (func (export "f")))'), max=1)
    assert pool.wait_ready(60)
    thread, gone = pool._keeper._thread, weakref.ref(pool)
    roster = pool._roster
    del pool
    gc.collect()
    assert gone() is None
    thread.join(60)
    assert not thread.is_alive()
    assert roster.total == 0


def test_a_fork_of_the_process_has_no_pool(scene):
    """It is told so, and its end does nothing to the parent's."""
    it = scene(max=1)
    assert it.pool.call("count") == [I32(1)]
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for use in (lambda: it.pool.call("count"), it.pool.instance().__enter__):
                with pytest.raises(CallError, match="not to a fork"):
                    use()
            it.pool.close()
            assert "another process" in repr(it.pool)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert it.pool.call("count") == [I32(2)]


@pytest.mark.hammer
def test_many_threads_each_get_their_own_answer(scene):
    """Sixteen threads, three instances: every call once, every instance one caller's at a time."""
    it = scene(min=1, max=3)
    wrong, together, barrier = [], [], threading.Barrier(16)

    def use(base):
        barrier.wait(60)
        for n in range(base, base + 40):
            if n % 4:
                answer = it.pool.call("work", [n])
            else:
                with it.pool.instance() as instance:
                    answer = instance.call("work", [n])
            together.append(len(it.pool._roster.leased))
            if answer != [I32(n + 1)]:
                wrong.append((n, answer))

    threads = [Thread(lambda k=k: use(1000 * k)) for k in range(16)]
    for thread in threads:
        thread.result()
    assert wrong == []
    assert sorted(it.calls) == [1000 * k + n for k in range(16) for n in range(40)]
    assert max(together) <= 3
    assert it.pool._keeper.starts <= 3
    eventually(lambda: not it.pool._roster.leased)
