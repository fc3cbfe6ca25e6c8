"""Plugins on event loops: what counts as a failure, what is answered, and who is not touched by it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest
from looping import cancelled, expect
from looping_pools import STARTING, Scene, eventually, soon

from pdsandbox import (
    I32,
    CallError,
    Capability,
    Cause,
    EngineConfig,
    FuelExhausted,
    InstantiationError,
    Quarantined,
    RestartPolicy,
    Standing,
    Trap,
    WallClockExceeded,
    WorkerCrashed,
)


async def dies(it, value, **options):
    it.does[value] = it.dying
    await expect(WorkerCrashed, Cause.SIGNAL, it.pool.call("work", [value], **options))


def test_one_instance_serves_all_calls(on_plugin):
    """It is started by the first call, keeps its memory, and is no worse for errors that leave it alive."""

    async def main(it):
        assert it.pool.starts == 0
        assert it.pool.current() is None
        answers = await asyncio.gather(*(it.pool.call("count") for _ in range(3)))
        assert answers == [[I32(1)], [I32(2)], [I32(3)]]
        await expect(Trap, Cause.GUEST_TRAP, it.pool.call("trap", idempotent=True))
        await expect(CallError, Cause.USAGE, it.pool.call("nothing", default="never"))
        await expect(CallError, Cause.USAGE, it.pool.call("count", wall_s=-1))
        assert await it.pool.use(lambda instance: instance.memory_read(0, 2)) == bytes(2)

        async def mine(_instance):
            raise KeyError("mine")

        with pytest.raises(KeyError):
            await it.pool.use(mine, idempotent=True)
        assert (it.pool.starts, it.pool.standing) == (1, Standing.ADMITTED)
        assert "admitted, 1 started" in repr(it.pool)

    on_plugin(main, on_failure="open")


def test_a_death_ends_its_call_and_the_next_one_has_a_new_instance(on_plugin):
    """The call whose fate is not known is not made again, but for one that may be: once, and where the policy allows a
    start now."""

    async def main(it):
        await dies(it, 1)
        assert await it.pool.call("work", [2]) == [I32(3)]
        assert it.calls == [1, 2]
        deadly = [it.dying]
        it.does[3] = lambda: deadly.pop()() if deadly else None
        it.now += 61
        assert await it.pool.call("work", [3], idempotent=True) == [I32(4)]
        deadly.append(it.dying)
        it.now += 61
        assert await it.pool.use(lambda instance: instance.call("work", [3]), idempotent=True) == [I32(4)]
        it.now += 61
        await dies(it, 5, idempotent=True)
        assert it.calls[2:] == [3, 3, 3, 3, 5, 5]
        error = await expect(Quarantined, Cause.SIGNAL, it.pool.call("work", [6]))
        assert error.retry_after_s == 5
        it.now += 5
        await expect(WallClockExceeded, Cause.WALL, it.pool.call("loop", wall_s=0.1, idempotent=True))
        assert it.calls[8:] == [99]

    on_plugin(main, backoff_s=5, backoff_max_s=5)


def test_a_death_between_calls_is_counted_and_costs_no_call(on_plugin):
    """Nobody's call was in it; one that was killed on purpose is not counted. The host hears of a quarantine, once."""

    async def main(it):
        told = it.host._host.stats().quarantined
        for _ in range(2):
            assert await it.pool.call("count") == [I32(1)]
            await it.pool.use(lambda instance: instance.kill())
        assert (it.pool.starts, it.pool.standing) == (2, Standing.ADMITTED)
        await it.pool.call("count")
        instance = it.pool.current()
        os.kill(instance.pid, signal.SIGKILL)
        await eventually(lambda: not instance.alive)
        for _ in range(2):
            await expect(Quarantined, Cause.SIGNAL, it.pool.call("count"))
        assert it.host._host.stats().quarantined == told + 1
        it.pool.reset()
        assert await it.pool.call("count") == [I32(1)]

    on_plugin(main, on_failure="closed")


def test_a_start_that_keeps_failing_is_tried_so_often_and_then_not(on_plugin):
    """Each failure is raised as it is; then `Quarantined`, at no cost, to all who come; then one trial."""

    async def main(it):
        def fails():
            raise KeyError

        it.does[7] = fails
        for wait in (0, 0, 1):
            if wait:
                error = await expect(Quarantined, Cause.HOST_FUNCTION, it.pool.call("count"))
                assert error.retry_after_s == wait
            it.now += wait
            await expect(InstantiationError, Cause.HOST_FUNCTION, it.pool.call("count", default="no"))
        outcomes = await asyncio.gather(*(it.pool.call("count") for _ in range(50)), return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {Quarantined}
        assert len({str(outcome) for outcome in outcomes}) == 1
        assert (it.calls, it.pool.standing) == ([7] * 3, Standing.QUARANTINED)
        it.now += 300
        del it.does[7]
        assert await it.pool.call("count") == [I32(1)]
        assert (it.pool.starts, it.pool.standing) == (1, Standing.ADMITTED)

    on_plugin(main, STARTING, restarts=2, backoff_s=1)


def test_open_callers_never_see_a_death(on_plugin):
    """Neither the one whose call it was, nor those after it; what closes it is something else."""

    async def main(it):
        it.does[0] = it.dying
        assert [await it.pool.call("work", [n], default=[]) for n in range(3)] == [[], [], []]
        assert it.calls == [0]
        await it.pool.close()
        await expect(CallError, Cause.CLOSED, it.pool.call("count", default=1))
        await it.pool.close()

    on_plugin(main, on_failure="open")


def test_cancelling_a_call_touches_nobody_elses(on_plugin):
    """Those that wait for their turn in the instance that it ends get another one: nothing of them has run."""

    async def main(it):
        running = await it.looping()
        waiting = [asyncio.create_task(it.pool.call("work", [n])) for n in range(4)]
        await asyncio.sleep(0)
        await cancelled(waiting.pop(2))
        await cancelled(running)
        assert [await soon(task) for task in waiting] == [[I32(1)], [I32(2)], [I32(4)]]
        assert sorted(it.calls) == [0, 1, 3, 99]
        assert (it.pool.starts, it.pool.standing) == (2, Standing.ADMITTED)

    on_plugin(main, on_failure="closed")


def test_cancelling_while_it_starts(on_plugin):
    """The start ends with who began it; the next one begins anew, and is not the plugin's failure."""

    async def main(it):
        it.holds.add(7)
        first, second = (asyncio.create_task(it.pool.call("work", [n])) for n in range(2))
        await eventually(lambda: it.calls == [7])
        await cancelled(first)
        it.release()
        assert await soon(second) == [I32(2)]
        assert (it.calls, it.pool.starts) == ([7, 7, 1], 1)

    on_plugin(main, STARTING, on_failure="closed")


def test_one_that_can_be_interrupted_stays(on_loop):
    """A cancelled call, and one that is out of time or fuel, costs no instance."""

    async def main(host):
        assert Capability.WALL_CLOCK not in host.missing
        scene = Scene(host, lambda *what: host.plugin(*what, restart=RestartPolicy(on_failure="closed")))
        async with await scene.begin():
            await cancelled(await scene.looping())
            await expect(WallClockExceeded, Cause.WALL, scene.pool.call("loop", wall_s=0.2))
            await expect(FuelExhausted, Cause.FUEL, scene.pool.call("loop", fuel=100_000))
            assert await scene.pool.call("count") == [I32(1)]
            assert scene.pool.starts == 1

    on_loop(main, engine=EngineConfig(interruptible=True, fuel=True))


@pytest.mark.parametrize("how", ["call", "close", "from outside"])
def test_what_happens_while_it_is_being_started(on_plugin, how):
    """A call that the start function makes is refused at once; whoever closes it then ends that start, too."""

    async def main(it):
        errors = []

        async def ask():
            errors.append(await expect(CallError, Cause.USAGE, it.pool.call("count")))

        if how == "call":
            it.does[7] = ask
            assert await it.pool.call("count") == [I32(1)]
            assert "while it is being started" in str(errors[0])
            return
        if how == "close":
            it.does[7] = it.pool.close
            await expect(CallError, Cause.CLOSED, it.pool.call("count"))
        else:
            it.holds.add(7)
            task = asyncio.create_task(it.pool.call("count"))
            await eventually(lambda: it.calls == [7])
            await soon(it.pool.close())
            await expect(CallError, Cause.CLOSED, task)
        assert it.pool.starts == 0

    on_plugin(main, STARTING, on_failure="open")


def test_who_may_not_use_it(on_plugin):
    """Another loop, no loop, a host function of its own, and what is no policy or module."""

    async def main(it):
        errors = []

        async def ask():
            errors.append(await expect(CallError, Cause.USAGE, it.pool.call("count")))

        it.does[1] = ask
        assert await it.pool.call("work", [1]) == [I32(2)]
        assert "its own host function" in str(errors[0])

        async def foreign():
            for use in (it.pool.call("count"), it.pool.close()):
                assert "another event loop" in (await expect(CallError, Cause.USAGE, use)).message

        await asyncio.to_thread(lambda: asyncio.run(foreign()))
        caught = []

        def outside():
            try:
                it.pool.reset()
            except CallError as exc:
                caught.append(exc)

        thread = threading.Thread(target=outside)
        thread.start()
        thread.join()
        assert "only by a task of its event loop" in str(caught[0])
        with pytest.raises(TypeError, match="restart takes RestartPolicy, not str"):
            it.host.plugin(None, restart="reload")
        async with it.host.plugin(type("Foreign", (), {"sha256": "0" * 64})()) as plugin:
            await expect(InstantiationError, Cause.USAGE, plugin.call("f"))
            assert plugin.standing is Standing.ADMITTED
        assert await it.pool.call("count") == [I32(1)]

    on_plugin(main)
