"""Pools on event loops whose workers die, and whose loop does: what is made good, and that nothing is lost or left."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import threading

import pytest
import uvloop
from looping import expect
from looping_pools import STARTING, Scene, eventually, policy, soon

from pdsandbox import (
    I32,
    AsyncSupervisor,
    CallError,
    Cause,
    Limits,
    PoolTimeout,
    Quarantined,
    Standing,
    WallClockExceeded,
    WorkerCrashed,
    upkeep,
)

pytestmark = pytest.mark.deaths


async def dies(it, value, **options):
    it.does[value] = it.dying
    return await expect(WorkerCrashed, Cause.SIGNAL, it.pool.call("work", [value], **options))


def test_a_death_ends_its_call_and_is_made_good(on_pool):
    """The call whose fate is not known is not made again, but for one that may be: once. A deadline is a death."""

    async def main(it):
        await dies(it, 1)
        assert await it.pool.call("work", [2]) == [I32(3)]
        await expect(WallClockExceeded, Cause.WALL, it.pool.call("loop", wall_s=0.1, idempotent=True))
        assert await it.pool.call("count") == [I32(1)]
        assert it.calls == [1, 2, 99]
        assert it.pool._keeper.starts == 3
        deadly = [it.dying]
        it.does[3] = lambda: deadly.pop()() if deadly else None
        assert await it.pool.call("work", [3], idempotent=True) == [I32(4)]
        await dies(it, 4, idempotent=True)
        assert it.calls[3:] == [3, 3, 4, 4]

    on_pool(main, max=1, restart=policy())


def test_those_that_died_while_they_idled_cost_no_call(on_pool, monkeypatch):
    """Nothing ran in them for anybody; they are counted, and replaced, also unasked, at the next look;
    and at once for who waits for readiness."""
    monkeypatch.setattr(upkeep, "_TICK_S", 0.05)

    async def main(it):
        async with it.pool.instance() as instance:
            pass
        os.kill(instance.pid, signal.SIGKILL)
        await eventually(lambda: not instance.alive)
        assert await it.pool.call("work", [1]) == [I32(2)]
        async with it.pool.instance() as instance:
            pass
        os.kill(instance.pid, signal.SIGKILL)
        await eventually(lambda: it.pool._keeper.starts == 3)
        assert (it.calls, len(it.pool._keeper.restarts._failures)) == ([1], 2)
        monkeypatch.setattr(upkeep, "_TICK_S", 3600.0)
        it.pool._keeper._look()  # its next look is an hour away by now
        (slot,) = it.pool._roster.idle
        os.kill(slot.instance.pid, signal.SIGKILL)
        await eventually(lambda: not slot.instance.alive)
        assert await it.pool.wait_ready(10)
        assert it.pool._keeper.starts == 4

    on_pool(main, min=1, max=1, restart=policy())


def test_what_counts_against_a_plugin(on_pool):
    """Not that somebody killed or closed an instance, which is replaced; but that it died while it was borrowed. The
    host hears of the quarantine, once."""

    async def main(it):
        quarantined = it.host._host.stats().quarantined
        for end in ("kill", "close"):
            async with it.pool.instance() as instance:
                await getattr(instance, end)()
            assert await it.pool.call("count") == [I32(1)]
        assert it.pool.standing is Standing.ADMITTED
        async with it.pool.instance() as instance:
            os.kill(instance.pid, signal.SIGKILL)
            await eventually(lambda: not instance.alive)
        for _ in range(2):
            error = await expect(Quarantined, Cause.SIGNAL, it.pool.call("count"))
            assert error.retry_after_s == pytest.approx(300, abs=60)
        assert it.host._host.stats().quarantined == quarantined + 1
        it.pool.reset()
        assert await it.pool.call("count") == [I32(1)]

    on_pool(main, max=1, restart=policy(on_failure="closed"))


def test_a_plugin_that_keeps_dying_costs_a_bounded_number_of_workers(on_pool):
    """Those who wait when it comes to that are told as well."""

    async def main(it):
        told = 0
        for n in range(20):
            it.does[n] = it.dying
            try:
                await it.pool.call("work", [n])
            except Quarantined:
                told += 1
            except WorkerCrashed:
                pass
        assert (told, it.calls) == (16, [0, 1, 2, 3])
        assert (it.pool.standing, it.pool._keeper.starts) == (Standing.QUARANTINED, 4)
        it.pool.reset()
        for n in range(3):
            await dies(it, n)
        it.does[50] = it.dying
        dying, waits = await it.holding(50), await it.queued(51)
        it.release()
        await expect(WorkerCrashed, Cause.SIGNAL, dying)
        await expect(Quarantined, Cause.SIGNAL, waits)

    on_pool(main, max=1, restart=policy(restarts=3))


def test_a_start_that_keeps_failing_is_tried_one_at_a_time(on_pool):
    """However many are wanted at once."""

    async def main(it):
        await expect(WorkerCrashed, Cause.SIGNAL, it.pool.wait_ready(60))
        await eventually(lambda: it.pool.standing is Standing.QUARANTINED)
        assert (len(it.calls), it.pool._keeper.starts) == (3, 0)

    def killing(it):
        async def kill():
            (start,) = it.pool._keeper._under_way
            await eventually(lambda: start.handle.pid)  # whose report may be slower than its worker
            os.kill(start.handle.pid, signal.SIGKILL)

        it.does[7] = kill
        return main(it)

    on_pool(killing, STARTING, min=8, max=8, restart=policy(restarts=2))


def test_open_callers_never_see_a_death(on_pool):
    """Neither the one whose call it was, nor those after it; a full pool is something else. When its quarantine is
    over, one instance is tried; it serves, and all is well."""

    async def main(it):
        held = await it.holding(9)
        await expect(PoolTimeout, Cause.USAGE, it.pool.call("count", timeout=0, default=1))
        it.release()
        await soon(held)
        it.does[0] = it.dying
        assert [await it.pool.call("work", [n], default=[]) for n in range(3)] == [[], [], []]
        assert it.calls == [9, 0]
        await eventually(lambda: it.pool.standing is not Standing.QUARANTINED)
        assert await it.pool.call("work", [4], default=[]) == [I32(5)]
        assert it.pool.standing is Standing.ADMITTED

    on_pool(main, max=1, restart=policy(on_failure="open", quarantine_s=0.5))


def test_the_host_is_closed_under_a_pool(on_loop):
    """Its calls end as those of any instance do, and so does the pool."""

    async def main(host):
        scene = Scene(host, lambda *made: host.pool(*made, max=1))
        async with await scene.begin():
            task = await scene.looping()
            await host.close()
            await expect(CallError, Cause.CLOSED, task)
            for _ in range(2):
                with pytest.raises(Exception, match="closed") as caught:
                    await scene.pool.call("count")
                assert caught.value.cause is Cause.CLOSED

    on_loop(main)


@pytest.mark.hammer
def test_deaths_and_cancellations_under_load_lose_no_call_and_double_none(on_pool):
    """Each call answers once, or is told of its own death or cancellation; what is left is a pool as before."""

    async def main(it):
        rand, outcomes = random.Random(6), {}

        leases, take = {}, it.pool._take

        async def watched(lease, wait_s):
            leases[asyncio.current_task().get_name()] = lease
            return await take(lease, wait_s)

        it.pool._take = watched

        async def use(base):
            for n in range(base, base + 12):
                name = f"call {n}"
                task = asyncio.create_task(it.pool.call("work", [n]), name=name)
                if n % 4 == 0:
                    it.does[n] = lambda name=name: os.kill(leases[name].slot.instance.pid, signal.SIGKILL)
                elif n % 4 == 1:
                    for _ in range(rand.randrange(12)):
                        await asyncio.sleep(0)
                    task.cancel()
                (outcomes[n],) = await asyncio.gather(task, return_exceptions=True)

        await soon(asyncio.gather(*(use(1000 * k) for k in range(8))))
        for n, outcome in outcomes.items():
            if n % 4 == 0:
                assert isinstance(outcome, WorkerCrashed)
                assert outcome.cause is Cause.SIGNAL
            else:
                assert outcome == [I32(n + 1)] or (n % 4 == 1 and isinstance(outcome, asyncio.CancelledError))
        assert len(it.calls) == len(set(it.calls))
        assert {n for n in outcomes if n % 4 != 1} <= set(it.calls)
        assert await it.pool.wait_ready(60)
        await eventually(lambda: it.pool._keeper.over and it.pool._roster.total <= 4)
        assert not it.pool._roster.leased

    on_pool(main, min=2, max=4, restart=policy())


def test_another_loop_is_refused(on_pool):
    """In another thread, with a clear error, for whatever is asked of it; and a fork of the process is, too."""

    async def main(it):
        assert await it.pool.call("count") == [I32(1)]

        async def foreign():
            for use in (it.pool.call("count"), it.pool.instance().__aenter__(), it.pool.swap(None), it.pool.close()):
                error = await expect(CallError, Cause.USAGE, use)
                assert "another event loop" in error.message

        await asyncio.to_thread(lambda: asyncio.run(foreign()))
        with pytest.raises(CallError, match="only by a task of its event loop"):
            await asyncio.to_thread(it.pool.reset)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                coroutine = it.pool.call("count")
                with pytest.raises(CallError, match="not to a fork"):
                    coroutine.send(None)
                with pytest.raises(StopIteration):
                    it.pool.close().send(None)
                assert "another process" in repr(it.pool)
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0  # noqa: ASYNC222
        assert await it.pool.call("count") == [I32(2)]

    on_pool(main, max=1)


@pytest.mark.parametrize("then", ["dropped", "closed", "in a thread", "uvloop"])
def test_a_loop_that_is_closed_with_calls_under_way(then):
    """Nothing is left once the pool is dropped, or closed from another loop; the same when it was another thread's."""

    def closing():
        loop = uvloop.new_event_loop() if then == "uvloop" else asyncio.new_event_loop()

        async def begin():
            host = AsyncSupervisor(limits=Limits(fuel=None, wall_s=60.0), spares=0)
            scene = Scene(host, lambda *made: host.pool(*made, min=2, max=2))
            await scene.begin()
            assert await scene.pool.wait_ready(60)
            runs, holds = await scene.looping(), await scene.holding(1)
            waits = await scene.queued(2)
            for task in (runs, holds, waits, *asyncio.all_tasks()):
                task._log_destroy_pending = False  # which asyncio would report, rightly
            return scene

        scene = loop.run_until_complete(begin())
        loop.close()
        return scene

    scenes = []
    if then == "in a thread":
        thread = threading.Thread(target=lambda: scenes.append(closing()))
        thread.start()
        thread.join()
    else:
        scenes.append(closing())
    if then == "closed":
        pool = scenes[0].pool
        asyncio.run(pool.close())
        assert pool._roster.total == len(pool._roster.leased)
        assert not any(slot.instance.alive for slot in pool._roster.leased)
    scenes.clear()
    gc.collect()
