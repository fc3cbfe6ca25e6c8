"""The death of the fork server: each instance gets one clear error, and whoever needs a worker gets a new one."""

from __future__ import annotations

import concurrent.futures
import gc
import os
import signal
import threading

import pytest
from leaks import descendants, wait_until
from programs import Held, fork_server, fork_servers
from userland import ADD, LOOP, add

from pdsandbox import Cause, CompileError, Limits, Supervisor, WasmError, WasmImports, WorkerCrashed
from pdsandbox.protocol.control import Spawn
from pdsandbox.supervisor.forkclient import ForkServer
from pdsandbox.supervisor.housekeeper import Housekeeper

pytestmark = pytest.mark.orphans  # the workers of a fork server that was killed become ours


@pytest.fixture
def others():
    """The fork servers that other tests' supervisors have in this process."""
    return frozenset(fork_servers())


@pytest.fixture
def host(others):
    """A supervisor without limits on time, and two spares."""
    with Supervisor(limits=Limits(wall_s=None, fuel=None), spares=2) as host:
        yield host


@pytest.fixture
def kill_fork_server(others):
    """kill_fork_server(): SIGKILL to the fork server; a handle on it and its children."""

    def kill():
        pid = fork_server(besides=others)
        held = Held({pid, *descendants(pid)})
        os.kill(pid, signal.SIGKILL)
        return held

    return kill


def housekeepers():
    """The threads that serve supervisors in this process."""
    return {it for it in gc.get_objects() if isinstance(it, Housekeeper) and not it.stopped}


def lost(instance, *call):
    """The one error that every use of an instance raises after its fork server died."""
    with pytest.raises(WorkerCrashed) as caught:
        instance.call(*call)
    error = caught.value
    assert type(error) is WorkerCrashed
    assert error.cause is Cause.HOST
    assert "fork server" in str(error)
    assert not instance.alive
    return error


def test_eight_threads_in_eight_calls(host, kill_fork_server):
    """Each call raises exactly one error, and all the same; then instantiating, compiling and calling work."""
    started = threading.Semaphore(0)
    module = host.compile(LOOP)
    instances = [host.instantiate(module, WasmImports(pd_log=lambda *_: started.release())) for _ in range(8)]
    idle = host.instantiate(module)
    errors = []

    def run(instance):
        try:
            instance.call("run")
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=run, args=(instance,)) for instance in instances]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert started.acquire(timeout=60)
    with kill_fork_server() as held:
        for thread in threads:
            thread.join(60)
        assert held.wait_gone() == []
    assert len(errors) == 8
    assert {type(error) for error in errors} == {WorkerCrashed}
    assert {error.cause for error in errors} == {Cause.HOST}
    assert {"fork server" in str(error) for error in errors} == {True}
    assert {error.pid for error in errors} == {instance.pid for instance in instances}
    for instance in (*instances, idle):
        assert lost(instance, "ok") == errors[0]
    assert host.instantiate(module).func("ok")() == 42
    assert add(host) == 3


@pytest.mark.parametrize("attempt", range(3))
def test_instantiating_at_once(host, kill_fork_server, attempt):
    """Killed while idle: the very next instantiate works, whether or not anybody has noticed yet."""
    module = host.compile(ADD)
    old = host.instantiate(module)
    with kill_fork_server() as held:
        held.wait_gone()
        assert host.instantiate(module).func("add")(1, 2) == 3
        lost(old, "add", [1, 2])


@pytest.mark.parametrize("attempt", range(3))
def test_compiling_at_once(host, kill_fork_server, attempt):
    """Killed while idle: the very next compile works."""
    add(host)
    with kill_fork_server() as held:
        held.wait_gone()
        assert host.compile(f'(module (func (export "f{attempt}")))').exports() == [f"f{attempt}"]


def test_noticed_before_the_next_use(host, kill_fork_server, wait_for):
    """Killed while idle, and everybody has noticed: the instance is not alive, its next use raises, new ones work."""
    old = host.instantiate(host.compile(ADD))
    with kill_fork_server() as held:
        wait_for(lambda: not old.alive)
        assert held.wait_gone() == []
    lost(old, "add", [1, 2])
    assert add(host) == 3


def test_replaced_before_anybody_has_noticed(host, kill_fork_server, others, wait_for):
    """While the supervisor's own thread is late, a new one may start: the old one's instances get the same error."""
    running, held_up, go_on = (threading.Event() for _ in range(3))
    known = housekeepers()
    imports = WasmImports(pd_log=lambda *_: running.set())
    old, calling = (host.instantiate(host.compile(LOOP), imports) for _ in range(2))
    # Nothing public can hold it up: this is its regular duty, replaced for once.
    (housekeeper,) = housekeepers() - known
    tick = housekeeper._tick
    errors = []

    def run():
        try:
            calling.call("run")
        except WasmError as exc:
            errors.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    assert running.wait(60)

    def late():
        held_up.set()
        go_on.wait(60)
        housekeeper._tick = tick

    housekeeper._tick = late
    with concurrent.futures.ThreadPoolExecutor() as pool:
        try:
            assert held_up.wait(60)
            with kill_fork_server() as held:
                held.wait_gone()
            answer = pool.submit(add, host)
            # A new one runs, and has been asked for a child.
            wait_for(lambda: any(descendants(pid) for pid in fork_servers() - others))
        finally:
            go_on.set()
        assert answer.result(60) == 3
    thread.join(60)
    assert [error.cause for error in errors] == [Cause.HOST]
    assert lost(calling, "ok") == lost(old, "ok") == errors[0]


def test_again_and_again(host, kill_fork_server, others):
    """A fork server each time, ten deaths in a row, and no more than one at a time."""
    for n in range(10):
        assert add(host, n, n) == 2 * n
        with kill_fork_server() as held:
            assert held.wait_gone() == []
    assert add(host) == 3
    assert fork_server(besides=others)


def test_while_eight_threads_start_instances(host, kill_fork_server):
    """Killed under way, some of them may get an error, and it is the clear one; afterwards all works."""
    module = host.compile(ADD)
    barrier = threading.Barrier(9)
    outcomes = []

    def start():
        barrier.wait()
        try:
            with host.instantiate(module) as instance:
                outcomes.append(instance.func("add")(1, 2))
        except WasmError as exc:
            outcomes.append((exc.cause, "fork server" in str(exc)))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    barrier.wait()
    with kill_fork_server() as held:
        for thread in threads:
            thread.join(60)
        assert held.wait_gone() == []
    assert len(outcomes) == 8
    assert set(outcomes) <= {3, (Cause.HOST, True)}
    assert add(host) == 3


@pytest.mark.parametrize("what", ["compile", "instantiate"])
def test_a_fork_server_that_is_cleared_away_while_it_is_asked(monkeypatch, what):
    """Whoever was about to ask finds its socket closed, and asks the next one."""
    send, asked = ForkServer._send, []

    def late(self, packet, fds, **options):
        if isinstance(packet, Spawn) and not asked:
            asked.append(packet)
            os.kill(self.pid, signal.SIGKILL)
            assert wait_until(lambda: self.fileno() < 0)
        send(self, packet, fds, **options)

    with Supervisor(spares=0) as host:
        module = host.compile(ADD)
        monkeypatch.setattr(ForkServer, "_send", late)
        if what == "compile":
            assert host.compile("(module)").exports() == []
        else:
            with host.instantiate(module) as instance:
                assert instance.func("add")(1, 2) == 3
    assert len(asked) == 1


def test_a_fork_server_that_cannot_start(tmp_path):
    """When every new one dies at once: a clear error that tells the reason, cause HOST, no endless attempts."""
    python = tmp_path / "python"
    starts = tmp_path / "starts"
    python.write_text(f"#!/bin/sh\necho start >> {starts}\necho 'no such thing as Python' >&2\nexit 1\n")
    python.chmod(0o755)
    with Supervisor(python=python) as host:
        for _ in range(2):
            with pytest.raises(CompileError, match="no such thing as Python") as caught:
                host.compile(ADD)
            assert caught.value.cause is Cause.HOST
    # Each compilation looks for one four times, and then the last one may have died already.
    assert len(starts.read_text().splitlines()) <= 2 * 4


def test_a_fork_server_of_another_version(tmp_path):
    """A Python that cannot import us: its own last words are in the error."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'pdsandbox'\" >&2\nexit 1\n")
    python.chmod(0o755)
    with Supervisor(python=python) as host, pytest.raises(CompileError, match="No module named 'pdsandbox'"):
        host.compile(ADD)
