"""Events as lines of `logging`: which logger and level has which; a program without logging is told nothing."""

from __future__ import annotations

import logging
import subprocess
import sys

from supervising import expect, import_path, make_guest

from pdsandbox import Cause, Limits, Supervisor, WallClockExceeded


def test_the_log(caplog):
    """Loggers, levels and fields: a healthy life is DEBUG, a death INFO."""
    caplog.set_level(logging.DEBUG, "pdsandbox")
    with Supervisor(limits=Limits(fuel=None, wall_s=60.0), spares=0) as host:
        instance = make_guest(host)
        expect(WallClockExceeded, Cause.WALL, lambda: instance.call("spin", wall_s=0.2))
        pid = instance.pid
        make_guest(host).close()
    records = [record for record in caplog.records if hasattr(record, "pd_event")]
    seen = {(record.name, record.levelname, record.pd_event) for record in records}
    assert seen == {
        ("pdsandbox.forkserver", "DEBUG", "ForkServerStarted"),
        ("pdsandbox.worker", "DEBUG", "WorkerStarted"),
        ("pdsandbox.worker", "DEBUG", "WorkerReady"),
        ("pdsandbox.worker", "DEBUG", "WorkerEnded"),
        ("pdsandbox.worker", "INFO", "WorkerEnded"),
        ("pdsandbox.compile", "DEBUG", "Compiled"),
        ("pdsandbox.compile", "DEBUG", "CacheHit"),
    }
    (death,) = [record for record in records if record.levelname == "INFO"]
    assert (death.pd_pid, death.pd_cause, death.pd_message) == (pid, "wall", "wall-clock limit of 0.2 s exceeded")
    assert death.getMessage() == f"worker {death.pd_worker}, pid {pid}, ended (wall): {death.pd_message}"


def test_an_unconfigured_program_is_not_written_to():
    """Deaths reach the caller as errors, and nobody's standard error."""
    script = f"""if True:
        import sys
        sys.path[:0] = {import_path()!r}
        from supervising import expect, make_guest
        from pdsandbox import Cause, CompileError, Limits, Supervisor, WallClockExceeded
        with Supervisor(limits=Limits(fuel=None, wall_s=60.0), spares=0) as host:
            instance = make_guest(host)
            expect(WallClockExceeded, Cause.WALL, lambda: instance.call("spin", wall_s=0.2))
            expect(CompileError, Cause.COMPILE, lambda: host.compile("(nonsense)"))
        assert host.stats().workers_ended == {{Cause.WALL: 1}}
        print("done")"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("done\n", "")
