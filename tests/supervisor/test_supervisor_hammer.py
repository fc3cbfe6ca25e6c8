"""Sixteen threads on one supervisor, everything at once for some seconds: answers right, errors expected."""

from __future__ import annotations

import collections
import random
import threading
import time

import pytest
from supervising import PATIENCE_S, imports, together

from pdsandbox import (
    I32,
    CallError,
    Cause,
    CompileError,
    FuelExhausted,
    InstantiationError,
    Trap,
    WallClockExceeded,
    WasmError,
    WorkerCrashed,
)

THREADS = 16
SECONDS = 5.0

SOURCE = """(module
  (import "env" "ask" (func $ask (param i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "number") (result i32) (i32.const {number}))
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "ask") (param i32) (result i32) (call $ask (local.get 0)))
  (func (export "sum") (param i32) (result i32) (local $s i32)
    (loop $l (local.set $s (i32.add (local.get $s) (local.get 0)))
      (br_if $l (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
    (local.get $s))
  (func (export "spin") (loop $l (br $l)))
  (func (export "trap") (unreachable)))"""

#: What may have happened to an instance that somebody else ended.
ENDED = {(CallError, Cause.CLOSED), (WorkerCrashed, Cause.CANCELLED), (WallClockExceeded, Cause.WALL)}
#: What a supervisor that is being closed says, besides.
CLOSED = {(CompileError, Cause.CLOSED), (InstantiationError, Cause.CLOSED), (CallError, Cause.CLOSED)}


class Slot:
    """An instance that all threads use, and what it must answer."""

    def __init__(self, number, instance):
        self.number = number
        self.instance = instance


class Hammer:
    """One supervisor's shared instances, and what the threads do with them."""

    def __init__(self, host, sources=8, slots=10):
        self.host = host
        self.sources = [SOURCE.format(number=number) for number in range(sources)]
        self.slots = [None] * slots
        self.lock = threading.Lock()

    def new(self, rng):
        """Compile one of the sources (or find it) and put an instance of it into a slot."""
        number = rng.randrange(len(self.sources))
        module = self.host.compile(self.sources[number])
        assert module.exports()[:2] == ["memory", "number"]
        instance = self.host.instantiate(module, imports(ask=lambda value: value ^ 0x5555))
        at = rng.randrange(len(self.slots))
        with self.lock:
            old, self.slots[at] = self.slots[at], Slot(number, instance)
        if old is not None and rng.random() < 0.7:  # else dropped, and left to its finaliser
            old.instance.close()

    def use(self, rng, me, slot):
        """One operation on a shared instance; its answer must be right."""
        instance, value = slot.instance, rng.randrange(1000)
        match rng.choice(["number", "add", "ask", "many", "memory", "trap", "fuel", "func", "data", "sum"]):
            case "number":
                assert instance.call("number") == [I32(slot.number)]
            case "add":
                assert instance.call("add", [value, me]) == [I32(value + me)]
            case "ask":
                assert instance.call("ask", [value]) == [I32(value ^ 0x5555)]
            case "func":
                assert instance.func("add")(me, -value) == me - value
            case "sum":
                assert instance.call("sum", [value + 1]) == [I32((value + 1) * (value + 2) // 2)]
            case "many":
                rows = [(value, i) for i in range(rng.randrange(200))]
                assert instance.call_many("add", rows) == [[I32(value + i)] for _, i in rows]
            case "memory":
                data = value.to_bytes(8, "little")
                instance.memory_write(8 * me, data)  # nobody else writes there
                assert instance.memory_read(8 * me, 8) == data
            case "data":
                assert len(instance.memory_read(0, 65536)) == 65536
            case "trap":
                with pytest.raises(WasmError) as caught:
                    instance.call("trap")
                if type(caught.value) is not Trap:
                    raise caught.value
            case "fuel":
                with pytest.raises(WasmError) as caught:
                    instance.call("sum", [1_000_000], fuel=value)
                if type(caught.value) is not FuelExhausted:
                    raise caught.value

    def step(self, rng, me):
        """One thing or another, mostly calls."""
        slot = rng.choice(self.slots)
        chance = rng.random()
        if slot is None or chance < 0.02:
            self.new(rng)
            return "new"
        if chance < 0.03:
            rng.choice([slot.instance.kill, slot.instance.close])()
            return "end"
        if chance < 0.032:
            self.spin(slot.instance)
            return "spin"
        self.use(rng, me, slot)
        return "use"

    def spin(self, instance):
        """Let it run into a deadline, unless the others keep it busy for longer."""
        with pytest.raises(WasmError) as caught:
            instance.call("spin", wall_s=0.02)
        if (type(caught.value), caught.value.cause) != (CallError, Cause.USAGE):
            raise caught.value

    def thread(self, me, until, expected):
        """Steps until `until()`; every error is one of the expected ones. (class, cause) -> how often."""
        rng, counts = random.Random(me), collections.Counter()
        while not until():
            try:
                counts[self.step(rng, me)] += 1
            except WasmError as exc:
                kind = type(exc), exc.cause
                if kind not in expected:
                    raise
                counts[kind] += 1
                if kind in CLOSED and exc.__class__ is not CallError:
                    break
        return counts


@pytest.mark.hammer
@pytest.mark.timeout(90)
@pytest.mark.parametrize("spares", [0, 2])
def test_everything_at_once(make_supervisor, spares):
    """Create, call, batch, memory, trap, fuel, deadline, kill, close, compile: shared instances, a small cache."""
    size = make_supervisor().compile(SOURCE.format(number=0)).compiled.artifact.size
    hammer = Hammer(make_supervisor(spares=spares, cache_bytes=5 * size))
    end = time.monotonic() + SECONDS / 2
    threads = [lambda me=me: hammer.thread(me, lambda: time.monotonic() > end, ENDED) for me in range(THREADS)]
    total = sum(together(*threads), collections.Counter())
    assert total["use"] > 100
    assert total["new"] > 10
    assert total["end"] > 0
    # Afterwards all of it still works, with nothing to wait for.
    rng = random.Random(0)
    for _ in range(20):
        hammer.new(rng)
    for slot in hammer.slots:
        if slot is not None and slot.instance.alive:
            hammer.use(rng, 0, slot)


@pytest.mark.hammer
@pytest.mark.timeout(90)
def test_closed_in_the_middle_of_everything(make_supervisor):
    """close() during all of that, again and again: every thread hears CLOSED and ends, and nothing is left."""
    for turn in range(6):
        hammer = Hammer(make_supervisor(spares=turn % 2, max_compilers=2), sources=30)
        closed, warm = threading.Event(), threading.Semaphore(0)

        def thread(me, hammer=hammer, closed=closed, warm=warm):
            steps = 0

            def until():
                nonlocal steps
                steps += 1
                warm.release()
                return closed.is_set() and steps > 800

            return hammer.thread(me + 100, until, ENDED | CLOSED)

        def closing(hammer=hammer, closed=closed, warm=warm, turn=turn):
            for _ in range(1 + 150 * turn):
                assert warm.acquire(timeout=PATIENCE_S)
            hammer.host.close()
            closed.set()
            return collections.Counter()

        total = sum(together(*[lambda me=me: thread(me) for me in range(THREADS)], closing), collections.Counter())
        assert sum(total[kind] for kind in CLOSED) > 0


@pytest.mark.hammer
@pytest.mark.timeout(90)
def test_two_threads_on_one_instance_while_a_third_ends_it(make_supervisor):
    """A hundred instances, each used by two threads until a third ends it: right answers, then the cause."""
    host = make_supervisor(spares=2)
    module = host.compile(SOURCE.format(number=5))
    for turn in range(100):
        instance = host.instantiate(module, imports(ask=lambda value: value + 1))
        calls = threading.Semaphore(0)
        end, kind = ((instance.kill, WorkerCrashed), (instance.close, CallError))[turn % 2]

        def use(me, instance=instance, calls=calls):
            value = 0
            while True:
                value += 1
                calls.release()
                try:
                    assert instance.call("ask", [value]) == [I32(value + 1)]
                    assert instance.call("add", [me, value]) == [I32(me + value)]
                except WasmError as exc:
                    return exc

        def ending(end=end, calls=calls, turn=turn):
            for _ in range(turn % 7):
                assert calls.acquire(timeout=PATIENCE_S)
            end()

        one, other, _ = together(lambda: use(10), lambda: use(20), ending)
        cause = Cause.CANCELLED if kind is WorkerCrashed else Cause.CLOSED
        for error in (one, other):
            assert (type(error), error.cause) == (kind, cause), repr(error)


@pytest.mark.hammer
@pytest.mark.timeout(90)
def test_many_threads_compile_few_modules(make_supervisor):
    """Sixteen threads, twelve sources, room for three: each gets the module that it asked for, and it runs."""
    size = make_supervisor().compile(SOURCE.format(number=0)).compiled.artifact.size
    host = make_supervisor(cache_bytes=3 * size, max_compilers=3)
    end = time.monotonic() + 2.0

    def thread(me):
        rng, done = random.Random(me), 0
        while time.monotonic() < end or not done:
            number = rng.randrange(12)
            module = host.compile(SOURCE.format(number=number))
            if rng.random() < 0.3:
                with host.instantiate(module, imports()) as instance:
                    assert instance.call("number") == [I32(number)]
            done += 1
        return done

    assert all(together(*[lambda me=me: thread(me) for me in range(THREADS)]))
    assert host._cache.bytes_held <= 3 * size
