"""Pools whose workers die: what is replaced, what is not, and that no call is lost or made twice unasked."""

from __future__ import annotations

import gc
import os
import signal
import threading

import pytest
from pooling import Thread, eventually, expect

from pdsandbox import (
    I32,
    Capability,
    Cause,
    PoolTimeout,
    Quarantined,
    RestartPolicy,
    Standing,
    WallClockExceeded,
    WorkerCrashed,
)

pytestmark = [
    pytest.mark.deaths,
    pytest.mark.parametrize("host_kind", ["supervisor", "module"], indirect=True, scope="session"),
]


def policy(**options):
    return RestartPolicy(**{"restarts": 1000, "backoff_s": 0} | options)


def dies(it, value, **options):
    it.does[value] = it.dying
    expect(WorkerCrashed, Cause.SIGNAL, lambda: it.pool.call("work", [value], **options))


def test_a_death_ends_its_call_and_is_made_good(scene):
    """The call whose fate is not known is not made again."""
    it = scene(max=1, restart=policy())
    dies(it, 1)
    assert it.pool.call("work", [2]) == [I32(3)]
    assert it.calls == [1, 2]
    assert it.pool._keeper.starts == 2


def test_a_deadline_is_a_death(scene):
    """The worker is gone, and another one serves."""
    it = scene(max=1, restart=policy())
    expect(WallClockExceeded, Cause.WALL, lambda: it.pool.call("loop", wall_s=0.05, idempotent=True))
    assert it.pool.call("count") == [I32(1)]


def test_an_idempotent_call_is_made_once_more(scene):
    """Once: a second death is raised."""
    it = scene(max=1, restart=policy())
    deaths = [0]

    def dying():
        deaths[0] += 1
        if deaths[0] != 2:
            it.dying()

    it.does[1] = dying
    assert it.pool.call("work", [1], idempotent=True) == [I32(2)]
    assert it.calls == [1, 1]
    dies(it, 5, idempotent=True)
    assert it.calls == [1, 1, 5, 5]


def test_one_that_died_while_it_idled_costs_no_call(scene):
    """Nothing ran in it for the call, which gets another one."""
    it = scene(max=1, restart=policy())
    for n in range(3):
        with it.pool.instance() as instance:
            pid = instance.pid
        os.kill(pid, signal.SIGKILL)
        eventually(lambda instance=instance: not instance.alive)
        assert it.pool.call("work", [n]) == [I32(n + 1)]
    assert it.calls == [0, 1, 2]


def test_those_that_died_while_they_idled_are_replaced_unasked(scene):
    """Ready before anybody asks."""
    it = scene(min=1, max=1, restart=policy())
    with it.pool.instance() as instance:
        pass
    os.kill(instance.pid, signal.SIGKILL)
    eventually(lambda: it.pool._keeper.starts == 2)
    assert it.pool.call("count") == [I32(1)]


def test_who_waits_for_readiness_is_not_told_of_the_dead(scene):
    """Not even when they died this very moment, and nobody has looked."""
    it = scene(min=1, max=1, restart=policy())
    assert it.pool.wait_ready(60)
    for starts in (2, 3, 4):
        (slot,) = it.pool._roster.idle
        os.kill(slot.instance.pid, signal.SIGKILL)
        eventually(lambda slot=slot: not slot.instance.alive)
        assert it.pool.wait_ready(60)
        assert it.pool._keeper.starts == starts
        assert [slot.instance.alive for slot in it.pool._roster.idle] == [True]


def test_an_instance_that_died_while_borrowed_is_counted(scene):
    """Whoever had it was told, or does something else by now."""
    it = scene(max=1, restart=policy(on_failure="closed"))
    with it.pool.instance() as instance:
        os.kill(instance.pid, signal.SIGKILL)
        eventually(lambda: not instance.alive)
    error = expect(Quarantined, Cause.SIGNAL, lambda: it.pool.call("count"))
    assert error.retry_after_s == pytest.approx(300, abs=60)


def test_a_killed_or_closed_instance_is_replaced_and_not_counted(scene):
    """That was not the plugin's doing."""
    it = scene(max=1, restart=policy(on_failure="closed"))
    for end in ("kill", "close"):
        with it.pool.instance() as instance:
            getattr(instance, end)()
        assert it.pool.call("count") == [I32(1)]
    assert it.pool.standing is Standing.ADMITTED


def test_a_plugin_that_keeps_dying_costs_a_bounded_number_of_workers(scene):
    """Those who wait then are told as well, and `reset` ends it."""
    it = scene(max=1, restart=policy(restarts=3))
    told = 0
    for n in range(50):
        it.does[n] = it.dying
        try:
            it.pool.call("work", [n])
        except Quarantined:
            told += 1
        except WorkerCrashed:
            pass
    assert (told, it.calls) == (46, [0, 1, 2, 3])
    assert (it.pool.standing, it.pool._keeper.starts) == (Standing.QUARANTINED, 4)
    it.pool.reset()
    assert it.pool.call("work", [100]) == [I32(101)]


def test_those_who_wait_when_it_is_quarantined_are_told(scene):
    """Not left waiting for an instance that does not come."""
    it = scene(max=1, restart=policy(on_failure="closed"))
    it.does[0] = it.dying
    dying, waits = it.holding(0), it.queued(1)
    it.release()
    expect(WorkerCrashed, Cause.SIGNAL, dying.result)
    expect(Quarantined, Cause.SIGNAL, waits.result)
    assert it.calls == [0]


def test_open_callers_never_see_a_death(scene):
    """Neither the one whose call it was, nor those after it; a full pool is something else."""
    it = scene(max=1, restart=policy(on_failure="open"))
    with it.pool.instance():
        expect(PoolTimeout, Cause.USAGE, lambda: Thread(lambda: it.pool.call("count", timeout=0)).result())
    it.does[0] = it.dying
    assert [it.pool.call("work", [n], default=[]) for n in range(3)] == [[], [], []]
    assert it.calls == [0]


def test_after_a_quarantine_one_instance_is_tried(scene):
    """It serves, so the pool is admitted again."""
    it = scene(min=1, max=2, restart=policy(on_failure="closed", quarantine_s=0.05))
    dies(it, 0)
    eventually(lambda: it.pool.standing is not Standing.QUARANTINED)
    assert it.pool.call("work", [1]) == [I32(2)]
    assert it.pool.standing is Standing.ADMITTED


def test_the_host_is_closed_under_a_pool(host_factory):
    """Its calls end as those of any instance do, and its thread with them."""
    host = host_factory()
    pool = host.pool(host.compile('(module (func (export "f")))'), max=1)
    assert pool.call("f") == []
    host.close()
    for _ in range(2):
        with pytest.raises(Exception, match="closed") as caught:
            pool.call("f")
        assert caught.value.cause is Cause.CLOSED
    pool.close()


@pytest.mark.hammer
@pytest.mark.requires(Capability.INDEPENDENCE)
def test_hundreds_of_deaths_under_load_lose_no_call_and_double_none(scene):
    """Each call answers once, or is told of its own death; what is left is a pool as before, and nothing else."""
    it = scene(min=2, max=4, restart=policy())
    assert it.pool.wait_ready(60)
    outcomes, lock, barrier = {}, threading.Lock(), threading.Barrier(8)

    def killing():
        me = threading.get_ident()
        mine = [slot for slot in list(it.pool._roster.leased) if slot.lease is not None and slot.lease.thread == me]
        os.kill(mine[0].instance.pid, signal.SIGKILL)

    def use(base):
        barrier.wait(60)
        for n in range(base, base + 100):
            if n % 4 == 0:
                it.does[n] = killing
            try:
                answer = it.pool.call("work", [n])
            except WorkerCrashed as exc:
                answer = exc.cause
            with lock:
                assert n not in outcomes
                outcomes[n] = answer

    for thread in [Thread(lambda k=k: use(1000 * k)) for k in range(8)]:
        thread.result()
    expected = {
        n: Cause.SIGNAL if n % 4 == 0 else [I32(n + 1)] for k in range(8) for n in range(1000 * k, 1000 * k + 100)
    }
    assert outcomes == expected
    assert sorted(it.calls) == sorted(expected)
    assert it.pool.wait_ready(60)
    eventually(lambda: it.pool._roster.total <= 4 and not it.pool._roster.ending)
    gc.collect()
    assert not it.pool._roster.leased
    assert it.pool._keeper.starts <= 200 + 4
