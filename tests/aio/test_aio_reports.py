"""What an AsyncSupervisor tells: events to a hook, in a thread of its own, and figures on request."""

from __future__ import annotations

import asyncio
import threading

import pytest
from looping import PATIENCE_S, Running, cancelled, make

from pdsandbox import AsyncSupervisor, Cause, Limits, Quarantined, RestartPolicy, WallClockExceeded, events

SPINS = '(module (func (export "spin") (loop $again (br $again))))'


def test_events_and_stats(run):
    """The life of a worker whose task is cancelled; nothing is told on the loop."""
    told, threads, ended, running = [], set(), threading.Event(), Running()

    def hook(event):
        told.append(event)
        threads.add(threading.current_thread())
        if isinstance(event, events.WorkerEnded) and not event.compiler:
            ended.set()

    async def main():
        async with AsyncSupervisor(limits=Limits(fuel=None, wall_s=60.0), spares=0, on_event=hook) as host:
            assert host.stats().workers == 0
            instance = await make(host, tell=running.tell)
            task = await running.start(instance)
            stats = host.stats(memory=True)
            assert (stats.workers, stats.instances, stats.busy, stats.compiled) == (1, 1, 1, 1)
            assert stats.resident_bytes > 0
            await cancelled(task)
            assert await asyncio.to_thread(ended.wait, PATIENCE_S)
            assert host.stats().workers_ended == {Cause.CANCELLED: 1}
        # Those of other processes come when they come: a compiler may take longer to end.
        ours = [event for event in told if not getattr(event, "compiler", type(event) is events.ForkServerStarted)]
        assert len([event for event in told if type(event) is events.ForkServerStarted]) == 1
        assert [type(event) for event in ours] == [
            events.Compiled,
            events.WorkerStarted,
            events.WorkerReady,
            events.WorkerEnded,
        ]
        assert (ours[-1].cause, ours[-1].pid) == (Cause.CANCELLED, instance.pid)
        assert threading.main_thread() not in threads
        assert host.stats().workers == 0

    run(main)


def test_a_quarantined_plugin_is_told(run):
    """By the plugin of a loop as by a thread's: once."""
    told = []

    async def main():
        async with AsyncSupervisor(limits=Limits(fuel=None, wall_s=60.0), spares=0, on_event=told.append) as host:
            module = await host.compile(SPINS)
            plugin = host.plugin(module, restart=RestartPolicy(on_failure="closed"))
            with pytest.raises(WallClockExceeded):
                await plugin.call("spin", wall_s=0.1)
            for _ in range(2):
                with pytest.raises(Quarantined):
                    await plugin.call("spin")
            assert host.stats().quarantined == 1
        (event,) = [event for event in told if isinstance(event, events.Quarantined)]
        assert (event.sha256, event.failures) == (module.sha256, 1)

    run(main)
