"""Cancelling a task: its guest stops, wherever the task was, and nobody else's call does."""

from __future__ import annotations

import asyncio

import pytest
from looping import GUEST, PATIENCE_S, Running, cancelled, expect, make, nothing, same

from pdsandbox import I32, Cause, EngineConfig, HostFunction, WasmImports, WorkerCrashed

INTERRUPTIBLE = EngineConfig(interruptible=True)


def test_a_call_that_runs(on_loop):
    """Its worker is killed; every later use says so."""

    async def main(host):
        running = Running()
        instance = await make(host, running.tell)
        await cancelled(await running.start(instance))
        assert not instance.alive
        await expect(WorkerCrashed, Cause.CANCELLED, instance.call("add", [1, 2]))
        await expect(WorkerCrashed, Cause.CANCELLED, instance.memory_read(0, 1))

    on_loop(main)


def test_a_call_that_can_be_interrupted(on_loop):
    """Only that call ends: the same worker answers the next one, and the next cancellation works as well."""

    async def main(host):
        running = Running()
        instance = await make(host, running.tell)
        pid = instance.pid
        for i in range(5):
            await cancelled(await running.start(instance))
            assert await instance.call("next") == [I32(i + 1)]
        assert (instance.alive, instance.pid) == (True, pid)

    on_loop(main, engine=INTERRUPTIBLE)


def test_those_that_wait_are_served_after_one_that_was_interrupted(on_loop):
    """In order, while the interrupt is still under way."""

    async def main(host):
        running = Running()
        instance = await make(host, running.tell)
        task = await running.start(instance)
        waiting = [asyncio.create_task(instance.call("next")) for _ in range(5)]
        await asyncio.sleep(0)
        await cancelled(task)
        assert await asyncio.gather(*waiting) == [[I32(i + 1)] for i in range(5)]

    on_loop(main, engine=INTERRUPTIBLE)


def test_a_call_that_waits_for_its_turn(on_loop):
    """It leaves the line, and the one that runs, and those behind it, go on."""

    async def main(host):
        answer, asked = asyncio.Event(), asyncio.Event()

        async def ask(_caller, value):
            asked.set()
            await answer.wait()
            return value

        instance = await make(host, ask=ask)
        first = asyncio.create_task(instance.call("ask", [7]))
        await asyncio.wait_for(asked.wait(), PATIENCE_S)
        second, third = (asyncio.create_task(instance.call("next")) for _ in range(2))
        await asyncio.sleep(0)
        await cancelled(second)
        answer.set()
        assert await first == [I32(7)]
        assert await third == [I32(1)]

    on_loop(main)


def test_one_that_was_just_given_its_turn(on_loop):
    """Cancelled between the turn's arrival and its own next step: the turn goes on to the next."""

    async def main(host):
        instance = await make(host)
        line = instance._port.line
        assert await line.take(None)
        given, behind = (asyncio.create_task(instance.call("next")) for _ in range(2))
        await asyncio.sleep(0)
        line.give()
        await cancelled(given)
        assert await behind == [I32(1)]
        assert instance.alive

    on_loop(main)


def test_a_coroutine_function_is_cancelled_with_its_call(on_loop):
    """It hears of it, and has ended before the call's task does."""

    async def main(host):
        asked, heard = asyncio.Event(), []

        async def ask(_caller, value):
            asked.set()
            try:
                await asyncio.Event().wait()
            finally:
                heard.append(value)

        instance = await make(host, ask=ask)
        task = asyncio.create_task(instance.call("ask", [3]))
        await asyncio.wait_for(asked.wait(), PATIENCE_S)
        await cancelled(task)
        assert heard == [3]
        await expect(WorkerCrashed, Cause.CANCELLED, instance.call("next"))

    on_loop(main)


@pytest.mark.parametrize("interruptible", [False, True])
def test_a_late_cancellation_touches_nothing(on_loop, interruptible):
    """A task that is done is cancelled in vain, and so is one whose call was the last thing in it."""

    async def main(host):
        instance = await make(host)
        for i in range(20):
            task = asyncio.create_task(instance.call("next"))
            assert await task == [I32(i + 1)]
            assert not task.cancel()
            await asyncio.sleep(0)
        assert instance.alive

    on_loop(main, engine=EngineConfig(interruptible=interruptible))


def test_after_any_number_of_steps(on_loop):
    """A guest that can be interrupted, its call cancelled after 0, 1, 2 … rounds of the loop: it was done, or is
    cancelled; either way the next call is the next one's, or is told that the worker was killed."""

    async def after(host, steps):
        instance = await make(host)
        await instance.call("next")
        task = asyncio.create_task(instance.call("next"))
        for _ in range(steps):
            await asyncio.sleep(0)
        if task.cancel():
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            assert await task == [I32(2)]
        try:
            (got,) = await instance.call("next")
        except WorkerCrashed as exc:  # an interrupt that crosses the answer costs the worker
            got = exc.cause
        assert got in (I32(2), I32(3), Cause.CANCELLED), steps
        await instance.close()

    async def main(host):
        for steps in range(8):
            await after(host, steps)

    on_loop(main, engine=INTERRUPTIBLE)


def test_a_long_request_that_nobody_reads(on_loop):
    """Half a frame was written: the worker is killed."""

    async def main(host):
        running = Running()
        instance = await make(host, running.tell)
        await instance.call("next")
        port = instance._port
        task = asyncio.create_task(instance.call_many("add", [(i, 1) for i in range(50_000)]))
        await asyncio.sleep(0)  # its first step writes what the pipe takes
        assert port.sending
        await cancelled(task)
        await expect(WorkerCrashed, Cause.CANCELLED, instance.call("next"))

    on_loop(main, engine=INTERRUPTIBLE)


@pytest.mark.parametrize("how", ["plain", "coroutine"])
def test_an_instantiation(on_loop, how):
    """The worker whose start function waits, or runs, is killed, and nothing is left of it."""

    async def main(host):
        begun = asyncio.Event()
        over = asyncio.Event()

        async def slow(_caller, value):
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                over.set()

        def quick(_caller, value):
            begun.set()

        source = GUEST.replace('(func (export "run")', '(start 7) (func (export "run")')
        assert source != GUEST
        fn = slow if how == "coroutine" else quick
        imports = WasmImports(
            functions={
                ("env", "tell"): HostFunction(fn, ("i32",)),
                ("env", "ask"): HostFunction(same, ("i32",), ("i32",)),
            }
        )
        module = await host.compile(source)
        task = asyncio.create_task(host.instantiate(module, imports))
        await asyncio.wait_for(begun.wait(), PATIENCE_S)
        await cancelled(task)
        if how == "coroutine":
            await asyncio.wait_for(over.wait(), PATIENCE_S)
        instance = await make(host, nothing)
        assert await instance.call("next") == [I32(1)]

    on_loop(main)


def test_a_compilation(on_loop):
    """It may be cancelled at once; the same module compiles afterwards."""

    async def main(host):
        task = asyncio.create_task(host.compile(GUEST))
        await asyncio.sleep(0)
        await cancelled(task)
        instance = await make(host)
        assert await instance.call("next") == [I32(1)]

    on_loop(main)


def test_asyncio_timeout(on_loop):
    """`asyncio.timeout` is a cancellation like any other."""

    async def main(host):
        instance = await make(host)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await instance.call("spin")
        assert await instance.call("next") == [I32(1)]

    on_loop(main, engine=INTERRUPTIBLE)
