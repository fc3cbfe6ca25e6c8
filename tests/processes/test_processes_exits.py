"""Every way in which a program may end without closing its supervisor: nothing is left behind."""

from __future__ import annotations

import os
import signal

import pytest
from programs import WORKER, fork_server, named

START = """
    import os, sys, threading
    from pdsandbox import Limits, Supervisor, WasmImports
    from userland import ADD, LOOP, await_word, say

    host = Supervisor(limits=Limits(fuel=None, wall_s=None), spares=2)
    instance = host.instantiate(host.compile(ADD))
    say(answer=instance.func("add")(1, 2))
    await_word()
"""
# How it ends: (the program's last lines, its exit code, what its standard error ends with).
ENDINGS = {
    "normally": ("", 0, ""),
    "by an exception": ("raise KeyError('unhandled')", 1, "KeyError: 'unhandled'\n"),
    "by sys.exit": ("sys.exit(3)", 3, ""),
    "by SystemExit in a finally": ("try:\n        1 / 0\n    finally:\n        raise SystemExit(4)", 4, ""),
    "with a reference cycle": ("host.cycle = [host, instance]; host.cycle.append(host.cycle)", 0, ""),
    "after deleting the instance": ("del instance", 0, ""),
    "after deleting everything": ("del instance, host", 0, ""),
    "closing in its own exit hook": ("import atexit; atexit.register(host.close)", 0, ""),
}
DYING = {
    "by os._exit": ("os._exit(9)", 9),
    "by SIGTERM": ("await_word()", -signal.SIGTERM),
    "by SIGABRT": ("os.abort()", -signal.SIGABRT),
    "by exec": ("os.execv(sys.executable, [sys.executable, '-S', '-c', 'raise SystemExit(5)'])", 5),
}


def begun(script):
    """The program has a fork server, an instance and two spares."""
    assert script.report() == {"answer": 3}
    assert fork_server(script.pid)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_program_that_ends_by_itself(program, wait_for, ending):
    """Its exit hook ends and reaps every process before the program is gone, quietly; its own exit code stands."""
    last, code, err = ENDINGS[ending]
    with program(f"{START}    {last}\n") as script:
        begun(script)
        wait_for(lambda: len(named(WORKER, script.pid)) == 3)
        with script.held() as held:
            script.word()
            said = script.ended_with(code)
            assert held.wait_gone(0) == []
    assert said.endswith(err)
    assert bool(said) == bool(err)
    assert "Exception ignored" not in said


@pytest.mark.orphans
@pytest.mark.parametrize("ending", DYING)
def test_a_program_that_ends_without_its_exit_hooks(program, wait_for, ending):
    """Then the fork server notices, and everything goes at once."""
    last, code = DYING[ending]
    with program(f"{START}    {last}\n") as script:
        begun(script)
        wait_for(lambda: len(named(WORKER, script.pid)) == 3)
        with script.held() as held:
            script.word()
            if ending == "by SIGTERM":
                os.kill(script.pid, signal.SIGTERM)
            script.ended_with(code)
            assert held.wait_gone() == []


def test_a_program_that_ends_during_a_call(program):
    """A daemon thread inside an endless call keeps nothing: the program ends, and the worker with it."""
    with program(
        START
        + """
    running = threading.Event()
    looping = host.instantiate(host.compile(LOOP), WasmImports(pd_log=lambda *_: running.set()))

    def run():
        try:
            looping.call("run")
        except BaseException as exc:
            os.write(1, f"{type(exc).__name__} {exc.cause.name}".encode())

    threading.Thread(target=run, daemon=True).start()
    running.wait()
"""
    ) as script:
        begun(script)
        script.word()
        code, out, err = script.end()
    assert (code, err) == (0, "")
    assert out in ("CallError CLOSED", ""), "a daemon thread may be stopped before it can say anything"


def test_a_program_whose_threads_outlive_its_main(program):
    """Other threads use the supervisor after the main thread has ended; only the last one's end is the program's."""
    with program(
        START
        + """
    def later():
        threading.main_thread().join()
        say(answer=instance.func("add")(2, 3))

    threading.Thread(target=later).start()
"""
    ) as script:
        begun(script)
        script.word()
        assert script.report() == {"answer": 5}
        script.ended_well()


def test_a_supervisor_first_used_in_an_exit_hook(program):
    """Late, but in time: it works or says that it is too late, and leaves nothing behind."""
    with program("""
        import atexit
        from pdsandbox import Supervisor
        from userland import ADD, failure, say

        host = Supervisor()

        @atexit.register
        def late():
            say(**failure(lambda: host.instantiate(host.compile(ADD)).close()))
    """) as script:
        assert script.report()["cause"] in ("", "HOST", "CLOSED")
        script.ended_well()
