"""What is asked of, or done to, a worker by number or by name only while it is surely that worker's."""

from __future__ import annotations

import math
import os
import signal
import time
from dataclasses import replace

from supervising import eventually, expect

from pdsandbox import Cause, WorkerCrashed
from pdsandbox.platform import os_


def test_raised_while_it_lives_and_not_afterwards(make_supervisor, monkeypatch):
    """A longer operation raises it for the worker's pid; once the worker is known to have ended nobody's is touched."""
    raised = []
    monkeypatch.setattr(os_, "limit_cpu", lambda pid, seconds: raised.append((pid, seconds)))
    host = make_supervisor()
    instance = host.instantiate(host.compile('(module (func (export "ok")))'))
    handle = instance._handle
    instance.call("ok", wall_s=10_000)
    assert [pid for pid, _ in raised] == [instance.pid]
    assert raised[0][1] >= 10_000
    instance.call("ok")
    assert len(raised) == 1, "what was allowed once is not set again"
    instance.kill()
    eventually(lambda: handle.ended)
    handle.allow_cpu(time.monotonic(), None)
    assert len(raised) == 1
    assert handle.cpu_until < math.inf


def test_a_leaf_that_somebody_took_away(make_supervisor, monkeypatch):
    """What happened in a cgroup that is gone cannot be known: the housekeeper lives on, and the signal is reported."""
    host = make_supervisor()
    instance = host.instantiate(host.compile('(module (func (export "ok")))'))
    server = host._processes.fork_server

    def gone(*_):
        raise OSError(19, "No such device")

    monkeypatch.setattr(os_, "cgroup_out_of_memory", gone)
    monkeypatch.setattr(server, "_config", replace(server._config, cgroup="/sys/fs/cgroup/gone"))
    os.kill(instance.pid, signal.SIGKILL)
    expect(WorkerCrashed, Cause.SIGNAL, lambda: instance.call("ok"))
    monkeypatch.undo()
    assert host.instantiate(host.compile('(module (func (export "ok")))')).alive
