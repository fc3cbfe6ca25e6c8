"""Receipts of calls on an event loop: as those of threads, of this task's calls and no other's."""

from __future__ import annotations

import asyncio

import pytest
from looping import cancelled, make

from pdsandbox import (
    CallError,
    Cause,
    EngineConfig,
    FuelExhausted,
    Receipt,
    WallClockExceeded,
    Wasi,
    WorkerCrashed,
    accounting,
    receipts,
)

PROGRAM = """
(module (memory (export "memory") 1) (func (export "_start")) (func (export "one") (result i32) (i32.const 1)))
"""


@pytest.fixture(autouse=True)
def _nobody_wants_them_any_more():
    yield
    assert accounting.wanted == 0
    assert accounting.book() is None


def test_every_way_to_call(on_loop):
    """One receipt each, with what all of it took; memory operations leave none."""

    async def main(host):
        module = await host.compile(PROGRAM)
        instance = await host.instantiate(module, wasi=Wasi())
        with receipts() as taken:
            assert await instance.func("one")() == 1
            await instance.call_many("one", [[]] * 10)
            await instance.run()
            await instance.memory_read(0, 1)
        await instance.call("one")
        assert [(r.operation, r.func) for r in taken] == [("call", "one"), ("call_many", "one"), ("run", "_start")]
        one, ten, _ = taken
        assert isinstance(one, Receipt)
        assert ten.fuel == 10 * one.fuel > 0
        assert {(r.sha256, r.pid, r.cause) for r in taken} == {(module.sha256, instance.pid, None)}
        assert all(r.wall_s > 0 and r.cpu_s >= 0 and r.peak_rss_bytes > 0 for r in taken)

    on_loop(main, engine=EngineConfig(fuel=True), fuel=1_000_000)


def test_calls_that_fail(on_loop):
    """The receipt is in the error, too; of a killed worker once that has ended, with its CPU time, without fuel."""

    async def main(host):
        instance = await make(host)
        with receipts() as taken:
            with pytest.raises(FuelExhausted) as short:
                await instance.call("spin", fuel=10_000)
            with pytest.raises(CallError) as wrong:
                await instance.call("add", [1])
            with pytest.raises(WallClockExceeded) as late:
                await instance.call("spin", fuel=1 << 62, wall_s=0.2)
            with pytest.raises(WallClockExceeded) as again:
                await instance.call("next")
        assert taken == [caught.value.receipt for caught in (short, wrong, late, again)]
        assert [r.cause for r in taken] == [Cause.FUEL, Cause.USAGE, Cause.WALL, Cause.WALL]
        assert [r.fuel for r in taken] == [10_000, 0, None, 0]
        assert taken[2].wall_s >= 0.19  # uvloop's timers count in milliseconds
        assert taken[2].cpu_s > 0
        assert taken[3].wall_s == 0.0

    on_loop(main, engine=EngineConfig(fuel=True), fuel=1 << 62)


@pytest.mark.parametrize("interruptible", [False, True])
def test_a_task_that_is_cancelled(on_loop, interruptible):
    """While its guest runs: how far that came is known to nobody. While it waits: it used nothing."""

    async def main(host):
        begun = asyncio.Event()
        instance = await make(host, tell=lambda _caller, _value: begun.set())
        with receipts() as taken:
            running = asyncio.create_task(instance.call("run", fuel=1 << 62))
            await begun.wait()
            waiting = asyncio.create_task(instance.call("next"))
            await asyncio.sleep(0)
            for task in (waiting, running):
                await cancelled(task)
        queued, ended = taken
        assert (queued.cause, queued.fuel, queued.cpu_s, queued.wall_s) == (Cause.CANCELLED, 0, 0.0, 0.0)
        assert (ended.cause, ended.fuel, ended.func) == (Cause.CANCELLED, None, "run")
        assert ended.cpu_s >= 0.0
        if interruptible:
            assert await instance.func("add")(1, 2) == 3
        else:
            with pytest.raises(WorkerCrashed):
                await instance.call("next")

    on_loop(main, engine=EngineConfig(fuel=True, interruptible=interruptible), fuel=1 << 62)


def test_tasks_have_blocks_of_their_own(on_loop):
    """They run at the same time, in one thread."""

    async def main(host):
        instance = await make(host)

        async def counted(calls):
            with receipts() as taken:
                for _ in range(calls):
                    await instance.call("next")
            return len(taken)

        with receipts() as taken:
            assert await asyncio.gather(*map(counted, (1, 5, 9))) == [1, 5, 9]
        assert len(taken) == 15
        assert await instance.func("add")(1, 2) == 3
        assert len(taken) == 15

    on_loop(main)
