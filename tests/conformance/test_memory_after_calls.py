"""Memory that a guest has grown is there at once, all of it, however the call ended that grew it."""

from __future__ import annotations

import pytest

from pdsandbox import (
    I32,
    CallError,
    Capability,
    EngineConfig,
    FuelExhausted,
    HostFunction,
    MemoryAccessError,
    Trap,
    WallClockExceeded,
    WasmImports,
)

PAGE = 65536
#: Every function grows memory by 4 pages and marks the last byte, before it ends in its own way.
GUEST = """(module
  (import "env" "look" (func $look (param i32)))
  (import "env" "pd_log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 1 100)
  (func $grow (local $bytes i32)
    (drop (memory.grow (i32.const 4)))
    (local.set $bytes (i32.mul (memory.size) (i32.const 65536)))
    (i32.store8 (i32.sub (local.get $bytes) (i32.const 1)) (i32.const 77)))
  (func (export "pages") (result i32) (memory.size))
  (func (export "returns") (call $grow))
  (func (export "traps") (call $grow) (unreachable))
  (func (export "spins") (call $grow) (loop $l (br $l)))
  (func (export "recurses") (call $grow) (call $deep))
  (func $deep (call $deep))
  (func (export "looks") (call $grow) (call $look (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 1))))
  (func (export "logs") (call $grow) (call $log (i32.const 0)
    (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 1)) (i32.const 1)))
  (func (export "points outside") (call $grow) (call $log (i32.const 0) (i32.const -1) (i32.const 1)))
  {start})"""


class Here(Exception):
    """What a host function raises."""


@pytest.fixture
def seen():
    return []


@pytest.fixture
def make_guest(instantiate, seen):
    def make(on=None, start="", *, raises=False):
        def look(caller, at):
            seen.append(caller.memory_read(at, 1))
            if raises:
                raise Here

        def log(_level, message):
            seen.append(message)
            if raises:
                raise Here

        imports = WasmImports(pd_log=log, functions={("env", "look"): HostFunction(look, ("i32",))})
        return instantiate(GUEST.format(start=start), imports, on=on)

    return make


def grown(instance, pages):
    """The memory has that many pages: its last byte is there, and no more."""
    assert instance.memory_read(pages * PAGE - 1, 1) == b"M"
    with pytest.raises(MemoryAccessError):
        instance.memory_read(pages * PAGE, 1)
    instance.memory_write((pages - 1) * PAGE, b"ab")
    assert instance.memory_read((pages - 1) * PAGE, 3) == b"ab\0"


def once(instance, name, ends_in, **options):
    """Call it; it ends as it should."""
    if ends_in is None:
        assert instance.call(name, [], **options) == []
    else:
        with pytest.raises(ends_in):
            instance.call(name, [], **options)


ENDINGS = {
    "a result": ("returns", None, False),
    "a trap": ("traps", Trap, False),
    "the stack's end": ("recurses", Trap, False),
    "no fuel": ("spins", FuelExhausted, False),
    "a host call": ("looks", None, False),
    "a host function that raises": ("looks", CallError, True),
    "a log": ("logs", None, False),
    "a log that raises": ("logs", CallError, True),
    "a pointer outside": ("points outside", MemoryAccessError, False),
}


@pytest.mark.parametrize("known", [False, True], ids=["never used before", "used before"])
@pytest.mark.parametrize(("name", "ends_in", "raises"), ENDINGS.values(), ids=ENDINGS)
def test_after_every_ending(fuelled, make_guest, seen, name, ends_in, raises, known):
    """First calls and warm ones, whether or not anybody has asked for the memory before."""
    instance = make_guest(fuelled, raises=raises)
    if known:
        assert instance.memory_read(0, 1) == b"\0"
    for pages in (5, 9, 13):
        once(instance, name, ends_in)
        grown(instance, pages)
        assert instance.call("pages", []) == [I32(pages)]
        grown(instance, pages)
    assert seen == ([b"M"] * 3 if name in ("looks", "logs") else [])


@pytest.mark.parametrize(("name", "ends_in", "raises"), ENDINGS.values(), ids=ENDINGS)
def test_after_a_batch(fuelled, make_guest, name, ends_in, raises):
    """Each row that ran has grown it."""
    instance = make_guest(fuelled, raises=raises)
    instance.memory_read(0, 1)
    if ends_in is None:
        instance.call_many(name, [[]] * 3)
        grown(instance, 13)
    else:
        with pytest.raises(ends_in) as caught:
            instance.call_many(name, [[]] * 3)
        assert caught.value.row == 0
        grown(instance, 5)


@pytest.mark.requires(Capability.WALL_CLOCK)
def test_after_an_interrupt(host_factory, make_guest):
    """An instance that survives its deadline has the memory that it has grown."""
    instance = make_guest(host_factory(fuel=None, engine=EngineConfig(interruptible=True)))
    assert instance.memory_read(0, 1) == b"\0"
    for pages in (5, 9):
        once(instance, "spins", WallClockExceeded, wall_s=0.2)
        if not instance.alive:
            return
        grown(instance, pages)


def test_while_instantiating(make_guest, seen):
    """A start function's host function sees what it has grown, and so does whoever asks afterwards."""
    start = """(func $start (call $grow)
      (call $look (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 1)))) (start $start)"""
    instance = make_guest(start=start)
    assert seen == [b"M"]
    grown(instance, 5)
    instance.call("returns", [])
    grown(instance, 9)
