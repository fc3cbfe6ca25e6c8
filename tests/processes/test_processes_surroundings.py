"""What a program may have done to its process before: signals, other people's children, umask, directory."""

from __future__ import annotations

import pytest
from programs import named, signals

BODY = """
    from pdsandbox import Limits, Supervisor, WallClockExceeded
    from userland import ADD, LOOP, add, await_word, failure, say

    host = Supervisor(limits=Limits(wall_s=1.0, fuel=None))
    say(answer=add(host))
    loop = host.instantiate(host.compile(LOOP))
    say(**failure(lambda: loop.call("run")))
    instance = host.instantiate(host.compile(ADD))
    say(pid=instance.pid)
    await_word()
    instance.kill()
    say(**failure(lambda: instance.call("add", [1, 2])))
    say(answer=add(host))
    host.close()
"""
BEFORE = {
    "SIGCHLD ignored": "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "SIGCHLD handled": "signal.signal(signal.SIGCHLD, lambda *_: reap(os.WNOHANG))",
    "SIGALRM ignored": "signal.signal(signal.SIGALRM, signal.SIG_IGN)",
    "SIGALRM blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})",
    "everything blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
    "SIGPIPE default": "signal.signal(signal.SIGPIPE, signal.SIG_DFL)",
    "SIGSEGV and SIGTERM ignored": "[signal.signal(n, signal.SIG_IGN) for n in (signal.SIGSEGV, signal.SIGTERM)]",
    "umask 0777": "os.umask(0o777)",
    "directory deleted": "os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')",
    "no temporary directory": "os.environ['TMPDIR'] = '/nonexistent'",
    "waitpid(-1) in a loop": "threading.Thread(target=reap_everything, daemon=True).start()",
}
PREPARE = """
    import os, signal, threading, time

    reaped = []

    def reap(flags=0):
        try:
            reaped.append(os.waitpid(-1, flags))
        except ChildProcessError:
            time.sleep(0.001)

    def reap_everything():
        while True:
            reap()
"""


@pytest.mark.parametrize("before", BEFORE)
def test_a_program_that_has_changed_its_process(program, tmp_path, before):
    """Calls, deadlines, kills and closing work, and each keeps its cause."""
    with program(f"{PREPARE}\n    {BEFORE[before]}\n{BODY}", cwd=tmp_path) as script:
        assert script.report() == {"answer": 3}
        assert script.report()["error"] == "WallClockExceeded"
        worker = script.report()["pid"]
        # What is ignored or blocked survives exec and fork: the worker's own timer needs SIGALRM deadly.
        for pid in (worker, *named("pdsandbox-fork", script.pid)):
            assert not signals(pid, "SigBlk")
        assert not signals(worker, "SigIgn") & {14, 15, 17}  # SIGALRM, SIGTERM, SIGCHLD
        script.word()
        killed = script.report()
        assert (killed["error"], killed["cause"]) == ("WorkerCrashed", "CANCELLED")
        assert script.report() == {"answer": 3}
        script.ended_well()


@pytest.mark.orphans
def test_a_waitpid_loop_takes_the_dead_fork_server(program):
    """Where the program itself reaps the fork server, its death is still one clear error, and a new one starts."""
    with program(
        f"""{PREPARE}
    threading.Thread(target=reap_everything, daemon=True).start()
    from pdsandbox import Supervisor
    from userland import ADD, add, failure, say

    host = Supervisor()
    instance = host.instantiate(host.compile(ADD))
    say(answer=add(host))
    fork_server = os.getpid()
    with open(f"/proc/self/task/{{fork_server}}/children") as children:
        fork_server = int(children.read().split()[0])
    os.kill(fork_server, signal.SIGKILL)
    while os.path.exists(f"/proc/{{fork_server}}"):  # until it is reaped, mostly by the loop
        time.sleep(0.001)
    say(**failure(lambda: instance.call("add", [1, 2])))
    say(answer=add(host))
    host.close()
"""
    ) as script:
        assert script.report() == {"answer": 3}
        lost = script.report()
        assert (lost["error"], lost["cause"]) == ("WorkerCrashed", "HOST")
        assert "fork server" in lost["text"]
        assert script.report() == {"answer": 3}
        script.ended_well()


def test_a_program_with_a_signal_handler_that_raises_nothing(program):
    """An interval timer of the user's own, firing all the time, interrupts no call and gets lost in none."""
    with program("""
        import signal
        from pdsandbox import Supervisor
        from userland import ADD, add, say

        ticks = []
        signal.signal(signal.SIGALRM, lambda *_: ticks.append(1))
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        with Supervisor() as host:
            answers = [add(host, n, n) for n in range(10)]
            instance = host.instantiate(host.compile(ADD))
            rows = instance.call_many("add", [(n, n) for n in range(10_000)])
        signal.setitimer(signal.ITIMER_REAL, 0)
        say(answers=answers, rows=sum(row[0].value for row in rows), ticked=bool(ticks))
    """) as script:
        assert script.report() == {"answers": list(range(0, 20, 2)), "rows": 99_990_000, "ticked": True}
        script.ended_well()
