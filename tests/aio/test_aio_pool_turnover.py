"""Pools on event loops whose instances are replaced by design: after calls, when idle, and by a new module."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from looping import cancelled, expect
from looping_pools import SOURCE, STARTING, TEN_MORE, eventually, soon

from pdsandbox import I32, CallError, Cause, HostFunction, InstantiationError, Trap, WasmImports


def test_each_call_has_an_instance_of_its_own(on_pool):
    """Nothing of the call before is in its memory, whatever became of that."""

    async def main(it):
        for _ in range(3):
            assert await it.pool.call("count") == [I32(1)]
            await expect(Trap, Cause.GUEST_TRAP, it.pool.call("trap"))
            async with it.pool.instance() as instance:
                assert await instance.memory_read(0, 4) == bytes(4)
                assert [await instance.call("count") for _ in range(2)] == [[I32(1)], [I32(2)]]
                await instance.memory_write(0, b"mine")
        await eventually(lambda: it.pool._roster.total == 2 and not it.pool._roster.starting)
        assert it.pool._keeper.starts >= 9

    on_pool(main, min=2, max=3, reset="each_call")


def test_instances_end_after_so_many_calls_and_when_they_idle(on_pool):
    """Not one call earlier; and down to the minimum."""

    async def main(it):
        answers = [(await it.pool.call("count", tenant="a"))[0].value for _ in range(7)]
        assert answers == [1, 2, 3, 1, 2, 3, 1]
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(3):
                await stack.enter_async_context(it.pool.instance(tenant="b"))
            assert it.pool._roster.total == 3
        await eventually(lambda: it.pool._roster.total == 1)
        assert await it.pool.call("count")

    on_pool(main, min=1, max=3, max_calls=3, max_idle_s=0.1)


def test_a_swap_serves_every_later_call_with_the_new_module(on_pool):
    """Those that run finish in the old one, and those that wait get the new one; other imports stay until the next."""

    async def main(it):
        runs, waits = await it.holding(0), await it.queued(1)
        await it.pool.swap(await it.host.compile(TEN_MORE))
        it.release()
        answers = (await soon(runs), await soon(waits), await it.pool.call("work", [2]))
        assert answers == ([I32(1)], [I32(12)], [I32(13)])
        assert sorted(it.calls) == [0, 1, 2]
        await eventually(lambda: it.pool._roster.total == 1)
        told = []

        def noting(_caller, value):
            told.append(value)
            return 0

        functions = {("m", "work"): HostFunction(noting, ("i32",), ("i32",))}
        await it.pool.swap(it.pool._keeper.recipe[0], WasmImports(functions=functions))
        assert await it.pool.call("work", [3]) == [I32(10)]
        await it.pool.swap(await it.host.compile(SOURCE))
        assert await it.pool.call("work", [4]) == [I32(0)]
        assert (told, it.calls[3:]) == ([3, 4], [])

    on_pool(main, max=1)


def test_a_swap_that_comes_to_nothing_changes_nothing(on_pool):
    """It cannot start, is cancelled, or the pool is closed meanwhile: it says so, and the old module serves on."""

    async def main(it):
        module, starting = await it.host.compile(TEN_MORE), await it.host.compile(STARTING)
        assert await it.pool.call("count") == [I32(1)]
        await expect(InstantiationError, Cause.LINK, it.pool.swap(module, WasmImports()))
        await expect(InstantiationError, Cause.USAGE, it.pool.swap("no module"))
        it.holds.add(7)
        first, second = (asyncio.create_task(it.pool.swap(starting)) for _ in range(2))
        await eventually(lambda: it.calls == [7])
        await cancelled(first)
        await eventually(lambda: it.calls == [7, 7])
        assert await it.pool.call("count") == [I32(2)]
        await it.pool.close()
        await expect(CallError, Cause.CLOSED, second)
        assert it.pool._roster.total == 0

    on_pool(main, max=1)


@pytest.mark.hammer
def test_swaps_under_load_fail_no_call(on_pool):
    """Every call is answered by one of the versions, and none by one that was gone before it began."""

    async def main(it):
        modules = [
            await it.host.compile(SOURCE.replace("(call $work (local.get 0))", f"(i32.const {n})")) for n in range(6)
        ]
        await it.pool.swap(modules[0])
        current, done, answers = 0, False, []

        async def use():
            while not done:
                before = current
                (answer,) = await it.pool.call("work", [0])
                answers.append((before, answer.value))

        tasks = [asyncio.create_task(use()) for _ in range(6)]
        for n in range(1, 6):
            seen = len(answers)
            await it.pool.swap(modules[n])
            current = n
            await eventually(lambda seen=seen: len(answers) >= seen + 20)
        done = True
        await soon(asyncio.gather(*tasks))
        assert [pair for pair in answers if pair[1] < pair[0]] == []
        assert {value for _, value in answers} == set(range(6))

    on_pool(main, min=1, max=3)
