"""Sixteen threads on instances that share workers: they come, answer, trap, are closed, dropped and killed."""

from __future__ import annotations

import collections
import random
import threading
import time

import pytest
from supervising import PATIENCE_S, imports, together

from pdsandbox import I32, CallError, Cause, InstantiationError, Trap, WasmError, WorkerCrashed

THREADS = 16
SECONDS = 5.0
SOURCE = """(module
  (import "env" "ask" (func $ask (param i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "ask") (param i32) (result i32) (call $ask (local.get 0)))
  (func (export "set") (param i32) (i32.store (i32.const 64) (local.get 0)))
  (func (export "get") (result i32) (i32.load (i32.const 64)))
  (func (export "trap") (unreachable))
  (func (export "number") (result i32) (i32.const {number})))"""
#: What may have happened to an instance that somebody else ended, or to a neighbour of one.
ENDED = {(CallError, Cause.CLOSED), (WorkerCrashed, Cause.CANCELLED)}
#: What a supervisor that is being closed says, besides.
CLOSED = {(InstantiationError, Cause.CLOSED), (CallError, Cause.CLOSED)}


def use(rng, number, mine, instance):
    """Some operations on an instance of which no other thread knows, but whose neighbours others use and end."""
    value = rng.randrange(1 << 30)
    assert instance.call("number") == [I32(number)]
    instance.call("set", [value])
    for _ in range(rng.randrange(1, 6)):
        match rng.randrange(5):
            case 0:
                assert instance.call("ask", [5]) == [I32(5 + mine)]
            case 1:
                assert instance.call_many("ask", [[1], [2]]) == [[I32(1 + mine)], [I32(2 + mine)]]
            case 2:
                assert instance.memory_read(64, 4) == value.to_bytes(4, "little")
            case 3:
                with pytest.raises(Trap) as caught:
                    instance.call("trap")
                if caught.value.cause is not Cause.GUEST_TRAP:
                    raise caught.value
            case 4:
                instance.memory_write(128, mine.to_bytes(4, "little"))
        assert instance.call("get") == [I32(value)]


def hammer(host, modules, me, until, killing):
    """Make, use and end instances until then; what happened, by kind. Anything unexpected fails."""
    rng, seen = random.Random(me), collections.Counter()
    while time.monotonic() < until or not seen["turns"]:
        seen["turns"] += 1
        number = rng.randrange(len(modules))
        mine = me * 1000 + seen["turns"] % 1000
        try:
            instance = host.instantiate(modules[number], imports(ask=lambda value, mine=mine: value + mine))
            try:
                use(rng, number, mine, instance)
            finally:
                match rng.randrange(40 if killing else 20):
                    case 0:
                        instance.kill()
                    case 1 | 2 | 3:
                        pass  # dropped
                    case _:
                        instance.close()
        except WasmError as exc:
            kind = (type(exc), exc.cause)
            seen[kind] += 1
            if kind not in ENDED | CLOSED:
                raise
            if kind in CLOSED and host._processes.closed:
                return seen
    return seen


@pytest.mark.hammer
@pytest.mark.timeout(90)
def test_many_threads_share_few_workers(make_supervisor):
    """Right answers, none of a neighbour's, or one of the ends that somebody brought about; and no hang."""
    host = make_supervisor(isolation="module", spares=1)
    modules = [host.compile(SOURCE.format(number=number)) for number in range(3)]
    until = time.monotonic() + SECONDS
    total = sum(
        together(*[lambda me=me: hammer(host, modules, me, until, True) for me in range(THREADS)]),
        collections.Counter(),
    )
    assert total[WorkerCrashed, Cause.CANCELLED] > 0
    assert total["turns"] > THREADS


@pytest.mark.hammer
@pytest.mark.timeout(90)
def test_the_supervisor_is_closed_under_them(make_supervisor):
    """Whoever instantiates or calls then is told so; ten times, at moments that differ."""
    for turn in range(10):
        host = make_supervisor(isolation="module")
        modules = [host.compile(SOURCE.format(number=number)) for number in range(2)]
        warm = threading.Semaphore(0)

        def thread(me, host=host, modules=modules, warm=warm):
            warm.release()
            return hammer(host, modules, me, time.monotonic() + PATIENCE_S, False)

        def closing(host=host, warm=warm, turn=turn):
            for _ in range(1 + turn % 6):
                assert warm.acquire(timeout=PATIENCE_S)
            host.close()
            return collections.Counter()

        total = sum(together(*[lambda me=me: thread(me) for me in range(6)], closing), collections.Counter())
        assert sum(total[kind] for kind in CLOSED) > 0
