"""Deadlines, resident memory and kill: what only a host with processes can promise."""

from __future__ import annotations

import os
import threading

import pytest

from pdsandbox import (
    I32,
    CallError,
    Capability,
    Cause,
    CompileError,
    EngineConfig,
    HostFunction,
    RssExceeded,
    WallClockExceeded,
    WasmImports,
    WorkerCrashed,
)

MIB = 1 << 20
WALL = pytest.mark.requires(Capability.WALL_CLOCK)
RSS = pytest.mark.requires(Capability.RSS)
KILL = pytest.mark.requires(Capability.KILL)
USES = {
    "call": lambda instance: instance.call("ok", []),
    "call_many": lambda instance: instance.call_many("ok", [[]]),
    "memory_read": lambda instance: instance.memory_read(0, 1),
    "memory_write": lambda instance: instance.memory_write(0, b"x"),
    "set_fuel": lambda instance: instance.set_fuel(1),
    "func": lambda instance: instance.func("ok")(),
}


def gone(instance, cls, cause):
    """The instance is gone, and every later use raises the same class with the first cause, at once."""
    assert not instance.alive
    for use in USES.values():
        with pytest.raises(cls) as caught:
            use(instance)
        assert type(caught.value) is cls
        assert caught.value.cause is cause


def stopped(instance, seconds, *call, **options):
    """The WallClockExceeded that this call ends in."""
    with pytest.raises(WallClockExceeded) as caught:
        instance.call(*call, **options)
    assert caught.value.cause is Cause.WALL
    assert caught.value.limit == seconds
    assert str(caught.value) == f"WASM trap: wall-clock limit of {seconds:g} s exceeded"
    return caught.value


@WALL
@pytest.mark.parametrize("guest", ["endless_loop", "endless_host_calls"])
def test_limits_wall_s_stops_what_never_ends(host_factory, instantiate, wat, guest):
    """Loops, and loops of host calls, end at the deadline; the instance is gone, its neighbour is not."""
    host = host_factory(wall_s=1.0, fuel=None, host_calls=None)
    instance, neighbour = instantiate(wat(guest), on=host), instantiate(wat("unreachable"), on=host)
    assert instance.call("ok", []) == [I32(42)]
    stopped(instance, 1.0, "run", [])
    gone(instance, WallClockExceeded, Cause.WALL)
    assert neighbour.call("ok", []) == [I32(42)]


@WALL
def test_a_bulk_operation_is_stopped_in_the_middle(host_factory, instantiate, wat):
    """Instructions that run long without a check inside are no way around the deadline."""
    host = host_factory(fuel=None, memory_bytes=64 * MIB)
    stopped(instantiate(wat("memory_fill"), on=host), 0.2, "run", [1000], wall_s=0.2)


@WALL
def test_a_calls_own_deadline(host_factory, instantiate, wat):
    """`wall_s=` is for this call only, shorter or longer than the limit."""
    host = host_factory(fuel=None)
    instance = instantiate(wat("endless_loop"), on=host)
    assert instance.call("ok", [], wall_s=30.0) == [I32(42)]
    stopped(instance, 0.1, "run", [], wall_s=0.1)
    batch = instantiate(wat("endless_loop"), on=host)
    with pytest.raises(WallClockExceeded) as caught:
        batch.call_many("run", [[], []], wall_s=0.1)
    # How far it came is known only to the worker that was killed: nothing is claimed.
    assert caught.value.row in (None, 0)
    assert not caught.value.results


@WALL
def test_a_start_function_has_the_deadline_too(host_factory, wat):
    """WallClockExceeded keeps its class while instantiating."""
    host = host_factory(wall_s=0.2, fuel=None)
    module = host.compile(wat("start_loop"))
    with pytest.raises(WallClockExceeded) as caught:
        host.instantiate(module)
    assert caught.value.cause is Cause.WALL


@WALL
def test_the_deadline_passes_while_a_host_function_runs(host_factory, instantiate):
    """The worker is killed on time; the call raises once the callback has returned."""
    host = host_factory(fuel=None)

    def callback(caller):
        # The worker's end is the handshake: only the watchdog can bring it about while we are here.
        descriptor = os.pidfd_open(instance.pid)
        with open(descriptor, "rb", buffering=0):
            import select

            assert select.select([descriptor], [], [], 60)[0]

    imports = WasmImports(functions={("env", "f"): HostFunction(callback)})
    instance = instantiate('(module (import "env" "f" (func $f)) (func (export "run") (call $f)))', imports, on=host)
    stopped(instance, 0.2, "run", [], wall_s=0.2)


@WALL
@pytest.mark.parametrize("wall_s", [0, -1, float("nan"), float("inf"), 1e9, "1", True], ids=repr)
def test_a_deadline_that_cannot_be(instantiate, wat, wall_s):
    """A call's own deadline has the bounds of the limit."""
    instance = instantiate(wat("endless_loop"))
    with pytest.raises((ValueError, CallError)):
        instance.call("ok", [], wall_s=wall_s)
    assert instance.call("ok", []) == [I32(42)]


@WALL
def test_an_interruptible_guest_ends_at_its_deadline(host_factory, instantiate, wat):
    """The same error; the instance may survive, and then it answers."""
    host = host_factory(fuel=None, engine=EngineConfig(interruptible=True))
    instance = instantiate(wat("endless_loop"), on=host)
    stopped(instance, 0.2, "run", [], wall_s=0.2)
    if instance.alive:
        assert instance.call("ok", []) == [I32(42)]
    else:
        gone(instance, WallClockExceeded, Cause.WALL)


@RSS
@pytest.mark.requires(Capability.INDEPENDENCE)
def test_resident_memory_over_its_limit(host_factory, instantiate, wat):
    """RssExceeded with both figures; the instance is gone, its neighbour is not."""
    limit = 64 * MIB
    host = host_factory(rss_bytes=limit, memory_bytes=512 * MIB, fuel=None)
    instance, neighbour = (instantiate(wat("memory_fill"), on=host) for _ in range(2))
    with pytest.raises(RssExceeded) as caught:
        instance.call("run", [4000])
    error = caught.value
    assert error.cause is Cause.RSS
    assert error.limit == limit < error.observed
    assert str(error).startswith("WASM trap: RSS limit of 64 MiB exceeded (")
    gone(instance, RssExceeded, Cause.RSS)
    assert neighbour.call("ok", []) == [I32(42)]


@RSS
def test_resident_memory_under_its_limit(host_factory, instantiate, wat):
    """The interpreter's own and 32 MiB of guest memory fit into 96 MiB."""
    host = host_factory(rss_bytes=96 * MIB)
    assert instantiate(wat("memory_fill"), on=host).call("fill_once", [32 * MIB // 65536]) == [I32(512)]


@RSS
def test_resident_memory_while_instantiating(host_factory, wat):
    """RssExceeded keeps its class there."""
    host = host_factory(rss_bytes=40 * MIB, memory_bytes=1024 * MIB, table_elements=10_000_000)
    module = host.compile(wat("instantiation_bomb").replace("1000000", "8000000"))
    with pytest.raises(RssExceeded) as caught:
        host.instantiate(module)
    assert caught.value.cause is Cause.RSS


@KILL
def test_kill_from_another_thread_ends_a_running_call(host_factory, instantiate):
    """WorkerCrashed, cause CANCELLED, for the call and for every later use."""
    running = threading.Event()
    imports = WasmImports(pd_log=lambda *_: running.set())
    instance = instantiate(
        """(module (import "env" "pd_log" (func $log (param i32 i32 i32))) (memory (export "memory") 1)
          (func (export "ok") (result i32) (i32.const 42))
          (func (export "run") (call $log (i32.const 0) (i32.const 0) (i32.const 0)) (loop $again (br $again))))""",
        imports,
        on=host_factory(fuel=None),
    )

    def kill():
        running.wait(60)
        instance.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(WorkerCrashed) as caught:
            instance.call("run", [])
    finally:
        killer.join()
    assert caught.value.cause is Cause.CANCELLED
    gone(instance, WorkerCrashed, Cause.CANCELLED)


@KILL
def test_close_from_another_thread_ends_a_running_call(host_factory, instantiate):
    """CallError, cause CLOSED, at once."""
    running = threading.Event()
    instance = instantiate(
        """(module (import "env" "pd_log" (func $log (param i32 i32 i32))) (memory (export "memory") 1)
          (func (export "run") (call $log (i32.const 0) (i32.const 0) (i32.const 0)) (loop $again (br $again))))""",
        WasmImports(pd_log=lambda *_: running.set()),
        on=host_factory(fuel=None),
    )

    def close():
        running.wait(60)
        instance.close()

    closer = threading.Thread(target=close)
    closer.start()
    try:
        with pytest.raises(CallError) as caught:
            instance.call("run", [])
    finally:
        closer.join()
    assert caught.value.cause is Cause.CLOSED


@pytest.mark.requires(Capability.COMPILE_LIMITS)
def test_a_compilation_over_its_time(host_factory):
    """CompileError, cause WALL, with the limit; the next compilation goes on."""
    host = host_factory(compile_wall_s=0.001)
    body = "(i32.add (i32.const 1) " * 2000 + "(i32.const 1)" + ")" * 2000
    with pytest.raises(CompileError) as caught:
        host.compile(f'(module (func (export "f") (result i32) {body}))' + " " * 2_000_000)
    assert caught.value.cause is Cause.WALL
    assert caught.value.limit == 0.001


def test_a_host_without_a_clock_refuses_a_deadline(host, instantiate, wat):
    """`call(wall_s=)` is a CallError where deadlines cannot be kept; elsewhere it is kept."""
    instance = instantiate(wat("endless_loop"))
    for attempt in (
        lambda: instance.call("ok", [], wall_s=30.0),
        lambda: instance.call_many("ok", [[]], wall_s=30.0),
    ):
        if Capability.WALL_CLOCK in host.missing:
            with pytest.raises(CallError) as caught:
                attempt()
            assert caught.value.cause is Cause.USAGE
        else:
            assert attempt() in ([I32(42)], [[I32(42)]])
    assert instance.call("ok", []) == [I32(42)]


LACKING = {
    "wall_s": (Capability.WALL_CLOCK, 1.0),
    "rss_bytes": (Capability.RSS, 64 * MIB),
    "compile_wall_s": (Capability.COMPILE_LIMITS, 1.0),
    "compile_rss_bytes": (Capability.COMPILE_LIMITS, 256 * MIB),
}


@pytest.mark.parametrize(("name", "capability", "value"), [(k, *v) for k, v in LACKING.items()], ids=LACKING)
def test_an_explicit_limit_that_cannot_be_kept_is_refused(host_factory, name, capability, value):
    """By name, at construction; a host that has the capability takes it."""
    probe = host_factory()
    if capability in probe.missing:
        with pytest.raises((ValueError, NotImplementedError), match=name):
            host_factory(**{name: value})
    else:
        assert host_factory(**{name: value}).compile("(module)").exports() == []
