"""The gallery of hostile guests: what each one tries, and the one verdict that it must end in.

Each attack is run against a host, while a healthy neighbour on the same host must keep answering. Every verdict is
compared exactly, class and cause and fact, so the gallery is a self-test of the sandbox on this machine.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ..errors import (
    CallError,
    Cause,
    CompileError,
    FuelExhausted,
    RssExceeded,
    Trap,
    TrapCode,
    WallClockExceeded,
    WasmError,
    WorkerCrashed,
)
from ..imports import HostFunction, WasmImports, in_worker
from ..limits import MIB, Limits
from ..values import I32
from . import hostile

if TYPE_CHECKING:
    from ..interfaces import WasmHost, WasmInstance

__all__ = ["GUESTS", "LIMITS", "Guest", "Verdict", "run_gallery"]

#: Small, so that the whole gallery takes seconds. Fuel is off: where it is to be the limit, the call says so.
LIMITS: Final = Limits(
    fuel=None,
    wall_s=5.0,
    rss_bytes=64 * MIB,
    memory_bytes=512 * MIB,
    host_calls=10_000,
    compile_wall_s=1.0,
)
_DEADLINE_S: Final = 0.2

#: Prepares an attack (compiles, instantiates) and returns the operation that must fail, which alone is timed.
Attack = Callable[["WasmHost", ExitStack], Callable[[], object]]

_HEALTHY: Final = '(module (func (export "add") (param i32 i32) (result i32) local.get 0 local.get 1 i32.add))'
_CALLS_OUT: Final = '(module (import "env" "f" (func $f)) (func (export "run") call $f))'


@dataclass(frozen=True, slots=True)
class Guest:
    """One attack, and its only right verdict: error class, cause, and data fields such as the signal."""

    tried: str  #: for the table: at most 21 characters
    attack: Attack
    error: type[WasmError]
    cause: Cause
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one attack."""

    guest: Guest
    error: WasmError | None  #: None: nothing stopped it
    elapsed_s: float
    neighbour: str | None  #: None: it answered, right; else what went wrong

    @property
    def exact(self) -> bool:
        """Whether class, cause and facts are the expected ones."""
        error, guest = self.error, self.guest
        return (
            type(error) is guest.error
            and error.cause is guest.cause
            and all(getattr(error, name) == value for name, value in guest.facts.items())
        )

    @property
    def passed(self) -> bool:
        """Whether everything was as it must be."""
        return self.exact and self.neighbour is None


def run_gallery(host: WasmHost) -> Iterator[Verdict]:
    """Run every attack in turn, and yield its verdict. `host` has LIMITS."""
    with host.instantiate(host.compile(_HEALTHY)) as neighbour:
        for number, guest in enumerate(GUESTS):
            with ExitStack() as stack:
                error, elapsed = _run(guest, host, stack)
                yield Verdict(guest, error, elapsed, _ask(neighbour, number))


def _run(guest: Guest, host: WasmHost, stack: ExitStack) -> tuple[WasmError | None, float]:
    begun = time.perf_counter()
    try:
        operation = guest.attack(host, stack)
        begun = time.perf_counter()
        operation()
    except WasmError as exc:
        return exc, time.perf_counter() - begun
    return None, time.perf_counter() - begun


def _ask(neighbour: WasmInstance, number: int) -> str | None:
    try:
        answer = neighbour.call("add", [number, 40])
    except WasmError as exc:
        return str(exc)
    return None if answer == [I32(number + 40)] else f"wrong answer {answer!r}"


def _module(text: str, imports: WasmImports | None = None, **options: Any) -> Attack:
    """Call the export "run" of a module."""

    def attack(host: WasmHost, stack: ExitStack) -> Callable[[], object]:
        instance = stack.enter_context(host.instantiate(host.compile(text), imports))
        return lambda: instance.call("run", **options)

    return attack


def _native(function: Callable[..., None], **options: Any) -> Attack:
    """Call native code inside the worker."""

    def attack(host: WasmHost, stack: ExitStack) -> Callable[[], object]:
        imports = WasmImports(functions={("env", "f"): HostFunction(in_worker(function))})
        return _module(_CALLS_OUT, imports, **options)(host, stack)

    return attack


def _killed_from_outside(host: WasmHost, stack: ExitStack) -> Callable[[], object]:
    """Kill the worker in the middle of its call, when it calls out and thus surely runs."""
    pids: list[int] = []
    imports = WasmImports(functions={("env", "f"): HostFunction(lambda _caller: os.kill(pids[0], signal.SIGKILL))})
    instance = stack.enter_context(host.instantiate(host.compile(_CALLS_OUT), imports))
    pids.append(instance.pid)
    return lambda: instance.call("run")


def _compile_bomb(host: WasmHost, _stack: ExitStack) -> Callable[[], object]:
    bomb = hostile.compile_bomb()
    return lambda: host.compile(bomb)


_LOOP: Final = '(module (func (export "run") (loop $on (br $on))))'
_ASK_THE_TIME: Final = """(module (import "env" "pd_now_micros" (func $now (result i64)))
  (func (export "run") (loop $on (drop (call $now)) (br $on))))"""
_EAT_MEMORY: Final = """(module (memory (export "memory") 1) (func (export "run") (local $page i32)
  (loop $on
    (local.set $page (memory.grow (i32.const 1)))
    (if (i32.ge_s (local.get $page) (i32.const 0)) (then
      (memory.fill (i32.mul (local.get $page) (i32.const 65536)) (i32.const 90) (i32.const 65536))))
    (br $on))))"""
_RECURSE: Final = '(module (func $run (export "run") (call $run)))'
_UNREACHABLE: Final = '(module (func (export "run") unreachable))'

GUESTS: Final = (
    Guest(
        "loop for ever",
        _module(_LOOP, wall_s=_DEADLINE_S),
        WallClockExceeded,
        Cause.WALL,
        {"limit": _DEADLINE_S},
    ),
    Guest(
        "loop on 10M of fuel",
        _module(_LOOP, fuel=10_000_000),
        FuelExhausted,
        Cause.FUEL,
    ),
    Guest(
        "call out for ever",
        _module(_ASK_THE_TIME),
        CallError,
        Cause.HOST_FUNCTION,
    ),
    Guest(
        "eat memory for ever",
        _module(_EAT_MEMORY),
        RssExceeded,
        Cause.RSS,
        {"limit": 64 * MIB},
    ),
    Guest(
        "call itself for ever",
        _module(_RECURSE),
        Trap,
        Cause.GUEST_TRAP,
        {"trap_code": TrapCode.STACK_OVERFLOW},
    ),
    Guest(
        "execute `unreachable`",
        _module(_UNREACHABLE),
        Trap,
        Cause.GUEST_TRAP,
        {"trap_code": TrapCode.UNREACHABLE},
    ),
    Guest(
        "take 20 s to compile",
        _compile_bomb,
        CompileError,
        Cause.WALL,
        {"limit": 1.0},
    ),
    Guest(
        "native: read null",
        _native(hostile.crash),
        WorkerCrashed,
        Cause.SIGNAL,
        {"signal": signal.SIGSEGV},
    ),
    Guest(
        "native: _exit(3)",
        _native(hostile.exit_quietly),
        WorkerCrashed,
        Cause.EXIT,
        {"exit_code": 3},
    ),
    Guest(
        "native: open a socket",
        _native(hostile.open_a_socket),
        WorkerCrashed,
        Cause.SIGNAL,
        {"signal": signal.SIGSYS},
    ),
    Guest(
        "native: garbage reply",
        _native(hostile.send_garbage),
        WorkerCrashed,
        Cause.PROTOCOL,
    ),
    Guest(
        "native: half a reply",
        _native(hostile.send_half_a_reply, wall_s=_DEADLINE_S),
        WallClockExceeded,
        Cause.WALL,
        {"limit": _DEADLINE_S},
    ),
    Guest(
        "get killed by another",
        _killed_from_outside,
        WorkerCrashed,
        Cause.SIGNAL,
        {"signal": signal.SIGKILL},
    ),
)
