"""A program that forks: what it made before belongs to the parent; the child is told so, and can do no damage."""

from __future__ import annotations

import os
import signal

import pytest
from programs import alive

# A fork in a program with threads is a warning from Python 3.12 on.
START = """
    import gc, os, sys, threading, warnings
    warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
    from pdsandbox import Limits, Supervisor, WasmImports
    from userland import ADD, LOOP, add, await_word, failure, say

    WAT = '''(module (memory (export "memory") 1) (func (export "add") (param i32 i32) (result i32)
      (i32.add (local.get 0) (local.get 1))))'''

    def forked(work):
        \"\"\"Run `work` in a child; its exit code.\"\"\"
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            work()
            sys.exit(0)  # all exit hooks run
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    host = Supervisor()
"""
USED = """
    module = host.compile(WAT)
    instance = host.instantiate(module)
    assert instance.func("add")(1, 2) == 3
"""


def test_everything_is_refused_in_a_forked_child(program):
    """Each use of what the parent made is a clear error, cause USAGE; the parent's instance answers as before."""
    with program(
        START
        + USED
        + """
    def uses():
        add = instance.func
        for name, use in {
            "call": lambda: instance.call("add", [1, 2]),
            "call_many": lambda: instance.call_many("add", [[1, 2]]),
            "func": lambda: instance.func("add")(1, 2),
            "memory_read": lambda: instance.memory_read(0, 1),
            "memory_write": lambda: instance.memory_write(0, b"x"),
            "set_fuel": lambda: instance.set_fuel(1),
            "compile": lambda: host.compile("(module)"),
            "compile what is cached": lambda: host.compile(WAT),
            "instantiate": lambda: host.instantiate(module),
        }.items():
            say(name=name, **failure(use))
        say(alive=instance.alive)

    say(code=forked(uses))
    say(answer=instance.func("add")(1, 2), more=add(host))
"""
    ) as script:
        for _ in range(9):
            refused = script.report()
            assert refused["cause"] == "USAGE", refused
            assert "fork" in refused["text"], refused
            by = {"compile": "CompileError", "compile what is cached": "CompileError"}
            by["instantiate"] = "InstantiationError"
            assert refused["error"] == by.get(refused["name"], "CallError"), refused
        assert script.report() == {"alive": False}
        assert script.report() == {"code": 0}
        assert script.report() == {"answer": 3, "more": 3}
        script.ended_well()


DAMAGE = {
    "exit": "pass",
    "close": "instance.close(); host.close()",
    "kill": "instance.kill()",
    "with": "exec('with instance: pass\\nwith host: pass')",
    "collect": "globals().pop('instance'); globals().pop('module'); globals().pop('host'); gc.collect()",
    "os._exit": "os._exit(0)",
    "an exception": "sys.exit(0)",
    "a fork of the fork": "forked(lambda: (instance.close(), host.close()))",
    "its own supervisor": "own = Supervisor(); assert add(own) == 3; own.close(); assert add(Supervisor()) == 3",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_forked_child_does_no_damage(program, damage):
    """Whatever the child does to its copies, and however it ends, the parent's instances answer as before."""
    with program(
        START
        + USED
        + f"""
    instance.memory_write(0, b"kept")
    say(code=forked(lambda: [{damage!r}, exec(compile({DAMAGE[damage]!r}, "damage", "exec"), globals())]))
    say(answer=instance.func("add")(1, 2), kept=instance.memory_read(0, 4).decode(), alive=instance.alive)
    say(more=add(host))
    with host:
        instance.close()
    say(**failure(lambda: instance.call("add", [1, 2])))
"""
    ) as script:
        assert script.report() == {"code": 0}
        assert script.report() == {"answer": 3, "kept": "kept", "alive": True}
        assert script.report() == {"more": 3}
        assert script.report()["cause"] == "CLOSED"
        script.ended_well()


def test_forked_during_a_call(program):
    """A fork from one thread while others are in calls: the child ends, and every call goes on."""
    with program(
        START
        + """
    running = threading.Semaphore(0)
    host = Supervisor(limits=Limits(wall_s=None, fuel=None))
    module = host.compile(LOOP)
    loops = [host.instantiate(module, WasmImports(pd_log=lambda *_: running.release())) for _ in range(4)]
    outcomes = []
    threads = [threading.Thread(target=lambda it=it: outcomes.append(failure(lambda: it.call("run")))) for it in loops]
    for thread in threads:
        thread.start()
    for _ in threads:
        running.acquire()

    def child():
        for loop in loops:
            loop.kill()
            loop.close()
        host.close()
        gc.collect()

    say(codes=[forked(child) for _ in range(3)], alive=[each.alive for each in loops], ended=len(outcomes))
    for loop in loops:
        loop.kill()
    for thread in threads:
        thread.join()
    say(causes=[outcome["cause"] for outcome in outcomes])
    host.close()
"""
    ) as script:
        assert script.report() == {"codes": [0, 0, 0], "alive": [True] * 4, "ended": 0}
        assert script.report() == {"causes": ["CANCELLED"] * 4}
        script.ended_well()


def test_a_supervisor_made_before_the_fork_works_after_it(program):
    """One that nobody has used yet belongs to whoever uses it first: several children, and then the parent too."""
    with program(
        START
        + """
    def work():
        say(answer=add(host, os.getpid(), 0) - os.getpid())
        host.compile(WAT)

    say(codes=[forked(work) for _ in range(3)])
    say(answer=add(host))
"""
    ) as script:
        for _ in range(3):
            assert script.report() == {"answer": 0}
        assert script.report() == {"codes": [0, 0, 0]}
        assert script.report() == {"answer": 3}
        script.ended_well()


def test_the_parent_closes_while_a_child_lives(program):
    """A child holds copies of all descriptors: closing, in the parent, still ends every process at once."""
    with program(
        START
        + USED
        + """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    say(**{"worker": instance.pid})
    await_word()
    instance.close()
    say(closed="instance")
    await_word()
    host.close()
    say(closed="host")
    await_word()
    os.write(write, b"x")
    os.waitpid(child, 0)
"""
    ) as script:
        worker = script.report()["worker"]
        with script.held() as held:
            script.word()
            assert script.report() == {"closed": "instance"}
            assert not alive(worker)
            script.word()
            assert script.report() == {"closed": "host"}
            assert len(held.running()) == 1, "only the child"
            script.word()
            script.ended_well()


@pytest.mark.orphans
def test_the_child_outlives_the_parent(program):
    """The parent dies, its child lives and starts a supervisor of its own; nothing of the parent's is left."""
    with program(
        START
        + USED
        + """
    child = os.fork()
    if child == 0:
        say(child=os.getpid())
        await_word()
        own = Supervisor()
        say(answer=add(own))
        say(**failure(lambda: instance.call("add", [1, 2])))
        own.close()
        os._exit(0)
    os.waitpid(child, 0)
"""
    ) as script:
        child = script.report()["child"]
        with script.held() as held:
            os.kill(script.pid, signal.SIGKILL)
            script.word()
            assert script.report() == {"answer": 3}
            assert script.report()["cause"] == "USAGE"
            assert held.wait_gone() == []
        assert child


def test_forked_while_another_thread_ships_a_function(program):
    """What was locked at the moment of the fork is free in the child: it can ship functions of its own."""
    with program(
        START
        + """
    import signal
    from pdsandbox import in_worker

    inside, go_on = threading.Event(), threading.Event()

    class Slow:
        def __reduce__(self):
            inside.set()
            go_on.wait()
            return (int, ())

    slow = Slow()
    thread = threading.Thread(target=in_worker, args=(lambda caller: slow,))
    thread.start()
    inside.wait()

    def work():
        signal.alarm(20)
        in_worker(lambda caller: None)

    say(code=forked(work))
    go_on.set()
    thread.join()
"""
    ) as script:
        assert script.report() == {"code": 0}
        script.ended_well()
