"""A worker that lies about where its guest's memory is: it gets at nothing but its own, and costs only itself."""

from __future__ import annotations

import ctypes

import lying
import pytest
from supervising import MIB, PAGE, expect, gone

from pdsandbox import (
    I32,
    Cause,
    HostFunction,
    Limits,
    MemoryAccessError,
    Supervisor,
    WasmImports,
    WorkerCrashed,
    in_worker,
)

USES = {
    "memory_read": lambda memory, size: memory.memory_read(0, size),
    "memory_read_into": lambda memory, size: memory.memory_read_into(0, bytearray(size)),
    "memory_write": lambda memory, size: memory.memory_write(0, bytes(size)),
}
EACH_USE = pytest.mark.parametrize("use", USES.values(), ids=USES)
LIAR = """(module
  (import "env" "lie" (func $lie (param i64 i64)))
  (import "env" "find" (func $find (param i32) (result i64)))
  (memory (export "memory") 1)
  (func (export "ok") (result i32) (i32.const 42))
  (func (export "find") (param i32) (result i64) (call $find (local.get 0)))
  (func (export "lie") (param i64 i64) (call $lie (local.get 0) (local.get 1))))"""


@pytest.fixture(scope="module")
def module():
    """The liar's, of a supervisor for all of them: what one worker says costs that worker only."""
    limits = Limits(fuel=None, wall_s=60.0, memory_bytes=MIB)
    with Supervisor(hardening="off", limits=limits, spares=0) as host:
        host.instantiate(host.compile("(module)")).close()
        yield host.compile(LIAR)


@pytest.fixture
def liar(module):
    """An instance whose worker says of its memory what it is told to."""
    functions = {
        ("env", "lie"): HostFunction(in_worker(lying.lie), ("i64", "i64")),
        ("env", "find"): HostFunction(in_worker(lying.find), ("i32",), ("i64",)),
    }
    with module.host.instantiate(module, WasmImports(functions=functions)) as instance:
        instance.memory_write(0, b"honest")
        yield instance


def signed(number):
    """As an i64 is given."""
    return number - (1 << 64) if number >> 63 else number


def test_lies_lead_into_the_liars_own_memory(liar):
    """Wherever it says that memory is, it is the worker's own that is read and written, though the address be ours."""
    ours = ctypes.create_string_buffer(b"the service's own secret", 64)
    (mine,) = liar.call("find", [0])
    liar.call("lie", [mine.value, 64])
    assert liar.memory_read(0, 11) == b"the worker's"[:11]
    liar.memory_write(0, b"THE")
    assert liar.memory_read(0, 5) == b"THE w"
    expect(MemoryAccessError, Cause.MEMORY, lambda: liar.memory_read(60, 5))
    liar.call("lie", [signed(ctypes.addressof(ours)), 64])
    try:
        found = liar.memory_read(0, 24)
        liar.memory_write(0, b"overwritten")
    except WorkerCrashed:
        gone(liar, WorkerCrashed, Cause.PROTOCOL)  # it has nothing there
    else:
        assert b"service" not in found
    assert ours.value == b"the service's own secret"


LIES = {
    "nothing is there": (4096, PAGE),
    "the last page": (2**64 - 4096, PAGE),
    "beyond the last byte": (2**64 - 1, PAGE),
    "the kernel": (0xFFFF800000000000, PAGE),
    "more than it may have": (1 << 40, 1 << 40),
    "all there is": (1, 2**64 - 1),
    "our sign": (1 << 40, 1 << 63),
}


@EACH_USE
@pytest.mark.parametrize(("base", "size"), LIES.values(), ids=LIES)
def test_lies_that_lead_nowhere(liar, use, base, size):
    """The verdict is PROTOCOL, nothing is set aside here for what is not there, and the supervisor works on."""
    liar.call("lie", [signed(base), signed(size)])
    length = PAGE if size <= MIB else 1 << 20
    expect(WorkerCrashed, Cause.PROTOCOL, lambda: use(liar, length))
    gone(liar, WorkerCrashed, Cause.PROTOCOL)


def test_what_a_liar_may_not_have_takes_no_room_here(liar):
    """A length that only a lie allows is refused before room is made for it."""
    liar.call("lie", [4096, signed(2**63)])
    expect(WorkerCrashed, Cause.PROTOCOL, lambda: liar.memory_read(0, 1 << 45))


def test_read_only_memory_is_not_written(liar):
    """The kernel keeps to what the worker itself may do with its pages."""
    (code,) = liar.call("find", [1])
    liar.call("lie", [code.value, 64])
    assert len(liar.memory_read(0, 64)) == 64
    expect(WorkerCrashed, Cause.PROTOCOL, lambda: liar.memory_write(0, b"x"))


def test_a_memory_that_is_said_to_be_none(liar):
    """Smaller than it is: that much less can be had. Nowhere: then the pipes are asked, and the worker answers."""
    liar.call("lie", [1 << 40, 0])
    expect(MemoryAccessError, Cause.MEMORY, lambda: liar.memory_read(0, 1))
    assert liar.memory_read(0, 0) == b""
    liar.call("lie", [0, PAGE])
    assert liar.call("ok") == [I32(42)]
    assert liar.alive
