"""Native code that has disarmed every clock inside its worker is stopped by the one outside it."""

from __future__ import annotations

import signal

import pytest
from supervising import expect, gone

from pdsandbox import Cause, HostFunction, WallClockExceeded, WasmImports, in_worker

GUEST = """(module (import "env" "disarm" (func $disarm)) (memory (export "memory") 1)
  (func (export "ok") (result i32) (i32.const 42))
  (func (export "run") (call $disarm) (loop $again (br $again))))"""


def _disarm(_caller):
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))


@pytest.mark.parametrize("hardening", ["default", "off"])
def test_the_timer_disarmed_and_every_signal_blocked(make_supervisor, hardening):
    """The supervisor's deadline needs nothing of the worker: WallClockExceeded, and gone."""
    host = make_supervisor(wall_s=1.0, hardening=hardening)
    functions = {("env", "disarm"): HostFunction(in_worker(_disarm))}
    instance = host.instantiate(host.compile(GUEST), WasmImports(functions=functions))
    expect(WallClockExceeded, Cause.WALL, lambda: instance.call("run"))
    gone(instance, WallClockExceeded, Cause.WALL)
