"""Real workers, from end to end, with one mutated reply: typed errors in time, and no process stays."""

from __future__ import annotations

import collections
import errno
import os
import select
import time
from collections.abc import Iterator
from typing import Any

import pytest
from copying import refuse_copies
from fuzz_effort import TIMES, Growth, naming, seeds
from fuzz_hijack import hijack
from fuzz_mutations import NAMES, Dice
from fuzz_stage import check_error

from pdsandbox import HostFunction, Limits, Supervisor, WasmError, WasmImports, in_worker
from pdsandbox import errors as e
from pdsandbox.errors import Cause

PARTS = 2 * TIMES
ROUNDS = 2 * len(NAMES)
MIB = 1 << 20
#: What a worker that falls silent costs; an honest answer that takes longer on a busy machine ends the same way.
WALL_S = 0.2
AT_MOST_S = 30.0
GUEST = """(module
  (import "m" "hijack" (func $hijack (param i32 i32 i32)))
  (import "m" "host" (func $host (param i32) (result i32)))
  (import "m" "ping" (func $ping))
  (import "env" "pd_log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 40)
  (func (export "hijack") (param i32 i32 i32) (call $hijack (local.get 0) (local.get 1) (local.get 2)))
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "host") (param i32) (result i32) (call $host (local.get 0)))
  (func (export "ping") (call $ping))
  (func (export "log") (param i32)
    (loop $again
      (call $log (local.get 0) (i32.const 0) (i32.const 4))
      (local.set 0 (i32.sub (local.get 0) (i32.const 1)))
      (br_if $again (i32.gt_s (local.get 0) (i32.const 0)))))
  (func (export "trap") (unreachable)))"""
#: What a worker may be made to tell, and what becomes of it.
EXPECTED = {
    "an answer",
    (e.WorkerCrashed, Cause.PROTOCOL),
    (e.WorkerCrashed, Cause.SIGNAL),
    (e.WorkerCrashed, Cause.EXIT),
    (e.WallClockExceeded, Cause.WALL),
    (e.Trap, Cause.GUEST_TRAP),
    (e.FuelExhausted, Cause.FUEL),
    (e.MemoryAccessError, Cause.MEMORY),
    (e.CallError, Cause.USAGE),
    (e.CallError, Cause.EXIT),
    (e.CallError, Cause.HOST_FUNCTION),
    (e.GuestExit, Cause.GUEST_EXIT),
}


def host(caller: Any, value: int) -> int:
    """Reads and writes the guest's memory, some of it in two messages."""
    if value & 1:
        caller.memory_read(3, (1 << 20) + 1 if value & 4 else 100)
    if value & 2:
        caller.memory_write(5, bytes(1000))
    return value


def log(level: int, _message: bytes) -> None:
    """Fails somewhere between."""
    if level == 2:
        raise LookupError


#: What a worker does in its shortest way from the second time on.
WARM = (
    lambda instance, _: instance.call("add", [1, 2]),
    lambda instance, _: instance.call("ping"),
    lambda instance, dice: instance.call("log", [dice.below(5)]),
)
USES = (
    *WARM,
    lambda instance, dice: instance.call("host", [dice.below(8)]),
    lambda instance, _: instance.call_many("add", [[n, 1] for n in range(20)]),
    lambda instance, dice: instance.call_many("host", [[dice.below(4)] for _ in range(3)]),
    lambda instance, dice: instance.memory_read(7, dice.choice((1, 5000, (1 << 20) + 9))),
    lambda instance, dice: instance.memory_read_into(7, bytearray(dice.choice((1, 5000, (1 << 20) + 9)))),
    lambda instance, dice: instance.memory_write(7, bytes(dice.choice((1, 5000, (1 << 20) + 9)))),
    lambda instance, _: instance.call("trap"),
    lambda instance, _: instance.memory_read(1 << 30, 1),
)


@pytest.fixture(scope="module")
def supervisor() -> Iterator[Supervisor]:
    limits = Limits(fuel=10**6, wall_s=WALL_S, rss_bytes=None, memory_bytes=4 * MIB)
    with Supervisor(limits=limits, spares=0) as made:
        made.compile(GUEST)
        yield made


@pytest.fixture(scope="module")
def imports() -> WasmImports:
    functions = {
        ("m", "hijack"): HostFunction(in_worker(hijack), ("i32",) * 3),
        ("m", "host"): HostFunction(host, ("i32",), ("i32",)),
        ("m", "ping"): HostFunction(lambda _caller: None),
    }
    return WasmImports(pd_log=log, functions=functions)


def attempt(use: Any) -> WasmError | None:
    """What `use` raises, if it does."""
    try:
        use()
    except WasmError as exc:
        return check_error(exc)
    return None


def run(supervisor: Supervisor, module: Any, imports: WasmImports, seed: int, outcomes: Any) -> None:
    """One worker: hijacked, then used until it is gone, five times at most. For half of them the kernel copies memory,
    the others are asked for it."""
    with pytest.MonkeyPatch.context() as patch:
        if seed // len(NAMES) % 2:
            refuse_copies(patch, errno.EPERM)
        use(supervisor, module, imports, seed, outcomes)


def use(supervisor: Supervisor, module: Any, imports: WasmImports, seed: int, outcomes: Any) -> None:
    dice = Dice(seed)
    try:
        instance = supervisor.instantiate(module, imports)
        if dice.one_in(2):
            for act in WARM:
                attempt(lambda act=act: act(instance, Dice(0)))
        instance.call("hijack", [seed & 0x7FFFFFFF, 1 + dice.below(4), seed % len(NAMES)], wall_s=60.0)
    except e.WallClockExceeded:  # a busy machine
        outcomes["too slow"] += 1
        return
    worker = os.pidfd_open(instance.pid)
    try:
        for _ in range(5):
            act = dice.choice(USES)
            started = time.monotonic()
            error = attempt(lambda act=act: act(instance, dice))
            assert time.monotonic() - started < AT_MOST_S, "it hung"
            found = "an answer" if error is None else (type(error), error.cause)
            assert found in EXPECTED
            outcomes[found] += 1
            if not instance.alive:
                again = attempt(lambda act=act: act(instance, dice))
                if isinstance(error, e.WorkerCrashed | e.WallClockExceeded):
                    assert again == error
                else:  # it answered, and died of its own accord before anybody looked
                    assert isinstance(again, e.WorkerCrashed)
                break
        instance.close()
        assert select.select([worker], [], [], AT_MOST_S)[0], "the worker lives on"
    finally:
        os.close(worker)


@pytest.mark.parametrize("part", range(PARTS))
def test_a_hijacked_worker(supervisor: Supervisor, imports: WasmImports, part: int) -> None:
    """Whatever it writes instead of one reply: an answer or an error of a call's, and the worker is gone in the end."""
    module = supervisor.compile(GUEST)  # the fixture compiled it
    outcomes: collections.Counter[Any] = collections.Counter()
    before = None
    for count, seed in enumerate(seeds(part, PARTS, ROUNDS)):
        with naming(seed, lambda seed=seed: f"mutation {NAMES[seed % len(NAMES)]!r}"):
            run(supervisor, module, imports, seed, outcomes)
        if count == 20:
            before = Growth()
    if before is not None:
        before.check(8 * MIB)
        assert outcomes["an answer"] > 0
        assert outcomes[e.WorkerCrashed, Cause.PROTOCOL] > 0
