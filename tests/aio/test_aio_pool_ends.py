"""Pools on event loops: how they close, and what ends one that is dropped."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref

import pytest
from looping import cancelled, expect
from looping_pools import SOURCE, STARTING, eventually, soon

from pdsandbox import (
    I32,
    CallError,
    Cause,
    upkeep,
)


def test_close_finishes_what_runs_and_refuses_what_waits_and_comes(on_pool):
    """It returns when all has ended; twice is allowed, also at once."""

    async def main(it):
        runs, waits = await it.holding(0), await it.queued(1)
        closing = [asyncio.create_task(it.pool.close(grace_s=60)) for _ in range(2)]
        await expect(CallError, Cause.CLOSED, waits)
        await expect(CallError, Cause.CLOSED, it.pool.call("count"))
        await expect(CallError, Cause.CLOSED, it.pool.instance().__aenter__())
        await expect(CallError, Cause.CLOSED, it.pool.wait_ready())
        await expect(CallError, Cause.CLOSED, it.pool.swap(it.pool._keeper.recipe[0]))
        assert not any(task.done() for task in closing)
        it.release()
        assert await soon(runs) == [I32(1)]
        for task in closing:
            await soon(task)
        await it.pool.close()
        assert (it.pool._roster.total, it.calls) == (0, [0])
        assert "closed" in repr(it.pool)

    on_pool(main, max=1)


@pytest.mark.parametrize("how", ["at once", "cancelled", "by itself", "while it starts", "by its start"])
def test_close_ends_what_does_not_end(on_pool, how):
    """When its time is over, or nobody waits for that any more; what the caller has itself it does not wait for."""

    async def main(it):
        if how == "by itself":
            it.does[0] = lambda: it.pool.close(grace_s=60)
            with contextlib.suppress(CallError):
                assert await it.pool.call("work", [0]) == [I32(1)]
        elif how == "while it starts":
            it.holds.add(7)
            await eventually(lambda: it.calls == [7])
            await it.pool.close(grace_s=0)
        elif how == "by its start":
            it.does[7] = it.pool.close
            await expect(CallError, Cause.CLOSED, it.pool.call("count"))
        else:
            runs = await it.looping()
            if how == "at once":
                await it.pool.close(grace_s=0)
            else:
                closing = asyncio.create_task(it.pool.close(grace_s=3600))
                await asyncio.sleep(0)
                await cancelled(closing)
            await expect(CallError, Cause.CLOSED, runs)
        await soon(it.pool.close())
        await eventually(lambda: it.pool._roster.total == 0)
        await expect(CallError, Cause.CLOSED, it.pool.call("count"))

    on_pool(main, STARTING if "start" in how else SOURCE, max=1)


def test_a_pool_that_is_dropped_ends(lasting, host, monkeypatch):
    """With its instances, at its next look."""
    monkeypatch.setattr(upkeep, "_TICK_S", 0.05)

    async def main():
        pool = host.pool(await host.compile('(module (func (export "f")))'), max=1)
        assert await pool.wait_ready(60)
        roster, gone = pool._roster, weakref.ref(pool)
        del pool
        gc.collect()
        assert gone() is None
        await eventually(lambda: roster.total == 0)

    lasting(main)
