"""SIGKILL of the user's program: it can clean up nothing, and yet nothing of it stays."""

from __future__ import annotations

import functools
import os
import select
import signal

import pytest
from leaks import descendants
from programs import COMPILER, FORK_SERVER, WORKER, fork_server, named, status

# What the design promises. It takes a few milliseconds; the rest is for a machine with other work.
GONE_WITHIN_S = 1.0

FULL = """
    import os, sys, threading
    from pdsandbox import Limits, Supervisor, WasmImports
    from userland import ADD, LOOP, await_word, say, slow_source

    host = Supervisor(limits=Limits(wall_s=None, fuel=None, compile_wall_s=None), spares=2)
    idle = host.instantiate(host.compile(ADD))
    running = threading.Event()
    imports = WasmImports(pd_log=lambda *_: running.set())
    looping = host.instantiate(host.compile(LOOP), imports)
    threading.Thread(target=looping.call, args=("run",), daemon=True).start()
    running.wait()
    threading.Thread(target=host.compile, args=(slow_source(),), daemon=True).start()
"""


def everything(pid):
    """Whether the program's fork server, two workers, two spares and the compiler run."""
    names = {name: len(named(name, pid)) for name in (FORK_SERVER, WORKER, COMPILER)}
    return names == {FORK_SERVER: 1, WORKER: 4, COMPILER: 1}


def asleep(pid):
    """How often a process has gone to sleep; 0 while it is awake."""
    facts = status(pid)
    return int(facts["voluntary_ctxt_switches"]) if facts["State"].startswith("S") else 0


def slept_again(pid, before):
    return asleep(pid) > before


@pytest.mark.orphans
def test_everything_is_gone_within_a_second(program, wait_for):
    """Fork server, idle worker, one in an endless loop, spares, and a compiler at work."""
    with program(f"{FULL}\n    await_word()") as script:
        wait_for(lambda: everything(script.pid))
        with script.held() as held:
            os.kill(script.pid, signal.SIGKILL)
            assert held.wait_gone(GONE_WITHIN_S) == []


@pytest.mark.orphans
def test_also_after_the_program_has_forked(program, wait_for):
    """A child that the program forked holds copies of every descriptor, and lives on: all others are gone."""
    forked = """
    child = os.fork()
    if child == 0:
        say(child=os.getpid())
        await_word()
        os._exit(0)
    os.waitpid(child, 0)
"""
    # From Python 3.12 on, a fork in a program with threads is a warning.
    with program(FULL + forked.replace("child = os.fork()", QUIET_FORK)) as script:
        child = script.report()["child"]
        wait_for(lambda: everything(script.pid))
        with script.held() as held:
            os.kill(script.pid, signal.SIGKILL)
            wait_for(lambda: len(held.running()) == 1, GONE_WITHIN_S)
            assert held.names[child] not in (FORK_SERVER, WORKER, COMPILER)
            os.kill(child, 0)
            script.word()
            assert held.wait_gone() == []


QUIET_FORK = "import warnings; warnings.simplefilter('ignore'); child = os.fork()"


@pytest.mark.orphans
@pytest.mark.parametrize("who", [FORK_SERVER, WORKER])
def test_also_when_another_one_is_stopped(program, wait_for, who):
    """A stopped worker ends like the others; while the fork server is stopped, nobody can, and then all do."""
    with program(f"{FULL}\n    await_word()") as script:
        wait_for(lambda: everything(script.pid))
        with script.held() as held:
            stopped = fork_server(script.pid) if who == FORK_SERVER else named(who, script.pid)[0]
            os.kill(stopped, signal.SIGSTOP)
            try:
                os.kill(script.pid, signal.SIGKILL)
                if who == WORKER:
                    assert held.wait_gone(GONE_WITHIN_S) == []
            finally:
                if who == FORK_SERVER:
                    os.kill(stopped, signal.SIGCONT)
            assert held.wait_gone(GONE_WITHIN_S) == []


@pytest.mark.orphans
@pytest.mark.parametrize("step", range(4))
def test_while_everything_starts(program, step):
    """Killed at the first signs of life, at any moment of the start, the program leaves nothing either."""
    with program("""
        import sys
        from pdsandbox import Supervisor
        from userland import ADD, say

        host = Supervisor(spares=4)
        say(step=0)
        module = host.compile(ADD)
        say(step=1)
        instance = host.instantiate(module)
        say(step=2)
        instance.call("add", [1, 2])
        say(step=3)
        while True:
            host.instantiate(module)
    """) as script:
        for _ in range(step + 1):
            script.report()
        with script.held() as held:
            os.kill(script.pid, signal.SIGKILL)
            assert held.wait_gone() == []
        # Whoever was born after the look shows as a descendant that survives this test.


@pytest.mark.orphans
def test_the_fork_server_reaps_whom_it_leaves(program, wait_for):
    """Killed with a report unread, the program leaves one orphan, the fork server, which ends and reaps all others."""
    with program("""
        from pdsandbox import Supervisor
        from userland import ADD, await_word, say

        host = Supervisor(spares=0)
        module = host.compile(ADD)
        instances = [host.instantiate(module) for _ in range(3)]
        say(pids=[instance.pid for instance in instances])
        await_word()
    """) as script:
        workers = script.report()["pids"]
        with script.held() as held:
            os.kill(script.pid, signal.SIGSTOP)
            server = fork_server(script.pid)
            for worker in workers[1:]:
                wait_for(lambda: asleep(server))
                before = asleep(server)
                os.kill(worker, signal.SIGKILL)
                wait_for(functools.partial(slept_again, server, before))  # it has heard, and told
            os.kill(script.pid, signal.SIGKILL)
            assert held.wait_gone() == []
            adopted = [name for pid, name in held.names.items() if pid in descendants()]
        assert adopted == [FORK_SERVER]


def test_a_stopped_programs_worker_ends_by_itself(program):
    """While the program is stopped nobody watches its deadlines: the worker's own timer does, with the same verdict."""
    with program("""
        import os, threading
        from pdsandbox import Limits, Supervisor, WasmImports
        from userland import ADD, LOOP, add, failure, say

        host = Supervisor(limits=Limits(wall_s=1.0, fuel=None), spares=0)
        imports = WasmImports(pd_log=lambda *_: say(running=True))
        instance = host.instantiate(host.compile(LOOP), imports)
        say(pid=instance.pid)
        say(**failure(lambda: instance.call("run")))
        say(answer=add(host))
        host.close()
    """) as script:
        worker = os.pidfd_open(script.report()["pid"])
        try:
            script.report()
            os.kill(script.pid, signal.SIGSTOP)
            assert select.select([worker], [], [], 60)[0], "the worker runs on"
        finally:
            os.kill(script.pid, signal.SIGCONT)
            os.close(worker)
        assert script.report()["error"] == "WallClockExceeded"
        assert script.report() == {"answer": 3}
        script.ended_well()
