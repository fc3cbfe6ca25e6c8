"""A host function whose memory operation is interrupted, and that goes on: no half of a conversation is carried on.

An exception from a signal handler may be caught by the function, or become its failure; what it left half-way ends the
worker either way, and what is raised is the contract's.
"""

from __future__ import annotations

import errno

import pytest
from copying import refuse_copies
from interrupts import Injector, Interrupt
from supervising import PAGE, gone

from pdsandbox import I32, CallError, Cause, HostFunction, WasmError, WasmImports, WorkerCrashed
from pdsandbox.supervisor.memory import PIECE_BYTES

LONG = 2 * PIECE_BYTES
GUEST = f"""(module (import "env" "use" (func $use (result i32)))
  (memory (export "memory") {1 + LONG // PAGE})
  (data (i32.const 0) "0123456789")
  (func (export "ok") (result i32) (i32.const 42))
  (func (export "run") (result i32) (drop (call $use)) (call $use)))"""
OPERATIONS = {
    "read": lambda caller: caller.memory_read(0, 10),
    "write": lambda caller: caller.memory_write(100, b"x"),
    "write of much": lambda caller: caller.memory_write(PAGE, bytes(LONG)),
}


@pytest.fixture(params=["copied", "piped"])
def piped(request, monkeypatch):
    if request.param == "piped":
        refuse_copies(monkeypatch, errno.EPERM)
    return request.param == "piped"


@pytest.mark.parametrize("caught", [True, False], ids=["caught", "not caught"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_interrupt_at_every_point_of_a_functions_memory_operation(host, piped, name, caught):
    """Either nothing was lost and the call goes on, or it ends in the death of its worker, cause CANCELLED."""
    injector = Injector(-1)

    def use(caller):
        if injector.where:
            return len(caller.memory_read(0, 10))
        try:
            injector.run(lambda: OPERATIONS[name](caller))
        except Interrupt:
            if not caught:
                raise TimeoutError from None
            try:
                return len(caller.memory_read(0, 10))
            except Exception:
                return 11
        return 10

    imports = WasmImports(functions={("env", "use"): HostFunction(use, (), ("i32",))})
    module, instance, ends = host.compile(GUEST), None, {"right": 0, "failed": 0, "cancelled": 0}
    step = 37 if piped and name == "write of much" else 1  # it goes through many points again and again
    number = misses = 0
    while misses < 3:
        if instance is None:
            instance = host.instantiate(module, imports)
            instance.memory_write(0, b"")  # from now on it is known where memory is
            instance.call("ok")
        injector = Injector(number)
        error = None
        try:
            answer = instance.call("run")
        except WasmError as exc:
            error = exc
        if error is None:
            assert answer == [I32(10)], injector.where
            assert caught or not injector.where
            ends["right"] += 1
        elif type(error) is CallError:
            assert (error.cause, type(error.__cause__), caught) == (Cause.HOST_FUNCTION, TimeoutError, False)
            assert instance.call("ok") == [I32(42)]
            ends["failed"] += 1
        else:
            assert (type(error), error.cause) == (WorkerCrashed, Cause.CANCELLED), injector.where
            assert caught or type(error.__cause__.__cause__) is TimeoutError
            gone(instance, WorkerCrashed, Cause.CANCELLED)
            ends["cancelled"] += 1
            instance = None
        misses = 0 if injector.where else misses + 1
        number += step
    assert ends["right"] > (3 if caught else 0)
    assert caught or ends["failed"]
    assert (ends["cancelled"] > 0) == (piped or name == "write of much")
