"""What a worker writes to its standard error: the last 4 KiB are in the error that its death raises."""

from __future__ import annotations

import os

import pytest

from pdsandbox import Cause, HostFunction, Limits, Supervisor, WasmImports, WorkerCrashed, in_worker

GUEST = """(module (import "m" "write" (func $write (param i32 i32))) (import "m" "leave" (func $leave (param i32)))
  (func (export "write") (param i32 i32) (call $write (local.get 0) (local.get 1)))
  (func (export "leave") (param i32) (call $leave (local.get 0)))
  (func (export "ok") (result i32) (i32.const 42)))"""


def pattern(start, size):
    """`size` bytes of an endless text, from `start` on."""
    text = b"".join(b"%07d\n" % n for n in range(start // 8, (start + size) // 8 + 2))
    return text[start % 8 : start % 8 + size]


def write(caller, start, size):
    data = pattern(start, size)
    while data:
        try:
            data = data[os.write(2, data) :]
        except BlockingIOError:  # full, and nobody has to read it
            return


def leave(caller, code):
    os._exit(code)


@pytest.fixture
def instance():
    """Writes what it is told to standard error, and leaves when it is told."""
    functions = {
        ("m", "write"): HostFunction(in_worker(write), ("i32", "i32")),
        ("m", "leave"): HostFunction(in_worker(leave), ("i32",)),
    }
    with Supervisor(limits=Limits(wall_s=30.0), spares=0) as host:
        yield host.instantiate(host.compile(GUEST), WasmImports(functions=functions))


def tail(instance):
    """What is left of its standard error after it has left."""
    with pytest.raises(WorkerCrashed) as caught:
        instance.call("leave", [7])
    assert (caught.value.cause, caught.value.exit_code) == (Cause.EXIT, 7)
    with pytest.raises(WorkerCrashed) as again:
        instance.call("ok")
    assert again.value.stderr_tail == caught.value.stderr_tail
    assert str(caught.value) == "WASM trap: worker crashed: exit code 7", "what a worker wrote is data, not message"
    return caught.value.stderr_tail


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 10_000, 60_000])
def test_the_last_4_kib_are_kept(instance, size):
    """All of it up to 4,096 bytes, and of more the last 4,096."""
    instance.call("write", [0, size])
    assert tail(instance) == pattern(max(0, size - 4096), min(size, 4096))


def test_over_several_calls(instance):
    """Whenever they were written, and whether or not somebody has looked in between."""
    for n in range(10):
        instance.call("write", [n * 3000, 3000])
    assert tail(instance) == pattern(30_000 - 4096, 4096)


def test_a_flood_stops_nobody(instance):
    """Standard error that nobody reads fills up without blocking the worker, and the answers stay right."""
    for _ in range(10):
        instance.call("write", [0, 300_000])
        assert instance.func("ok")() == 42
    assert len(tail(instance)) == 4096


def test_what_python_itself_says(wait_for):
    """An error that leaves the worker's loop is there with its traceback."""
    host_functions = {
        ("m", "leave"): HostFunction(in_worker(spoil), ("i32",)),
        ("m", "write"): HostFunction(write, ("i32", "i32")),
    }
    with Supervisor(spares=0) as host:
        broken = host.instantiate(host.compile(GUEST), WasmImports(functions=host_functions))
        with pytest.raises(WorkerCrashed) as caught:
            broken.call("leave", [0])
            wait_for(lambda: not broken.alive)
            broken.call("ok")
    assert caught.value.cause is Cause.EXIT
    assert caught.value.stderr_tail.endswith(b"ZeroDivisionError: spoiled\n")


def spoil(caller, code):
    """From now on the worker fails at waiting for its next request."""
    import sys

    def fail(*_):
        raise ZeroDivisionError("spoiled")

    sys.modules["pdsandbox.worker.pipes"].Inbox.wait = fail
