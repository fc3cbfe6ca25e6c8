"""RLIMIT_DATA, the ceiling that needs nobody to look: memory that is reserved and never touched counts there.

What a guest does when it is refused is reported as RssExceeded where the last sample stood at the ceiling, and as
what was seen otherwise. A ceiling that nobody minds is no verdict.
"""

from __future__ import annotations

import ctypes
import mmap
import os

import pytest
from supervising import MIB, eventually, expect, gone

from pdsandbox import I32, CallError, Cause, HostFunction, RssExceeded, Trap, WasmImports, WorkerCrashed, in_worker

LIMIT = 64 * MIB
MEMORY = 192 * MIB
#: Above what the fork server starts with: `memory_bytes`, being larger than `rss_bytes`, and the slack.
CEILING = MEMORY + 64 * MIB

GUEST = """(module
  (import "env" "fill" (func $fill (param i32) (result i32)))
  (import "env" "end" (func $end (param i32)))
  (memory (export "memory") 1) (memory $second 1)
  (func (export "ok") (result i32) (i32.const 42))
  (func (export "fill") (param i32) (result i32) (call $fill (local.get 0)))
  (func (export "end") (param i32) (call $end (local.get 0)))
  (func (export "fill_and_end") (param i32) (param i32)
    (drop (call $fill (local.get 0))) (call $end (local.get 1)))
  (func (export "trap") (unreachable))
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
  (func (export "grow_second") (param i32) (result i32) (memory.grow $second (local.get 0))))"""
KEPT: list[object] = []


def _malloc(_caller, most):
    """Blocks of 1 MiB, untouched, until there is no more or `most` are had; how many."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    count = 0
    while count < most and libc.malloc(1 << 20):
        count += 1
    return count


def _map(_caller, most):
    """The same by mmap, which raises OSError, ENOMEM."""
    KEPT.extend(mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(most))
    return most


def _allocate(_caller, most):
    """The same until malloc has none, and then a MemoryError of Python's own."""
    KEPT.extend("x" * (1 << 20) for _ in range(_malloc(_caller, most), most))
    return most


def _end(_caller, how):
    """What code that was refused memory may do next, and what has nothing to do with it."""
    if how == 0:
        os.abort()
    elif how == 1:
        ctypes.string_at(0)
    elif how == 2:
        raise MemoryError
    elif how == 3:
        raise ValueError("MemoryError")
    elif how == 4:
        os._exit(3)
    elif how == 5:
        bytearray(1 << 40)


ABORT, NULL_POINTER, MEMORY_ERROR, VALUE_ERROR, EXIT, TOO_MUCH = range(6)
NO_END = 10_000


@pytest.fixture
def make(make_supervisor):
    """make(fill): an instance with that function in its worker."""

    def make(fill=_malloc, source=GUEST):
        host = make_supervisor(rss_bytes=LIMIT, memory_bytes=MEMORY)
        functions = {
            ("env", "fill"): HostFunction(in_worker(fill), ("i32",), ("i32",)),
            ("env", "end"): HostFunction(in_worker(_end), ("i32",)),
        }
        return host.instantiate(host.compile(source), WasmImports(functions=functions))

    return make


def filled(instance):
    """Nothing more is to be had, and the supervisor has looked since."""
    count = instance.func("fill")(NO_END)
    handle = instance._handle
    eventually(lambda: instance.call("ok") == [I32(42)] and handle.at_ceiling(handle.watch) is not None)
    return count


def exceeded(action):
    """`action()` ends in RssExceeded; the figure is what is reserved."""
    error = expect(RssExceeded, Cause.RSS, action)
    assert error.limit == LIMIT
    assert CEILING < error.observed < CEILING + 32 * MIB
    assert error.message.startswith("RSS limit of 64 MiB exceeded (")
    assert error.message.endswith(" MiB reserved, and no more granted)")


@pytest.mark.parametrize("fill", [_map, _allocate])
def test_a_function_that_is_refused_memory(make, fill):
    """MemoryError, or ENOMEM, at the ceiling: RssExceeded, with hardly anything resident, and for good."""
    instance = make(fill)
    exceeded(lambda: instance.call("fill", [NO_END]))
    gone(instance, RssExceeded, Cause.RSS)


def test_a_start_function_that_is_refused_memory(make):
    """While instantiating it is the same."""
    start = '(func $s (drop (call $fill (i32.const 10000)))) (start $s) (func (export "ok")'
    exceeded(lambda: make(_map, GUEST.replace('(func (export "ok")', start)))


def test_a_ceiling_that_nobody_minds(make):
    """Who is told NULL and goes on keeps the limits: the ceiling is where it should be, and the instance is usable."""
    instance = make()
    assert CEILING / MIB - 32 < filled(instance) <= CEILING / MIB
    assert instance.call("ok") == [I32(42)]


@pytest.mark.parametrize("how", [ABORT, NULL_POINTER, MEMORY_ERROR])
def test_failing_at_the_ceiling(make, how):
    """An abort, a null pointer, a MemoryError after malloc had no more: RssExceeded."""
    instance = make()
    filled(instance)
    exceeded(lambda: instance.call("end", [how]))
    gone(instance, RssExceeded, Cause.RSS)


def test_failing_for_another_reason_at_the_ceiling(make):
    """Another exception, a trap of the guest's own, an exit: what was seen."""
    instance = make()
    filled(instance)
    error = expect(CallError, Cause.HOST_FUNCTION, lambda: instance.call("end", [VALUE_ERROR]))
    assert "ValueError" in str(error.__cause__)
    expect(Trap, Cause.GUEST_TRAP, lambda: instance.call("trap"))
    assert instance.call("ok") == [I32(42)]
    assert expect(WorkerCrashed, Cause.EXIT, lambda: instance.call("end", [EXIT])).exit_code == 3


@pytest.mark.parametrize("megabytes", [0, CEILING // MIB - 16])
def test_failing_below_the_ceiling(make, megabytes):
    """A MemoryError, of Python's or made up, and an abort: what was seen, up to 16 MiB below the ceiling."""
    instance = make()
    assert instance.func("fill")(megabytes) == megabytes
    for how in (MEMORY_ERROR, TOO_MUCH):
        expect(CallError, Cause.HOST_FUNCTION, lambda how=how: instance.call("end", [how]))
        assert instance.call("ok") == [I32(42)]
    assert expect(WorkerCrashed, Cause.SIGNAL, lambda: instance.call("end", [ABORT])).signal == 6


def test_a_refused_growth_is_an_answer(make):
    """Memories that keep their own limit, but together go over the ceiling: -1, and the instance stays usable."""
    instance = make()
    assert instance.func("grow")(MEMORY // 65536 - 1) == 1
    assert instance.func("grow_second")(MEMORY // 65536 - 1) == -1
    assert instance.func("grow_second")(1) == 1
    assert instance.call("ok") == [I32(42)]
