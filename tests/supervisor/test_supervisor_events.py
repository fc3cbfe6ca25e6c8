"""What a host reports as it happens, and the figures of `stats`: every way that workers come and go."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest
from supervising import (
    GUEST,
    MIB,
    PATIENCE_S,
    Thread,
    eventually,
    expect,
    fork_server_of,
    imports,
    make_guest,
    spares_of,
    wait_process_ends,
)

from pdsandbox import (
    CallError,
    Cause,
    CompileError,
    InstantiationError,
    Limits,
    Quarantined,
    RestartPolicy,
    RssExceeded,
    Supervisor,
    Trap,
    WallClockExceeded,
    WorkerCrashed,
    events,
)
from pdsandbox.platform import os_


class Told:
    """A hook that keeps what it is told, and waits for what is to come."""

    def __init__(self):
        self.all = []

    def __call__(self, event):
        self.all.append(event)

    def of(self, cls, **fields):
        """All of this class whose fields have these values."""
        wanted = fields.items()
        return [e for e in self.all if type(e) is cls and all(getattr(e, name) == value for name, value in wanted)]

    def one(self, cls, **fields):
        """The only one, once it has come."""
        eventually(lambda: self.of(cls, **fields))
        (event,) = self.of(cls, **fields)
        return event


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def host(told) -> Iterator[Supervisor]:
    """A supervisor of the test's own, without spares, that tells."""
    limits = Limits(fuel=None, wall_s=60.0, rss_bytes=96 * MIB, memory_bytes=64 * MIB)
    with Supervisor(limits=limits, spares=0, on_event=told) as made:
        yield made


def kinds(told):
    """Their classes, in order, those of other processes than workers apart: they come when they come."""
    return [type(event).__name__ for event in workers(told)]


def workers(told):
    return [event for event in told.all if not getattr(event, "compiler", type(event) is events.ForkServerStarted)]


def test_the_life_of_one_worker(host, told):
    """Every step once, in order, with the same worker, pid and module in each; `close` tells of them all."""
    module = host.compile(GUEST)
    assert host.compile(GUEST).sha256 == module.sha256
    instance = host.instantiate(module, imports())
    pid = instance.pid
    instance.call("ok")
    instance.close()
    host.close()
    assert kinds(told) == ["Compiled", "CacheHit", "WorkerStarted", "WorkerReady", "WorkerEnded"]
    server = told.one(events.ForkServerStarted)
    compiled, hit, started, ready, ended = workers(told)
    assert compiled.sha256 == hit.sha256 == ready.sha256 == module.sha256
    assert not hit.disk
    assert compiled.artifact_bytes > 1000
    assert {started.pid, ready.pid, ended.pid} == {pid} != {server.pid}
    assert started.worker == ready.worker == ended.worker
    assert (ready.instance, ready.spare) == (0, False)
    assert (ended.cause, ended.signal, ended.exit_code) == (Cause.CLOSED, signal.SIGKILL, None)
    assert ready.seconds > 0  # from when a place in a worker was asked for,
    assert ended.seconds > 0  # and this from when the worker was, which may be later
    assert all(event.at > 1e9 for event in told.all)
    (compiler_started, compiler_ended) = (e for e in told.all if getattr(e, "compiler", False))
    assert compiler_started.worker == compiler_ended.worker != started.worker


def test_events_are_frozen(host, told):
    """A hook cannot change what others see."""
    host.compile(GUEST)
    event = told.one(events.Compiled)
    with pytest.raises(AttributeError):
        event.seconds = 0


def test_a_deadline(told):
    """The first cause, not the SIGKILL that it led to."""
    with Supervisor(limits=Limits(fuel=None, wall_s=60.0), spares=0, on_event=told) as host:
        instance = make_guest(host)
        expect(WallClockExceeded, Cause.WALL, lambda: instance.call("spin", wall_s=0.2))
        ended = told.one(events.WorkerEnded, compiler=False)
        assert (ended.cause, ended.message, ended.pid) == (
            Cause.WALL,
            "wall-clock limit of 0.2 s exceeded",
            instance.pid,
        )
        assert host.stats().workers_ended == {Cause.WALL: 1}


def test_memory(host, told):
    """Killed for its memory."""
    bomb = """(module (memory (export "memory") 1 2000) (func (export "grow") (local $at i32)
      (drop (memory.grow (i32.const 1000)))
      (loop $again (i32.store8 (local.get $at) (i32.const 1))
        (local.set $at (i32.add (local.get $at) (i32.const 4096)))
        (br_if $again (i32.lt_u (local.get $at) (i32.const 65536000))))))"""
    with Supervisor(limits=Limits(fuel=None, rss_bytes=64 * MIB), spares=0, on_event=told) as other:
        instance = other.instantiate(other.compile(bomb))
        expect(RssExceeded, Cause.RSS, lambda: instance.call("grow"))
        assert told.one(events.WorkerEnded, compiler=False).cause is Cause.RSS


def test_a_crash_in_a_call(host, told):
    """A signal that was not ours."""
    instance = make_guest(host, tell=lambda _value: os.kill(instance.pid, signal.SIGBUS))
    expect(WorkerCrashed, Cause.SIGNAL, lambda: instance.call("run"))
    ended = told.one(events.WorkerEnded, compiler=False)
    assert (ended.cause, ended.signal, ended.message) == (Cause.SIGNAL, signal.SIGBUS, "worker crashed: SIGBUS")


def test_a_death_while_idle_is_told_without_anybody_asking(host, told):
    """Nobody uses the instance; whoever does later gets that very cause."""
    instance = make_guest(host)
    os.kill(instance.pid, signal.SIGKILL)
    ended = told.one(events.WorkerEnded, compiler=False)
    assert (ended.cause, ended.signal, ended.pid) == (Cause.SIGNAL, signal.SIGKILL, instance.pid)
    error = expect(WorkerCrashed, Cause.SIGNAL, lambda: instance.call("ok"))
    assert (error.message, error.signal) == (ended.message, ended.signal)


def test_kill(host, told):
    """From another thread, in the middle of a call."""
    running = threading.Event()
    instance = make_guest(host, tell=lambda _value: running.set())
    thread = Thread(lambda: expect(WorkerCrashed, Cause.CANCELLED, lambda: instance.call("run")))
    assert running.wait(PATIENCE_S)
    instance.kill()
    thread.result()
    assert told.one(events.WorkerEnded, compiler=False).cause is Cause.CANCELLED


def test_a_guest_that_traps_is_no_event(host, told):
    """Its worker lives on, and the caller has the error."""
    instance = make_guest(host)
    expect(Trap, Cause.GUEST_TRAP, lambda: instance.call("trap"))
    assert instance.call("ok")
    host.close()
    assert told.one(events.WorkerEnded, compiler=False).cause is Cause.CLOSED


def test_a_failed_compilation(host, told):
    """Once, with its error."""
    error = expect(CompileError, Cause.COMPILE, lambda: host.compile("(module (func (export"))
    failed = told.one(events.CompileFailed)
    assert (failed.cause, failed.message) == (Cause.COMPILE, error.message)
    assert host.stats().compile_failures == 1
    assert host.stats().compiled == 0


@pytest.mark.orphans
def test_a_lost_fork_server(host, told):
    """With all its children, each of which ended for that; the next one starts another."""
    instances = [make_guest(host) for _ in range(3)]
    first = told.one(events.ForkServerStarted)
    assert host.stats().fork_server == first.pid
    told.one(events.WorkerEnded, compiler=True)  # which is no child of it any more
    os.kill(first.pid, signal.SIGKILL)
    lost = told.one(events.ForkServerLost)
    assert (lost.pid, lost.children, lost.reason) == (first.pid, 3, "the fork server died")
    for instance in instances:
        expect(WorkerCrashed, Cause.HOST, lambda instance=instance: instance.call("ok"))
        ended = told.one(events.WorkerEnded, pid=instance.pid)
        assert (ended.cause, ended.signal, ended.exit_code) == (Cause.HOST, None, None)
        wait_process_ends(instance.pid)
    assert make_guest(host).call("ok")
    eventually(lambda: len(told.of(events.ForkServerStarted)) == 2)
    stats = host.stats()
    assert (stats.fork_servers, stats.fork_servers_lost, stats.workers_ended) == (2, 1, {Cause.HOST: 3})


def test_a_refused_worker(host, told, monkeypatch):
    """This machine could not hold it; it never started."""
    make_guest(host).close()

    def refuse(pid):
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os_, "open_memory", refuse)
        module = host.compile(GUEST)
        error = expect(InstantiationError, Cause.HOST, lambda: host.instantiate(module, imports()))
    refused = told.one(events.WorkerRefused)
    assert (refused.message, refused.compiler) == (error.message, False)
    host.close()
    assert told.of(events.WorkerEnded, worker=refused.worker) == []
    stats = host.stats()
    assert (stats.workers_refused, stats.workers_started, stats.workers_ended) == (1, 1, {Cause.CLOSED: 1})


def test_spares(told):
    """A spare starts before it is asked for, and is ready when it gets an instance; one that dies was never ready."""
    with Supervisor(limits=Limits(fuel=None), spares=1, on_event=told) as host:
        module = host.compile(GUEST)
        eventually(lambda: any(handle.pid for handle in spares_of(host)))
        stats = host.stats()
        assert (stats.workers, stats.spares, stats.instances) == (0, 1, 0)
        pid = spares_of(host)[0].pid
        instance = host.instantiate(module, imports())
        assert instance.pid == pid
        ready = told.one(events.WorkerReady)
        assert (ready.pid, ready.spare) == (pid, True)
        eventually(lambda: any(handle.pid for handle in spares_of(host)))
        spare = spares_of(host)[0].pid
        os.kill(spare, signal.SIGKILL)
        assert told.one(events.WorkerEnded, pid=spare).cause is Cause.SIGNAL


def test_a_dead_spare_that_an_instance_came_upon(told):
    """Before the fork server could report it: what killed it is told, not that it was not to be used."""
    with Supervisor(limits=Limits(fuel=None), spares=1, on_event=told) as host:
        module = host.compile(GUEST)
        eventually(lambda: any(handle.pid for handle in spares_of(host)))
        spare, server = spares_of(host)[0].pid, fork_server_of(host).pid
        os.kill(server, signal.SIGSTOP)
        try:
            os.kill(spare, signal.SIGKILL)
            wait_process_ends(spare)
            starting = Thread(lambda: host.instantiate(module, imports()))
            eventually(lambda: spare not in [handle.pid for handle in spares_of(host)])
        finally:
            os.kill(server, signal.SIGCONT)
        assert starting.result().pid != spare
        ended = told.one(events.WorkerEnded, pid=spare)
        assert (ended.cause, ended.signal) == (Cause.SIGNAL, signal.SIGKILL)


def test_instances_that_share_a_worker(told):
    """Each is ready by itself, by its number in the worker, which ends once."""
    with Supervisor(limits=Limits(fuel=None), spares=0, isolation="module", on_event=told) as host:
        module = host.compile(GUEST)
        made = [host.instantiate(module, imports()) for _ in range(3)]
        stats = host.stats()
        assert (stats.workers, stats.instances, stats.instances_started) == (1, 3, 3)
        made[1].close()
        assert host.stats().instances == 2
        made[0].close()
        made[2].close()
        eventually(lambda: told.of(events.WorkerEnded, compiler=False))
    assert [event.instance for event in told.of(events.WorkerReady)] == [0, 1, 2]
    assert len({event.pid for event in told.of(events.WorkerReady)}) == 1
    assert len(told.of(events.WorkerEnded, compiler=False)) == 1


@pytest.mark.parametrize("kind", ["plugin", "pool"])
def test_a_quarantine(host, told, kind):
    """Told when it comes to that, once, and not for each call that is refused."""
    module = host.compile(GUEST)
    with getattr(host, kind)(module, imports(), restart=RestartPolicy(restarts=0, quarantine_s=600.0)) as plugin:
        assert plugin.call("ok")
        assert told.of(events.Quarantined) == []
        error = expect(WallClockExceeded, Cause.WALL, lambda: plugin.call("spin", wall_s=0.2))
        for _ in range(3):
            with pytest.raises(Quarantined):
                plugin.call("ok")
    assert host.stats().quarantined == 1
    event = told.one(events.Quarantined)
    assert (event.sha256, event.failures, event.reason) == (module.sha256, 1, error.message)
    assert 500 < event.seconds <= 600


def test_the_disk_cache(told, tmp_path, monkeypatch):
    """A later supervisor finds there what the first one compiled."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for compiled, disk in ((1, 0), (0, 1)):
        with Supervisor(spares=0, cache_dir=tmp_path / "cache", on_event=told) as host:
            host.compile(GUEST)
            stats = host.stats()
            assert (stats.compiled, stats.hits_disk, stats.hits_memory) == (compiled, disk, 0)
            assert (stats.cached_modules, stats.cached_bytes > 1000) == (1, True)
    assert told.one(events.CacheHit).disk
    assert len(told.of(events.Compiled)) == 1


def test_a_hook_may_use_the_host_and_close_it(caplog):
    """It runs in a thread of its own, in which the host is as usable as anywhere."""
    done = threading.Event()
    seen = []

    def hook(event):
        if isinstance(event, events.WorkerReady) and not seen:
            seen.append(host.stats().workers)
            with host.instantiate(host.compile(GUEST), imports()) as other:
                seen.append(other.call("add", [1, 2])[0].value)
            host.close()
            done.set()

    host = Supervisor(limits=Limits(fuel=None), spares=0, on_event=hook)
    instance = make_guest(host)
    assert done.wait(PATIENCE_S)
    assert seen == [1, 3]
    expect(CallError, Cause.CLOSED, lambda: instance.call("ok"))
    host.close()
    assert host.stats().hook_failures == 0


def test_a_hook_that_raises_or_blocks_hurts_nobody():
    """Work goes on, workers are watched and end, and `close` comes back."""
    gate = threading.Event()

    def hook(event):
        if isinstance(event, events.WorkerReady):
            assert gate.wait(PATIENCE_S)
        raise ValueError("no")

    host = Supervisor(limits=Limits(fuel=None, wall_s=60.0), spares=0, on_event=hook)
    try:
        for _ in range(3):
            instance = make_guest(host)
            assert instance.call("ok")
            expect(WallClockExceeded, Cause.WALL, lambda instance=instance: instance.call("spin", wall_s=0.2))
        eventually(lambda: host.stats().workers_ended == {Cause.WALL: 3})
        host.close()
    finally:
        gate.set()
    eventually(lambda: host.stats().hook_failures == sum(host.journal.counts.values()))


def test_what_on_event_may_be():
    """A function, or nothing."""
    with pytest.raises(TypeError, match="on_event takes a function of one event, not str"):
        Supervisor(on_event="print")


def test_many_events_leave_no_thread(told):
    """When a host has closed, nothing of its reporting is left."""
    before = {*threading.enumerate()}  # other tests' hosts have theirs
    with Supervisor(limits=Limits(fuel=None), spares=0, on_event=told) as host:
        module = host.compile(GUEST)
        for _ in range(50):
            host.instantiate(module, imports()).close()
    eventually(lambda: not [t for t in {*threading.enumerate()} - before if t.name.startswith("pdsandbox")])
    assert len(told.of(events.WorkerEnded, compiler=False, cause=Cause.CLOSED)) == 50
    assert host.stats().events_dropped == 0
