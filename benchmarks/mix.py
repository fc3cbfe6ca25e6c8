"""What a plugin does to a service, all at once: calls that answer, trap, run out of fuel, of time and of memory, and
native code that crashes.

The guest of every kind calls the host function `note` with the call's number first, so that each execution is counted.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

from pdsandbox import (
    I32,
    CallError,
    Cause,
    FuelExhausted,
    HostFunction,
    Pool,
    RssExceeded,
    Trap,
    WallClockExceeded,
    WasmError,
    WasmImports,
    WorkerCrashed,
    in_worker,
)

from .ledger import Kind, Ledger

# `strike` is only there where a function runs in the worker.
_SOURCE: Final = """(module
  (import "m" "note" (func $note (param i32) (result i32)))
  {strike}
  (memory (export "memory") 1)
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "work") (param i32) (result i32 i32) (call $note (local.get 0)) (i32.const {version}))
  (func (export "trap") (param i32) (drop (call $note (local.get 0))) (unreachable))
  (func (export "spin") (param i32) (drop (call $note (local.get 0))) (loop $l (br $l)))
  (func (export "hog") (param i32) (local i32)
    (drop (call $note (local.get 0)))
    (loop $more
      (local.set 1 (memory.grow (i32.const 16)))
      (if (i32.ne (local.get 1) (i32.const -1)) (then
        (memory.fill (i32.mul (local.get 1) (i32.const 65536)) (i32.const 1) (i32.const 1048576))))
      (br $more))))"""
_STRIKE: Final = """(import "m" "strike" (func $strike (param i32)))
  (func (export "crash") (param i32 i32) (drop (call $note (local.get 0))) (call $strike (local.get 1)))"""

# Far more than the guests need that answer, and a few microseconds of the one that never does.
_LITTLE_FUEL: Final = 20_000
_FUEL_FOREVER: Final = 1 << 60
# A worker's start takes milliseconds; its death by a deadline should not take many times that.
_SHORT_S: Final = 0.02


def source(*, version: int = 0, native: bool = False) -> str:
    """The guest in the text format; `native`: with a function that runs in its worker. `version`: what `work` says."""
    text = _SOURCE.format(strike="{strike}", version=version)
    if not native:
        return text.replace("{strike}", "")
    # Imports come before everything else.
    imported, function = _STRIKE.split("\n")
    return text.replace("{strike}", imported)[:-1] + function + ")"


def strike(_caller: Any, how: int) -> NoReturn:
    """Runs in a worker, and ends it."""
    if how == 0:
        ctypes.string_at(0)
    elif how == 1:
        os._exit(3)
    os.abort()


class Refused(Exception):
    """What a host function raises on purpose."""


def imports(ledger: Ledger, *, native: bool = False) -> WasmImports:
    """The guest's imports."""

    def note(_caller: Any, number: int) -> int:
        if number < 0:
            ledger.note(-number)
            raise Refused
        return ledger.note(number)

    functions = {("m", "note"): HostFunction(note, ("i32",), ("i32",))}
    if native:
        functions["m", "strike"] = HostFunction(in_worker(strike), ("i32",))
    return WasmImports(functions=functions)


def harmless(pool: Pool) -> Sequence[Kind]:
    """Calls that no worker dies of."""

    def borrow(n: int) -> list[Any]:
        with pool.instance() as instance:
            before = instance.call("work", [n])
            instance.memory_write(16, n.to_bytes(8, "little"))
            if int.from_bytes(instance.memory_read(16, 8), "little") != n:
                raise AssertionError("memory is another caller's")
            after = instance.call("work", [n])
        return before if before == after else []

    return (
        Kind("plain", 6, lambda n: pool.call("add", [n, 1]), lambda answer, n: answer == [I32(n + 1)], runs=0),
        Kind("host function", 6, lambda n: pool.call("work", [n]), _worked),
        Kind("borrowed", 2, borrow, _worked, runs=2, at_most=2),
        Kind("idempotent", 2, lambda n: pool.call("work", [n], idempotent=True), _worked, at_most=2),
        Kind("trap", 2, lambda n: pool.call("trap", [n]), error=(Trap, Cause.GUEST_TRAP)),
        Kind("fuel", 2, lambda n: pool.call("spin", [n], fuel=_LITTLE_FUEL), error=(FuelExhausted, Cause.FUEL)),
        Kind(
            "refused",
            1,
            lambda n: pool.call("work", [-n]),
            error=(CallError, Cause.HOST_FUNCTION),
            like=lambda error: isinstance(error.__cause__, Refused),
        ),
    )


def deadly(pool: Pool) -> Sequence[Kind]:
    """Calls that are stopped with their worker. One whose time is over may not have come as far as `note`."""
    return (
        Kind(
            "wall",
            0.4,
            lambda n: pool.call("spin", [n], fuel=_FUEL_FOREVER, wall_s=_SHORT_S),
            error=(WallClockExceeded, Cause.WALL),
            at_least=0,
        ),
        Kind("rss", 0.2, lambda n: pool.call("hog", [n], fuel=_FUEL_FOREVER), error=(RssExceeded, Cause.RSS)),
    )


def crashing(pool: Pool) -> Sequence[Kind]:
    """Calls whose worker crashes, of a pool with a function in the worker."""

    def by(number: int) -> Callable[[WasmError], bool]:
        return lambda error: error.signal == number

    def crash(how: int) -> Callable[[int], Any]:
        return lambda n: pool.call("crash", [n, how])

    died = (WorkerCrashed, Cause.SIGNAL)
    return (
        Kind("segfault", 0.1, crash(0), error=died, like=by(signal.SIGSEGV)),
        Kind("exit", 0.1, crash(1), error=(WorkerCrashed, Cause.EXIT), like=lambda error: error.exit_code == 3),
        Kind("abort", 0.1, crash(2), error=died, like=by(signal.SIGABRT)),
    )


def was_killed(error: WasmError) -> bool:
    """Whether this is what a call gets whose worker was killed from outside."""
    return type(error) is WorkerCrashed and error.cause is Cause.SIGNAL and error.signal == signal.SIGKILL


def _worked(answer: Any, number: int) -> bool:
    return bool(answer == [I32(number + 1), I32(0)])
