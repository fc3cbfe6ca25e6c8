"""Calls on an event loop: many at once, host functions of both kinds, deadlines, deaths, and who may not use what."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time

import pytest
from looping import PATIENCE_S, Running, expect, make

from pdsandbox import (
    I32,
    AsyncSupervisor,
    CallError,
    Cause,
    EngineConfig,
    Limits,
    Trap,
    WallClockExceeded,
    WorkerCrashed,
)


def test_a_thousand_calls_over_fifty_instances(on_loop):
    """All at once; each instance answers its own in the order in which they were made."""

    async def main(host):
        instances = await asyncio.gather(*(make(host) for _ in range(50)))
        calls = [instance.call("next") for _ in range(20) for instance in instances]
        answers = await asyncio.gather(*calls)
        assert answers == [[I32(turn + 1)] for turn in range(20) for _ in instances]

    on_loop(main)


def test_a_slow_coroutine_function_holds_up_nobody_else(on_loop):
    """While one guest waits for its answer, another calls and is called."""

    async def main(host):
        asked, answer = asyncio.Event(), asyncio.Event()

        async def slow(_caller, value):
            asked.set()
            await answer.wait()
            return value

        waiting, other = await make(host, ask=slow), await make(host)
        task = asyncio.create_task(waiting.call("ask", [1]))
        await asyncio.wait_for(asked.wait(), PATIENCE_S)
        for i in range(100):
            assert await other.call("ask", [i]) == [I32(i)]
        answer.set()
        assert await task == [I32(1)]

    on_loop(main)


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_host_functions_run_in_the_loops_thread(on_loop, kind):
    """And reach the guest's memory; what they raise is the call's error, and the instance lives on."""

    async def main(host):
        threads, logged = set(), []

        def plain(caller, value):
            threads.add(threading.get_ident())
            if value < 0:
                raise SystemExit(value)
            caller.memory_write(0, b"hi")
            return value + len(caller.memory_read(0, 2))

        async def coroutine(caller, value):
            await asyncio.sleep(0)
            return plain(caller, value)

        async def log(level, message):
            await asyncio.sleep(0)
            logged.append((level, message))

        instance = await make(
            host,
            ask=plain if kind == "plain" else coroutine,
            pd_log=log if kind == "coroutine" else lambda *message: logged.append(message),
        )
        assert await instance.func("ask")(5) == 7
        assert await instance.call("log") == []
        error = await expect(CallError, Cause.HOST_FUNCTION, instance.call("ask", [-1]))
        assert isinstance(error.__cause__, SystemExit)
        assert await instance.call("ask", [1]) == [I32(3)]
        assert (threads, logged) == ({threading.get_ident()}, [(3, b"hi")])

    on_loop(main)


def test_a_function_that_calls_its_own_instance(on_loop):
    """Refused at once; a task that it leaves behind is served afterwards."""

    async def main(host):
        refused, later = [], []

        async def ask(_caller, value):
            refused.append(await expect(CallError, Cause.USAGE, instance.call("next")))
            refused.append(await expect(CallError, Cause.USAGE, asyncio.create_task(instance.memory_read(0, 1))))
            return value

        def tell_later(_level, _message):
            later.append(asyncio.ensure_future(instance.call("next")))

        instance = await make(host, ask=ask, pd_log=tell_later)
        assert await instance.call("ask", [1]) == [I32(1)]
        assert len(refused) == 2
        await instance.call("log")
        assert await later[0] == [I32(1)]

    on_loop(main)


def test_a_deadline(on_loop):
    """Of a guest that runs, and of one that waits for a coroutine function, which hears of it."""

    async def main(host):
        heard = []

        async def ask(_caller, value):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                heard.append(value)
                raise

        for function, args in (("spin", []), ("ask", [4])):
            instance = await make(host, ask=ask)
            await expect(WallClockExceeded, Cause.WALL, instance.call(function, args, wall_s=0.1))
            await expect(WallClockExceeded, Cause.WALL, instance.call("next"))
        assert heard == [4]

    on_loop(main)


def test_a_deadline_while_the_loop_is_busy(on_loop):
    """The guest is stopped at its deadline though the loop has no time; another's answer that is there counts."""

    async def main(host):
        instance, other = await make(host), await make(host)
        await other.call("next")
        task = asyncio.create_task(instance.call("spin", wall_s=0.5))
        answered = asyncio.create_task(other.call("next", wall_s=0.5))
        await asyncio.sleep(0)
        handle = instance._handle
        begun = time.monotonic()
        while not handle.ended:  # nothing else runs on the loop
            assert time.monotonic() - begun < PATIENCE_S
            time.sleep(0.01)  # noqa: ASYNC251 - that is the test
        await expect(WallClockExceeded, Cause.WALL, task)
        assert await answered == [I32(2)]

    on_loop(main)


def test_an_interrupt_at_the_deadline(on_loop):
    """The instance survives."""

    async def main(host):
        instance = await make(host)
        await expect(WallClockExceeded, Cause.WALL, instance.call("spin", wall_s=0.1))
        assert await instance.call("next") == [I32(1)]

    on_loop(main, engine=EngineConfig(interruptible=True))


def test_a_death_while_somebody_waits(on_loop):
    """Who waits for the answer, and who waits for a turn, hear how it ended; a trap is no death."""

    async def main(host):
        running = Running()
        instance = await make(host, running.tell)
        await expect(Trap, Cause.GUEST_TRAP, instance.call("trap"))
        task = await running.start(instance)
        behind = asyncio.create_task(instance.call("next"))
        await asyncio.sleep(0)
        os.kill(instance.pid, signal.SIGTERM)
        for each in (task, behind):
            error = await expect(WorkerCrashed, Cause.SIGNAL, each)
            assert error.signal == signal.SIGTERM

    on_loop(main)


@pytest.mark.parametrize("end", ["close", "kill"])
def test_ending_an_instance_during_its_call(on_loop, end):
    """The call ends with the cause, at once."""

    async def main(host):
        running = Running()
        instance = await make(host, running.tell)
        task = await running.start(instance)
        await getattr(instance, end)()
        expected = (CallError, Cause.CLOSED) if end == "close" else (WorkerCrashed, Cause.CANCELLED)
        await expect(*expected, task)
        assert not instance.alive

    on_loop(main)


def test_a_turn_is_waited_for_as_long_as_a_call_may_take(on_loop):
    """Then the waiting call is refused, and only that."""

    async def main(host):
        running = Running()
        instance = await make(host, running.tell)
        task = await running.start(instance)
        error = await expect(CallError, Cause.USAGE, instance.call("next", wall_s=0.05))
        assert "busy" in error.message
        await instance.kill()
        await expect(WorkerCrashed, Cause.CANCELLED, task)

    on_loop(main)


def test_another_loop_is_refused(on_loop):
    """In another thread, with a clear error, for instance and host."""

    async def main(host):
        instance = await make(host)

        async def foreign():
            await expect(CallError, Cause.USAGE, instance.call("next"))
            await expect(CallError, Cause.USAGE, host.compile("(module)"))

        await asyncio.to_thread(lambda: asyncio.run(foreign()))
        assert await instance.call("next") == [I32(1)]

    on_loop(main)


def test_instances_that_share_a_worker(on_loop):
    """Take turns, also while another one is being loaded."""

    async def main(host):
        instances = await asyncio.gather(*(make(host) for _ in range(8)))
        assert len({instance.pid for instance in instances}) < 8
        answers = await asyncio.gather(*(instance.call("next") for _ in range(5) for instance in instances))
        assert answers == [[I32(turn + 1)] for turn in range(5) for _ in instances]
        for instance in instances:
            await instance.close()

    on_loop(main, isolation="module")


def test_what_is_dropped_ends(on_loop):
    """An instance without references gives its worker back."""

    async def main(host):
        instance = await make(host)
        await instance.call("next")
        handle, ended = instance._handle, asyncio.Event()
        loop = asyncio.get_running_loop()
        handle.when_ended(lambda: loop.call_soon_threadsafe(ended.set))
        del instance
        gc.collect()
        await asyncio.wait_for(ended.wait(), PATIENCE_S)

    on_loop(main)


@pytest.mark.parametrize("in_thread", [False, True])
def test_a_loop_that_is_closed_with_calls_under_way(in_thread):
    """Nothing is left once the host is dropped; the same when it was another thread's loop."""

    def closing():
        loop = asyncio.new_event_loop()
        running = Running()

        async def begin():
            host = AsyncSupervisor(limits=Limits(fuel=None, wall_s=60.0), spares=0)
            running.instance = instance = await make(host, running.tell)  # which a host function refers to, too
            task = await running.start(instance)
            task._log_destroy_pending = False  # which asyncio would report, rightly
            return host

        host = loop.run_until_complete(begin())
        loop.close()
        return host

    if in_thread:
        hosts = []
        thread = threading.Thread(target=lambda: hosts.append(closing()))
        thread.start()
        thread.join()
    else:
        hosts = [closing()]
    hosts.clear()
    gc.collect()


def test_a_turn_that_another_thread_has_for_longer_than_a_glance(on_loop):
    """As the housekeeper may, on a busy machine: it tells nobody when it is done, and is waited for no longer."""

    async def main(host):
        instance = await make(host)
        turn, taken, done = instance._handle.turn, threading.Event(), threading.Event()

        def hold():
            with turn:
                taken.set()
                done.wait(PATIENCE_S)

        thread = threading.Thread(target=hold)
        thread.start()
        taken.wait(PATIENCE_S)
        task = asyncio.create_task(instance.call("next", wall_s=10 * PATIENCE_S))
        await asyncio.sleep(0.05)  # so that it has looked more than once; if not, the test asks for less
        assert not task.done()
        done.set()
        assert await asyncio.wait_for(task, PATIENCE_S) == [I32(1)]
        thread.join()

    on_loop(main)
