"""Plugins whose workers die: what is started again, what is not, and that no call is made twice unasked."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from pdsandbox import (
    I32,
    Cause,
    HostFunction,
    Plugin,
    Quarantined,
    RestartPolicy,
    Standing,
    WallClockExceeded,
    WasmImports,
    WorkerCrashed,
)

SOURCE = """(module (import "m" "work" (func $work (param i32) (result i32)))
  (func (export "work") (param i32) (result i32) (call $work (local.get 0)))
  (func (export "loop") (loop $l (br $l))))"""
pytestmark = [
    pytest.mark.deaths,
    pytest.mark.parametrize("host_kind", ["supervisor", "module"], indirect=True, scope="session"),
]


class Scene:
    """A plugin whose host function notes each call, and kills the worker while `deadly` is above 0."""

    def __init__(self, host, source=SOURCE, **policy):
        self.now, self.calls, self.deadly, self.takes = 0.0, [], 0, 0.0
        functions = {("m", "work"): HostFunction(self.work, ("i32",), ("i32",))}
        restart = RestartPolicy(**{"jitter": 0} | policy)
        module = host.compile(source)
        self.plugin = Plugin(
            host, module, WasmImports(functions=functions), restart=restart, clock=lambda: self.now, rand=lambda: 0.0
        )

    def work(self, _caller, value):
        self.calls.append(value)
        self.now += self.takes
        if self.deadly:
            self.deadly -= 1
            os.kill(self.plugin._instance.pid, signal.SIGKILL)
        return value + 1

    def dies(self, value, **options):
        with pytest.raises(WorkerCrashed) as caught:
            self.plugin.call("work", [value], **options)
        assert caught.value.cause is Cause.SIGNAL


@pytest.fixture
def scene(host):
    made = []

    def make(*source, **policy):
        made.append(Scene(host, *source, **policy))
        return made[-1]

    yield make
    for each in made:
        each.plugin.close()


def test_a_death_ends_its_call_and_the_next_call_has_a_new_instance(scene):
    """The call whose fate is not known is not made again."""
    it = scene()
    assert it.plugin.call("work", [1]) == [I32(2)]
    it.deadly = 1
    it.dies(2)
    assert it.plugin.call("work", [3]) == [I32(4)]
    assert (it.calls, it.plugin.starts) == ([1, 2, 3], 2)


def test_an_idempotent_call_is_made_once_more(scene):
    """Once: a second death is raised."""
    it = scene(backoff_s=0)
    it.deadly = 1
    assert it.plugin.call("work", [1], idempotent=True) == [I32(2)]
    assert it.calls == [1, 1]
    it.deadly = 2
    it.dies(5, idempotent=True)
    assert (it.calls, it.deadly, it.plugin.starts) == ([1, 1, 5, 5], 0, 3)
    it.deadly = 1
    assert it.plugin.use(lambda instance: instance.call("work", [7]), idempotent=True) == [I32(8)]
    assert it.calls[4:] == [7, 7]


def test_no_second_try_where_the_policy_does_not_allow_a_start_now(scene):
    """Then the death itself is told, not that the plugin is held back."""
    it = scene(backoff_s=5)
    it.deadly = 2
    it.dies(1)
    it.dies(2, idempotent=True)
    assert it.calls == [1, 2]
    with pytest.raises(Quarantined):
        it.plugin.call("work", [3])
    it.now += 5
    assert it.plugin.call("work", [4]) == [I32(5)]


def test_a_call_that_took_all_its_time_is_not_made_again(scene):
    """There is none left; and a deadline is a failure."""
    it = scene(on_failure="closed")
    with pytest.raises(WallClockExceeded):
        it.plugin.call("loop", wall_s=0.05, idempotent=True)
    with pytest.raises(Quarantined) as caught:
        it.plugin.call("work", [1])
    assert caught.value.cause is Cause.WALL
    assert (it.calls, it.plugin.starts) == ([], 1)


def test_a_second_try_has_the_time_that_is_left(scene):
    """So the caller waits no longer than for one."""
    it = scene()
    it.takes, it.deadly = 29.0, 1
    assert it.plugin.call("work", [1], wall_s=30.0, idempotent=True) == [I32(2)]
    assert it.calls == [1, 1]
    it.takes, it.deadly = 31.0, 1
    it.dies(2, wall_s=30.0, idempotent=True)
    assert it.calls == [1, 1, 2]


def test_a_death_between_calls_is_counted_and_costs_no_call(scene):
    """Nobody's call was in it, so the next one is simply made in a new instance."""
    it = scene(on_failure="reload", restarts=1)
    for _ in range(2):
        assert it.plugin.call("work", [1]) == [I32(2)]
        instance = it.plugin._instance
        os.kill(instance.pid, signal.SIGKILL)
        with pytest.raises(WorkerCrashed):
            instance.memory_read(0, 0)
        assert not instance.alive
    with pytest.raises(Quarantined) as caught:
        it.plugin.call("work", [2])
    assert caught.value.cause is Cause.SIGNAL
    assert it.calls == [1, 1]


def test_a_plugin_that_keeps_dying_costs_a_bounded_number_of_workers(scene, host):
    """Under as many calls as one likes; and a neighbour on the same host does not notice."""
    it, neighbour = scene(backoff_s=0.5), scene(SOURCE + ";; another module")
    it.deadly = 10**6
    answered = 0
    for _ in range(2000):
        it.now += 0.1
        try:
            it.plugin.call("work", [0])
        except Quarantined:
            pass
        except WorkerCrashed:
            answered += 1
        assert neighbour.plugin.call("work", [1]) == [I32(2)]
    assert it.plugin.standing is Standing.QUARANTINED
    assert answered == it.plugin.starts == len(it.calls) == 6
    assert neighbour.plugin.starts == 1


def test_open_callers_never_see_a_death(scene):
    """Neither the one whose call it was, nor those after it."""
    it = scene(on_failure="open")
    it.deadly = 1
    assert [it.plugin.call("work", [n], default=[]) for n in range(3)] == [[], [], []]
    assert it.calls == [0]


@pytest.mark.hammer
def test_many_threads_lose_no_call_and_double_none(scene):
    """Each call either answers once or is told of a death; one death is counted once however many saw it."""
    it = scene(backoff_s=0, restarts=1000)
    outcomes, lock, barrier = [], threading.Lock(), threading.Barrier(8)

    def use(base):
        barrier.wait()
        for n in range(base, base + 25):
            if n % 10 == 0:
                with lock:
                    it.deadly += 1
            try:
                answer = it.plugin.call("work", [n]) == [I32(n + 1)]
            except WorkerCrashed:
                answer = None
            with lock:
                outcomes.append((n, answer))

    threads = [threading.Thread(target=use, args=(100 * n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(n for n, _ in outcomes) == sorted(100 * k + n for k in range(8) for n in range(25))
    answered = {n for n, answer in outcomes if answer}
    assert not any(answer is False for _, answer in outcomes)
    assert answered <= set(it.calls)
    assert len(it.calls) == len(set(it.calls))
    deaths = 24 - it.deadly
    assert deaths <= it.plugin.starts <= deaths + 1
    assert len(it.plugin._restarts._failures) == deaths
