"""How many workers there are: `max_workers`, and spares that are ready, replaced, and never handed out dead."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from supervising import (
    GUEST,
    Thread,
    eventually,
    expect,
    fork_server_of,
    imports,
    make_guest,
    spares_of,
    together,
    wait_process_ends,
)

from pdsandbox import I32, CallError, Cause, InstantiationError, Limits, Supervisor, WorkerCrashed


def ready_spares(host, count):
    """So many living spares with a process each; their pids."""

    def ready():
        handles = spares_of(host)
        return len(handles) == count and all(handle.alive and handle.pid for handle in handles)

    eventually(ready)
    return [handle.pid for handle in spares_of(host)]


@pytest.mark.parametrize("spares", [0, 2])
def test_max_workers(make_supervisor, spares):
    """One more is InstantiationError, USAGE, with the limit; spares do not count; after close of one it works."""
    host = make_supervisor(max_workers=3, spares=spares)
    instances = [make_guest(host) for _ in range(3)]
    if spares:
        ready_spares(host, spares)
    error = expect(InstantiationError, Cause.USAGE, lambda: make_guest(host))
    assert error.limit == 3
    assert "max_workers of 3" in str(error)
    assert [instance.call("ok") for instance in instances] == [[I32(42)]] * 3
    instances.pop().close()
    instances.append(make_guest(host))
    expect(InstantiationError, Cause.USAGE, lambda: make_guest(host))
    assert [instance.call("ok") for instance in instances] == [[I32(42)]] * 3


ENDS = {
    "kill": (lambda instance: instance.kill(), WorkerCrashed, Cause.CANCELLED),
    "killed from outside": (lambda instance: os.kill(instance.pid, signal.SIGKILL), WorkerCrashed, Cause.SIGNAL),
    "closed": (lambda instance: instance.close(), CallError, Cause.CLOSED),
}


@pytest.mark.parametrize(("end", "cls", "cause"), ENDS.values(), ids=ENDS)
def test_max_workers_counts_the_living(make_supervisor, end, cls, cause):
    """However an instance ended, its place is free again, also while somebody still holds it."""
    host = make_supervisor(max_workers=1)
    instance = make_guest(host)
    end(instance)
    expect(cls, cause, lambda: instance.call("ok"))
    assert make_guest(host).call("ok") == [I32(42)]


def test_max_workers_is_freed_by_what_fails(make_supervisor):
    """An instantiation that fails, in any way, takes no place."""
    host = make_supervisor(max_workers=1)
    missing = host.compile('(module (import "x" "y" (func)))')
    trapping = host.compile("(module (func $s (unreachable)) (start $s))")
    for _ in range(2):
        expect(InstantiationError, Cause.LINK, lambda: host.instantiate(missing))
        expect(InstantiationError, Cause.GUEST_TRAP, lambda: host.instantiate(trapping))

    def interrupted(_value):
        raise KeyboardInterrupt

    source = GUEST.replace('(func (export "trap")', "(func $s (call $tell (i32.const 1))) (start $s) (func")
    module = host.compile(source)
    with pytest.raises(KeyboardInterrupt):
        host.instantiate(module, imports(tell=interrupted))
    assert make_guest(host).call("ok") == [I32(42)]


def test_max_workers_and_a_dropped_instance(make_supervisor):
    """An instance that nobody holds any more gives its place back without being closed."""
    host = make_supervisor(max_workers=1)
    pid = make_guest(host).pid
    wait_process_ends(pid)
    assert make_guest(host).call("ok") == [I32(42)]


def test_max_workers_for_many_threads(make_supervisor):
    """Sixteen at once for four places: exactly four get one, the others are told."""
    host = make_supervisor(max_workers=4)
    module = host.compile(GUEST)

    def attempt():
        try:
            return host.instantiate(module, imports())
        except InstantiationError as exc:
            if exc.cause is not Cause.USAGE:
                raise
            return None

    made = [instance for instance in together(*[attempt] * 16) if instance is not None]
    assert len(made) == 4
    assert [instance.call("ok") for instance in made] == [[I32(42)]] * 4


def test_max_workers_does_not_limit_compilers(make_supervisor):
    """With all places taken, compiling goes on."""
    host = make_supervisor(max_workers=1)
    instance = make_guest(host)
    assert host.compile('(module (func (export "another")))').exports() == ["another"]
    assert instance.call("ok") == [I32(42)]


def test_a_spare_is_handed_out_and_replaced(make_supervisor, spawned):
    """An instance gets the process that was waiting, and another one takes its place."""
    host = make_supervisor(spares=1)
    module = host.compile(GUEST)
    for value in range(3):
        (spare,) = ready_spares(host, 1)
        instance = host.instantiate(module, imports())
        assert instance.pid == spare
        assert instance.call("add", [value, 1]) == [I32(value + 1)]
        assert ready_spares(host, 1) != [spare]
    assert len(spawned.workers) == 4


def test_more_instances_than_spares(make_supervisor):
    """Who finds no spare gets a fresh worker; each has its own."""
    host = make_supervisor(spares=2)
    module = host.compile(GUEST)
    ready_spares(host, 2)
    instances = together(*[lambda: host.instantiate(module, imports())] * 8)
    assert len({instance.pid for instance in instances}) == 8
    assert [instance.call("ok") for instance in instances] == [[I32(42)]] * 8
    ready_spares(host, 2)


def test_a_spare_that_is_known_to_be_dead_is_replaced(make_supervisor):
    """Killed by its pid, it makes room for another, and is never handed out."""
    host = make_supervisor(spares=2)
    module = host.compile(GUEST)
    dead = ready_spares(host, 2)
    handles = spares_of(host)
    for pid in dead:
        os.kill(pid, signal.SIGKILL)
    for handle in handles:
        assert handle.wait_ended(60)
    instances = [host.instantiate(module, imports()) for _ in range(3)]
    assert not {instance.pid for instance in instances} & set(dead)
    assert [instance.call("ok") for instance in instances] == [[I32(42)]] * 3
    assert not set(ready_spares(host, 2)) & set(dead)


def test_a_spare_that_has_just_died(make_supervisor):
    """Nobody has heard of it yet: the guest has seen nothing, so another worker is taken instead."""
    host = make_supervisor(spares=1)
    module = host.compile(GUEST)
    for _ in range(10):
        (spare,) = ready_spares(host, 1)
        os.kill(spare, signal.SIGKILL)
        with host.instantiate(module, imports()) as instance:
            assert instance.pid != spare
            assert instance.call("ok") == [I32(42)]


def test_spares_leave_with_the_supervisor():
    """close ends them, used or not (the leak fixture counts), right after the start and later."""
    for wait in (False, True):
        host = Supervisor(limits=Limits(), spares=3)
        host.compile("(module)")
        if wait:
            pids = ready_spares(host, 3)
        host.close()
    for pid in pids:
        wait_process_ends(pid)


def test_a_spare_knows_nothing_of_the_last_guest(make_supervisor):
    """Each instance starts from the module's own memory and globals, spare or not."""
    host = make_supervisor(spares=1)
    module = host.compile(GUEST)
    for _ in range(4):
        with host.instantiate(module, imports()) as instance:
            assert instance.memory_read(0, 65536) == bytes(65536)
            assert instance.call("next") == [I32(1)]
            instance.memory_write(0, b"\xff" * 65536)


def test_an_instance_that_waits_for_its_worker_is_not_stopped_by_its_own_deadline(make_supervisor):
    """Starting a worker is not the guest's time: a slow fork server costs nobody a WallClockExceeded."""
    host = make_supervisor(wall_s=1.0)
    module = host.compile(GUEST)
    server = fork_server_of(host).pid
    os.kill(server, signal.SIGSTOP)
    try:
        thread = Thread(lambda: host.instantiate(module, imports()))
        threading.Event().wait(1.5)
        assert thread.running
    finally:
        os.kill(server, signal.SIGCONT)
    assert thread.result().call("ok") == [I32(42)]
