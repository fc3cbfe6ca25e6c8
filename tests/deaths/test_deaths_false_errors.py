"""A worker that reports an error which nothing that was asked of it can end in breaks the protocol, as any nonsense."""

from __future__ import annotations

import os
import signal
import sys

import pytest
from misbehaviour import reply_pipe

from pdsandbox import (
    CallError,
    Cause,
    FuelExhausted,
    GuestExit,
    HostFunction,
    InstantiationError,
    MemoryAccessError,
    Supervisor,
    Trap,
    WasmError,
    WasmImports,
    WorkerCrashed,
    in_worker,
)
from pdsandbox.protocol.messages import Failure

GUEST = """(module (import "m" "report" (func $report (param i32)))
  (func $start (if (i32.ge_s (i32.const {start}) (i32.const 0)) (then (call $report (i32.const {start})))))
  (start $start)
  (func (export "report") (param i32) (call $report (local.get 0))))"""
KINDS = {name: kind for name, kind in vars(Failure).items() if isinstance(kind, int) and name != "COUNT"}
IN_A_CALL = {
    "TRAP": Trap,
    "FUEL": FuelExhausted,
    "MEMORY": MemoryAccessError,
    "CALL": CallError,
    "HOST_FUNCTION": CallError,
    "HOST_LIMIT": CallError,
    "GUEST_EXIT": GuestExit,
    "ENGINE": CallError,
}
WHILE_LOADING = {
    "FUEL": FuelExhausted,
    "CALL": InstantiationError,
    "LINK": InstantiationError,
    "GUEST_EXIT": GuestExit,
    "COMPILE": InstantiationError,
    "ENGINE": InstantiationError,
    "START_TRAP": InstantiationError,
    "START_HOST_FUNCTION": InstantiationError,
    "START_MEMORY": InstantiationError,
    "START_HOST": InstantiationError,
}


def report(_caller, kind):
    """Send an ERROR of this kind in place of whatever would come, and nothing after it."""
    message = sys.modules["pdsandbox.protocol.messages"].Error(kind, 0)
    os.write(reply_pipe(), message.frame())
    signal.pause()


@pytest.fixture(scope="module")
def instantiate():
    """instantiate(kind): an instance whose start function reports that kind; -1: none. All modules are compiled now,
    so that what the cache holds does not count as left behind by a test."""
    with Supervisor(spares=0) as host:
        modules = {kind: host.compile(GUEST.format(start=kind)) for kind in (-1, *KINDS.values())}
        host.instantiate(modules[-1], IMPORTS).close()
        yield lambda kind: host.instantiate(modules[kind], IMPORTS)


IMPORTS = WasmImports(functions={("m", "report"): HostFunction(in_worker(report), ("i32",))})


def judge(action, expected):
    """`action()` raises just this class, or WorkerCrashed, PROTOCOL, where there is none."""
    with pytest.raises(WasmError) as caught:
        action()
    assert type(caught.value) is (expected or WorkerCrashed)
    assert (caught.value.cause is Cause.PROTOCOL) is (expected is None)


@pytest.mark.parametrize("name", KINDS)
def test_in_a_call(instantiate, name):
    """What instantiating or compiling ends in does not end a call."""
    with instantiate(-1) as instance:
        judge(lambda: instance.call("report", [KINDS[name]]), IN_A_CALL.get(name))
        assert instance.alive is (name in IN_A_CALL)


@pytest.mark.parametrize("name", KINDS)
def test_while_loading(instantiate, name):
    """What a call ends in does not end instantiating; that our artifact cannot be loaded is this machine's failure."""
    judge(lambda: instantiate(KINDS[name]), WHILE_LOADING.get(name))
