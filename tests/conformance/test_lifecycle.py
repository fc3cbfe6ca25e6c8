"""Closing, using after closing, context managers, what an instance tells about itself."""

from __future__ import annotations

import contextlib
import gc
import os
import weakref

import pytest
from leaks import fds

from pdsandbox import (
    I32,
    CallError,
    Capability,
    Cause,
    HostFunction,
    WasmError,
    WasmHost,
    WasmImports,
    WasmInstance,
    WasmModule,
    WorkerCrashed,
)

SOURCE = """(module (memory (export "memory") 1)
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))"""
USES = {
    "call": lambda instance: instance.call("add", [1, 2]),
    "call-unknown": lambda instance: instance.call("nope", []),
    "call_many": lambda instance: instance.call_many("add", [[1, 2]]),
    "func": lambda instance: instance.func("add"),
    "func, called": lambda instance: instance.func("add")(1, 2),
    "memory_read": lambda instance: instance.memory_read(0, 1),
    "memory_write": lambda instance: instance.memory_write(0, b"x"),
    "set_fuel": lambda instance: instance.set_fuel(1000),
}


def closed(make):
    """`make()` raises the error for use after close."""
    with pytest.raises(CallError) as caught:
        make()
    assert caught.value.cause is Cause.CLOSED


def test_hosts_modules_and_instances_have_the_interface(host):
    """What implements the contract is an instance of its classes."""
    module = host.compile(SOURCE)
    with host.instantiate(module) as instance:
        assert isinstance(host, WasmHost)
        assert isinstance(module, WasmModule)
        assert isinstance(instance, WasmInstance)
    assert host.missing <= set(Capability)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_use_after_close(instantiate, use):
    """Every method says that the instance is closed, time after time."""
    instance = instantiate(SOURCE)
    instance.call("add", [1, 2])
    assert instance.alive
    instance.close()
    assert not instance.alive
    closed(lambda: use(instance))
    closed(lambda: use(instance))


def test_a_kept_func_after_close(instantiate):
    """The callable of `func` outlives its instance only to say so."""
    instance = instantiate(SOURCE)
    add = instance.func("add")
    instance.close()
    closed(lambda: add(1, 2))


def test_what_can_be_told_after_close(instantiate):
    """The fuel consumed so far is either still known or refused as closed, never wrong."""
    instance = instantiate(SOURCE)
    instance.call("add", [1, 2])
    consumed = instance.fuel_consumed()
    instance.close()
    with contextlib.suppress(CallError):
        assert instance.fuel_consumed() == consumed


def test_close_twice(instantiate):
    """The second close does nothing."""
    instance = instantiate(SOURCE)
    instance.close()
    instance.close()
    assert not instance.alive


def test_an_instance_is_a_context_manager(host):
    """Leaving closes it, also by an exception, which goes on."""
    module = host.compile(SOURCE)
    with host.instantiate(module) as instance:
        assert instance.call("add", [1, 2]) == [I32(3)]
    closed(lambda: instance.call("add", [1, 2]))
    with pytest.raises(KeyError), host.instantiate(module) as other:
        raise KeyError
    assert not other.alive


def test_closing_the_host_closes_its_instances(host_factory):
    """And ends all use of it; a second close does nothing."""
    host = host_factory()
    module = host.compile(SOURCE)
    instances = [host.instantiate(module) for _ in range(3)]
    assert instances[0].call("add", [1, 2]) == [I32(3)]
    host.close()
    for instance in instances:
        assert not instance.alive
        closed(lambda instance=instance: instance.call("add", [1, 2]))
        instance.close()
    for attempt in (lambda: host.compile(SOURCE), lambda: host.instantiate(module)):
        with pytest.raises(WasmError) as caught:
            attempt()
        assert caught.value.cause is Cause.CLOSED
    host.close()


def test_a_host_is_a_context_manager(host_factory):
    """Leaving closes it."""
    with host_factory() as host:
        instance = host.instantiate(host.compile(SOURCE))
        assert instance.call("add", [1, 2]) == [I32(3)]
    assert not instance.alive


def test_one_instances_end_is_nobody_elses(instantiate):
    """A neighbour of the same module goes on."""
    one, other = instantiate(SOURCE), instantiate(SOURCE)
    one.close()
    assert other.call("add", [1, 2]) == [I32(3)]


def test_closing_does_not_touch_what_was_read(instantiate):
    """Bytes and values outlive their instance."""
    instance = instantiate(SOURCE)
    data, result = instance.memory_read(0, 65536), instance.call("add", [1, 2])
    instance.close()
    assert data == bytes(65536)
    assert result == [I32(3)]


def test_a_closed_instance_lets_go_of_its_callbacks(host):
    """Who closes an instance and drops it gets back what its callbacks held on to."""

    class Held:
        pass

    held = Held()
    gone = weakref.ref(held)

    def callback(caller, held=held):
        return held is None

    imports = WasmImports(functions={("env", "f"): HostFunction(callback, results=("i32",))})
    module = host.compile('(module (import "env" "f" (func (result i32))) (export "f" (func 0)))')
    with host.instantiate(module, imports) as instance:
        assert instance.call("f", []) == [I32(0)]
    del instance, held, callback, imports
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("end", ["close", "kill"])
def test_an_instance_ended_by_its_own_host_function(host, end):
    """Whether that is refused there or ends the call, nobody hangs, and the next instance works."""
    causes = {"close": {Cause.CLOSED}, "kill": {Cause.CANCELLED}}[end] | {Cause.USAGE, Cause.HOST_FUNCTION}
    imports = WasmImports(functions={("env", "f"): HostFunction(lambda caller: getattr(instance, end)())})
    module = host.compile('(module (import "env" "f" (func $f)) (func (export "run") (call $f)))')
    with host.instantiate(module, imports) as instance:
        with pytest.raises(WasmError) as caught:
            instance.call("run", [])
        assert caught.value.cause in causes
    assert not instance.alive
    with host.instantiate(host.compile(SOURCE)) as other:
        assert other.call("add", [1, 2]) == [I32(3)]


def test_compiled_modules_that_are_kept_take_few_descriptors(host_factory):
    """Code is kept for reuse, but not one descriptor for each of thousands: many programs get 1,024 in all."""
    host = host_factory()
    host.compile("(module)")
    before = len(fds())
    for i in range(150):
        host.compile(f'(module (func (export "f") (result i32) (i32.const {i})))')
    assert len(fds()) - before < 130


def test_the_pid_is_that_of_the_process_the_guest_runs_in(host, instantiate):
    """Ours where there is no isolation, another one where there is."""
    pid = instantiate(SOURCE).pid
    assert isinstance(pid, int)
    assert (pid == os.getpid()) == (Capability.ISOLATION in host.missing)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_use_after_kill(instantiate, use):
    """`kill` ends an instance: every later use raises WorkerCrashed, cause CANCELLED."""
    instance = instantiate(SOURCE)
    instance.kill()
    instance.kill()
    assert not instance.alive
    for _ in range(2):
        with pytest.raises(WorkerCrashed) as caught:
            use(instance)
        assert caught.value.cause is Cause.CANCELLED


def test_close_after_kill(instantiate):
    """A killed instance can be closed like any other."""
    instance = instantiate(SOURCE)
    instance.kill()
    instance.close()
    assert not instance.alive
