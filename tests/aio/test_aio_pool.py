"""Pools on event loops: calls, the queue, what is refused, cancelling, and tenants."""

from __future__ import annotations

import asyncio
import contextvars

import pytest
from looping import cancelled, expect
from looping_pools import SOURCE, STARTING, Scene, eventually, policy, soon

from pdsandbox import (
    I32,
    CallError,
    Cause,
    EngineConfig,
    InstantiationError,
    PoolFull,
    PoolTimeout,
    Quarantined,
    RestartPolicy,
    Standing,
    Trap,
    WasmImports,
    WorkerCrashed,
)
from pdsandbox.aio.keeper import hand_over


def test_calls_are_answered_by_instances_that_stay(on_pool):
    """The minimum is ready before it is asked for, and serves many calls; a trap, and a caller's own mistake, end one
    call and nothing else."""

    async def main(it):
        assert await it.pool.wait_ready(60)
        assert "0 of 2 instances are in use (max=4), 0 calls wait" in repr(it.pool)
        assert await it.pool.call("count") == [I32(1)]
        await expect(Trap, Cause.GUEST_TRAP, it.pool.call("trap"))
        await expect(CallError, Cause.USAGE, it.pool.call("add", [1]))
        await expect(CallError, Cause.USAGE, it.pool.call("nothing"))
        with pytest.raises(ZeroDivisionError):
            async with it.pool.instance():
                _ = 1 / 0
        assert await it.pool.call("count", fuel=1000, wall_s=None) == [I32(2)]
        assert (it.pool._keeper.starts, it.pool._roster.total) == (2, 2)

    on_pool(main, min=2, max=4)


def test_more_are_started_for_callers_who_come_together(on_pool):
    """Up to `max`; then as many wait as may, one more is PoolFull, and one that has waited for long enough PoolTimeout:
    both say the numbers, and their calls are never made."""

    async def main(it):
        running = [await it.holding(n) for n in range(3)]
        waiting = [await it.queued(3), await it.queued(4)]
        full = await expect(PoolFull, Cause.USAGE, it.pool.call("work", [5]))
        assert full.message == "the pool is full: 2 wait (queue=2); 3 of 3 instances are in use (max=3)"
        assert (full.limit, full.observed, full.waiting, full.running, full.instances) == (2, 2, 2, 3, 3)
        await cancelled(waiting.pop())
        late = await expect(PoolTimeout, Cause.USAGE, it.pool.call("work", [6], timeout=0.02))
        assert "was free within 0.02 s; 3 of 3 instances are in use (max=3), 1 more wait" in late.message
        assert (late.limit, late.waiting, late.running) == (0.02, 1, 3)
        assert late.waited_s == late.observed >= 0.018  # uvloop's timers count in milliseconds
        late = await expect(PoolTimeout, Cause.USAGE, it.pool.instance(timeout=0).__aenter__())
        assert late.limit == 0
        it.release()
        assert [await soon(task) for task in [*running, *waiting]] == [[I32(n + 1)] for n in range(4)]
        assert it.calls == [0, 1, 2, 3]
        assert it.pool._keeper.starts == 3

    on_pool(main, min=0, max=3, queue=2, timeout=60)


def test_a_borrowed_instance_is_one_callers_alone(on_pool):
    """Calls and memory in between are the same instance's; then others may have it."""

    outside = contextvars.copy_context()  # of somebody else: what a borrower starts may be what it waits for

    async def main(it):
        borrowing = it.pool.instance()
        async with borrowing as instance:
            await instance.memory_write(0, b"mine")
            waits = asyncio.get_running_loop().create_task(it.pool.call("work", [5]), context=outside)
            assert await instance.call("count") == [I32(1)]
            assert await instance.memory_read(0, 4) == b"mine"
            assert (it.calls, it.pool._roster.waiting) == ([], 1)
            await expect(CallError, Cause.USAGE, borrowing.__aenter__())
        assert await soon(waits) == [I32(6)]
        async with borrowing as instance:
            assert await instance.call("count") == [I32(2)]
        runs, waits = await it.holding(0), await it.queued(1)  # which would wait for itself if it still had one
        it.release()
        assert (await soon(runs), await soon(waits)) == ([I32(1)], [I32(2)])

    on_pool(main, max=1)


def test_who_would_wait_for_itself_is_refused_at_once(on_pool):
    """A host function, a task that has one, and one that such a task waits for; their calls go on."""

    async def main(it):
        errors = []

        async def again():
            errors.append(await expect(CallError, Cause.USAGE, it.pool.call("add", [1, 1])))

        it.does[1] = again
        assert await it.pool.call("work", [1]) == [I32(2)]
        async with it.pool.instance():
            await again()
            await asyncio.create_task(again())
        assert len(errors) == 3
        assert all("this task, which has one already or starts one, would wait for itself" in str(e) for e in errors)
        assert await it.pool.call("add", [1, 1]) == [I32(2)]

    on_pool(main, max=1)


def test_a_host_function_may_use_another_instance_of_its_pool(on_pool):
    """Where one may be had without its giving back its own."""

    async def main(it):
        answers = []

        async def another():
            answers.append(await it.pool.call("add", [1, 1]))

        it.does[1] = another
        assert await it.pool.call("work", [1]) == [I32(2)]
        assert answers == [[I32(2)]]

    on_pool(main, min=1, max=2)


def test_a_start_function_that_waits_for_its_own_pool(on_pool):
    """Refused at once: for a call, for readiness, and for a swap in a swap."""

    async def main(it):
        errors = []

        async def ask():
            errors.append(await expect(CallError, Cause.USAGE, it.pool.call("add", [1, 1])))
            errors.append(await expect(CallError, Cause.USAGE, it.pool.wait_ready()))

        async def swap():
            errors.append(await expect(CallError, Cause.USAGE, it.pool.swap(it.pool._keeper.recipe[0])))

        it.does[7] = ask
        assert await it.pool.call("add", [1, 2]) == [I32(3)]
        it.does[7] = swap
        await it.pool.swap(it.pool._keeper.recipe[0])
        assert ["would wait for itself" in str(error) for error in errors] == [True, True, False]
        assert "cannot be swapped" in str(errors[2])

    on_pool(main, STARTING, max=1)


def test_what_makes_no_sense_is_refused(on_pool):
    """Of the pool, of a call, and of its end; the pool serves on."""

    async def main(it):
        module = it.pool._keeper.recipe[0]
        for wrong in (-1, float("nan"), "1", True, 86_401):
            with pytest.raises(ValueError, match="timeout"):
                it.host.pool(module, timeout=wrong)
            async with it.pool.instance():
                await expect(CallError, Cause.USAGE, it.pool.call("count", timeout=wrong))
            await expect(CallError, Cause.USAGE, it.pool.close(grace_s=wrong))
            await expect(CallError, Cause.USAGE, it.pool.wait_ready(wrong))
        for tenant in ([], 1.5):
            await expect(CallError, Cause.USAGE, it.pool.call("count", tenant=tenant))
            await expect(CallError, Cause.USAGE, it.pool.instance(tenant=tenant).__aenter__())
        with pytest.raises(TypeError, match="restart"):
            it.host.pool(module, restart=3)
        with pytest.raises(ValueError, match="min"):
            it.host.pool(module, min=3, max=2)
        assert await it.pool.call("count") == [I32(1)]

    on_pool(main, max=1)


def test_a_module_that_cannot_be_started_says_why(lasting, host):
    """The start's own error, to who waits for it and to who calls; soon the policy ends that."""

    async def main():
        module = await host.compile(SOURCE)
        async with host.pool(module, WasmImports(), restart=RestartPolicy(on_failure="closed")) as pool:
            await expect(InstantiationError, Cause.LINK, pool.wait_ready(60))
            error = await expect(Quarantined, Cause.LINK, pool.call("count"))
            assert isinstance(error.__cause__, InstantiationError)
            assert (pool._keeper.starts, pool._roster.total) == (0, 0)
        async with host.pool(module, "imports", min=0) as pool:
            for _ in range(3):
                await expect(InstantiationError, Cause.USAGE, pool.call("count"))

    lasting(main)


def test_cancelling_who_waits_gives_up_its_place_and_loses_no_instance(on_pool):
    """After any number of steps of the loop; those behind it move up."""

    async def main(it):
        runs, behind = await it.holding(1), []
        for steps in range(4):
            waits = asyncio.create_task(it.pool.call("work", [2]))
            behind.append(asyncio.create_task(it.pool.call("work", [3])))
            for _ in range(steps):
                await asyncio.sleep(0)
            await cancelled(waits)
        await eventually(lambda: it.pool._roster.waiting == 4)
        it.release()
        assert [await soon(task) for task in (runs, *behind)] == [[I32(2)], *[[I32(4)]] * 4]
        assert it.calls == [1, 3, 3, 3, 3]
        assert await it.pool.call("count") == [I32(1)]
        assert (it.pool._keeper.starts, it.pool._roster.waiting) == (1, 0)

    on_pool(main, max=1)


@pytest.mark.parametrize("how", ["cancelled", "late"])
def test_one_that_has_just_been_given_an_instance(on_pool, how):
    """Cancelled in that very moment: the next one gets it. Its time over in that moment: it is served after all."""

    async def main(it):
        async with it.pool.instance():
            pass
        runs = await it.holding(0)
        given, behind = await it.queued(1), await it.queued(2)
        roster = it.pool._roster
        (lease,) = (slot.lease for slot in roster.leased)
        (first, _) = roster._accounts[None].waiting
        if how == "late":
            hand_over((first,))  # as its timer does
        it.pool._give(lease)  # as at the end of the call that runs
        assert first.slot is not None
        if how == "cancelled":
            await cancelled(given)
        it.release()
        assert await soon(behind) == [I32(3)]
        if how == "late":
            assert await soon(given) == [I32(2)]
        await soon(runs)
        assert it.calls == ([0, 2] if how == "cancelled" else [0, 1, 2])

    on_pool(main, max=1)


def test_cancelling_a_call_that_runs_ends_its_guest(on_pool):
    """Whether it computes or waits for a host function; another one takes its place, and nobody is to blame. Those who
    wait are served."""

    async def main(it):
        for n, begin in enumerate((it.looping, lambda: it.holding(50))):
            task, waits = await begin(), await it.queued(n)
            (slot,) = it.pool._roster.leased
            await cancelled(task)
            assert not slot.instance.alive
            assert await soon(waits) == [I32(n + 1)]
        assert (it.pool._keeper.starts, it.pool.standing) == (3, Standing.ADMITTED)

    on_pool(main, max=1, restart=policy(on_failure="closed"))


def test_cancelling_a_call_that_can_be_interrupted(on_loop):
    """The instance stays, and serves the next one."""

    async def main(host):
        scene = Scene(host, lambda *made: host.pool(*made, max=1))
        async with await scene.begin():
            assert await scene.pool.call("count") == [I32(1)]
            task, waits = await scene.looping(), await scene.queued(0)
            await cancelled(task)
            assert await soon(waits) == [I32(1)]
            assert await scene.pool.call("count") == [I32(2)]
            assert scene.pool._keeper.starts == 1

    on_loop(main, engine=EngineConfig(interruptible=True))


def test_a_tenants_instances_and_calls_are_its_own(on_pool):
    """Nobody sees another's memory, and one that asks for too much is told so while others are served."""

    async def main(it):
        for tenant in ("a", "b", None):
            assert [await it.pool.call("count", tenant=tenant) for _ in range(2)] == [[I32(1)], [I32(2)]]
        runs, waits = await it.holding(0, tenant="greedy"), await it.queued(1, tenant="greedy")
        error = await expect(PoolFull, Cause.USAGE, it.pool.call("work", [2], tenant="greedy"))
        assert 'full for tenant "greedy": 1 of its calls run, and 1 wait (tenant_queue=1)' in error.message
        assert (error.tenant, error.limit, error.observed) == ("greedy", 1, 1)
        assert await it.pool.call("work", [3], tenant="modest") == [I32(4)]
        it.release()
        assert (await soon(runs), await soon(waits)) == ([I32(1)], [I32(2)])
        assert it.calls == [0, 3, 1]

    on_pool(main, max=2, tenant_running=1, tenant_queue=1)


@pytest.mark.hammer
def test_many_tasks_each_get_their_own_answer(on_pool):
    """Every call once, every instance one caller's at a time; cancelled ones at random moments lose nobody else's."""

    async def main(it):
        together, wrong, gone = [], [], set()

        async def use(base):
            for n in range(base, base + 20):
                if n % 5 == 0:
                    task = asyncio.create_task(it.pool.call("work", [n]))
                    for _ in range(n % 7):
                        await asyncio.sleep(0)
                    if task.cancel():
                        gone.add(n)
                    await asyncio.wait([task])
                    continue
                if n % 4:
                    answer = await it.pool.call("work", [n])
                else:
                    async with it.pool.instance() as instance:
                        answer = await instance.call("work", [n])
                together.append(len(it.pool._roster.leased))
                if answer != [I32(n + 1)]:
                    wrong.append((n, answer))

        await soon(asyncio.gather(*(use(1000 * k) for k in range(16))))
        everything = {1000 * k + n for k in range(16) for n in range(20)}
        assert wrong == []
        assert len(it.calls) == len(set(it.calls))
        assert everything - gone <= set(it.calls) <= everything
        assert max(together) <= 3
        await eventually(lambda: not it.pool._roster.leased and it.pool._keeper.over)
        assert it.pool.standing is Standing.ADMITTED

    on_pool(main, min=1, max=3, restart=policy(on_failure="closed"))


def test_a_shared_worker_that_one_task_ends(on_loop):
    """Calls that waited in it for their turn go on in another; those that ran are told."""

    async def main(host):
        scene = Scene(host, lambda *made: host.pool(*made, min=3, max=3))
        async with await scene.begin():
            assert await scene.pool.wait_ready(60)
            task = await scene.looping()
            waiting = [asyncio.create_task(scene.pool.call("work", [n])) for n in range(2)]
            await eventually(lambda: len(scene.pool._roster.leased) == 3)
            await cancelled(task)
            assert [await soon(each) for each in waiting] == [[I32(1)], [I32(2)]]
            task = await scene.looping()
            (slot,) = scene.pool._roster.leased
            await slot.instance.kill()
            await expect(WorkerCrashed, Cause.CANCELLED, task)

    on_loop(main, isolation="module")
