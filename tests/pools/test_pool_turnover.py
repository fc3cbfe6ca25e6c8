"""Instances that are replaced by design: after each call, after many, when idle, by a new module, between tenants."""

from __future__ import annotations

import threading

import pytest
from pooling import SOURCE, Thread, eventually, expect

from pdsandbox import I32, CallError, Capability, Cause, InstantiationError, PoolFull, Trap, WasmImports

TEN_MORE = SOURCE.replace("(call $work (local.get 0))", "(i32.add (i32.const 10) (call $work (local.get 0)))")


def test_each_call_has_an_instance_of_its_own(scene):
    """Nothing of the call before is in its memory, whatever became of that."""
    it = scene(min=2, max=3, reset="each_call")
    for _ in range(4):
        assert it.pool.call("count") == [I32(1)]
        expect(Trap, Cause.GUEST_TRAP, lambda: it.pool.call("trap"))
        with it.pool.instance() as instance:
            assert instance.memory_read(0, 4) == bytes(4)
            assert [instance.call("count"), instance.call("count")] == [[I32(1)], [I32(2)]]
            instance.memory_write(0, b"mine")
    eventually(lambda: it.pool._roster.total == 2)
    assert it.pool._keeper.starts >= 12


def test_max_calls_replaces_an_instance_after_so_many(scene):
    """Not one earlier."""
    it = scene(max=1, max_calls=3)
    assert [it.pool.call("count") for _ in range(7)] == [[I32(n)] for n in (1, 2, 3, 1, 2, 3, 1)]


def test_idle_instances_end_when_their_time_is_over(scene):
    """Down to the minimum."""
    it = scene(min=1, max=3, max_idle_s=0.2)
    with it.pool.instance(), Borrower(it.pool), Borrower(it.pool):
        assert it.pool._roster.total == 3
    eventually(lambda: it.pool._roster.total == 1)
    assert it.pool.call("count")


class Borrower:
    """Another thread that has an instance meanwhile."""

    def __init__(self, pool):
        self._pool, self._has, self._done = pool, threading.Event(), threading.Event()

    def _borrow(self):
        with self._pool.instance():
            self._has.set()
            assert self._done.wait(60)

    def __enter__(self):
        self._thread = Thread(self._borrow)
        assert self._has.wait(60)

    def __exit__(self, *_exc):
        self._done.set()
        self._thread.result()


def test_a_swap_serves_every_later_call_with_the_new_module(scene):
    """Those that run finish in the old one, and those that wait get the new one."""
    it = scene(max=1)
    runs, waits = it.holding(0), it.queued(1)
    it.pool.swap(it.host.compile(TEN_MORE))
    it.release()
    assert (runs.result(), waits.result(), it.pool.call("work", [2])) == ([I32(1)], [I32(12)], [I32(13)])
    assert it.calls[0] == 0
    assert sorted(it.calls) == [0, 1, 2]
    eventually(lambda: it.pool._roster.total == 1)


def test_a_swap_may_bring_other_imports(scene):
    """They stay until the next one."""
    it, other = scene(max=1), scene(max=1)
    it.pool.swap(it.pool._keeper.recipe[0], other.imports)
    assert it.pool.call("work", [1]) == [I32(2)]
    it.pool.swap(it.host.compile(TEN_MORE))
    assert it.pool.call("work", [2]) == [I32(13)]
    assert (it.calls, other.calls) == ([], [1, 2])


def test_a_swap_to_what_cannot_start_changes_nothing(scene):
    """It says why, and the old module serves on."""
    it = scene(max=1)
    assert it.pool.call("count") == [I32(1)]
    expect(InstantiationError, Cause.LINK, lambda: it.pool.swap(it.host.compile(TEN_MORE), WasmImports()))
    expect(InstantiationError, Cause.USAGE, lambda: it.pool.swap("no module"))
    assert it.pool.call("count") == [I32(2)]
    it.pool.close()
    expect(CallError, Cause.CLOSED, lambda: it.pool.swap(it.host.compile(TEN_MORE)))


def test_a_swap_whose_start_function_swaps_is_refused_at_once(scene):
    """It would wait for itself; the outer one goes on."""
    it, errors = scene(max=1), []
    begins = "(start $go) (func $go (drop (call $work (i32.const 7))))"
    module = it.host.compile(SOURCE.replace('(func (export "trap")', f'{begins} (func (export "trap")'))
    it.does[7] = lambda: errors.append(expect(CallError, Cause.USAGE, lambda: it.pool.swap(module)))
    it.pool.swap(module)
    assert "cannot be swapped" in str(errors[0])
    assert it.pool.call("work", [1]) == [I32(2)]


@pytest.mark.hammer
def test_swaps_under_load_fail_no_call(scene):
    """Every call is answered by one of the versions, and none by one that was gone before it began."""
    it = scene(min=1, max=3)
    modules = [it.host.compile(SOURCE.replace("(call $work (local.get 0))", f"(i32.const {n})")) for n in range(12)]
    it.pool.swap(modules[0])
    current, done, answers = [0], threading.Event(), []

    def use():
        while not done.is_set():
            before = current[0]
            (answer,) = it.pool.call("work", [0])
            answers.append((before, answer.value))

    threads = [Thread(use) for _ in range(6)]
    for n in range(1, 12):
        seen = len(answers)
        it.pool.swap(modules[n])
        current[0] = n
        eventually(lambda seen=seen: len(answers) >= seen + 20)
    done.set()
    for thread in threads:
        thread.result()
    assert [pair for pair in answers if pair[1] < pair[0]] == []
    assert {value for _, value in answers} == set(range(12))


@pytest.mark.requires(Capability.INDEPENDENCE)
def test_no_tenant_sees_anothers_memory(scene):
    """Where all instances are somebody else's, one of them ends to make room."""
    it = scene(max=2)
    for tenant in ("a", "b", None, 4):
        assert [it.pool.call("count", tenant=tenant) for _ in range(3)] == [[I32(n)] for n in (1, 2, 3)]
    assert it.pool.call("count", tenant=4) == [I32(4)]
    assert it.pool.call("count", tenant="a") == [I32(1)]


@pytest.mark.requires(Capability.INDEPENDENCE)
def test_a_tenants_calls_are_limited(scene):
    """Those that run, and those that wait; the others have what is left."""
    it = scene(max=2, tenant_running=1, tenant_queue=1)
    runs = it.holding(0, tenant="greedy")
    waits = it.queued(1, tenant="greedy")
    error = expect(PoolFull, Cause.USAGE, lambda: it.pool.call("work", [2], tenant="greedy"))
    assert 'the pool is full for tenant "greedy": 1 of its calls run, and 1 wait (tenant_queue=1)' in str(error)
    assert (error.tenant, error.limit, error.observed) == ("greedy", 1, 1)
    assert it.pool.call("work", [3], tenant="modest") == [I32(4)]
    it.release()
    assert (runs.result(), waits.result()) == ([I32(1)], [I32(2)])
    assert it.calls == [0, 3, 1]


@pytest.mark.hammer
@pytest.mark.requires(Capability.INDEPENDENCE)
def test_tenants_under_load_are_all_served(scene):
    """More tenants than instances; one of them has most of the callers."""
    it = scene(min=1, max=2, tenant_running=1)
    barrier = threading.Barrier(7)
    counts = {}

    def use(tenant, who):
        barrier.wait(60)
        counts[who] = [it.pool.call("count", tenant=tenant)[0].value for _ in range(15)]

    tenants = ["greedy"] * 4 + ["a", "b", "c"]
    for thread in [Thread(lambda t=tenant, w=who: use(t, w)) for who, tenant in enumerate(tenants)]:
        thread.result()
    assert {len(each) for each in counts.values()} == {15}
    assert it.pool._roster.waiting == 0
    assert len(it.pool._roster._accounts) <= 2
