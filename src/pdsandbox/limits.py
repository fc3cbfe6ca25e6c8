"""What a guest may use, and how the engine meters it: frozen configuration, checked at construction.

Every field says its unit, default, and what happens at the limit. `None` switches a limit off, where that is
safe to offer. This module knows nothing of who enforces what.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, fields
from typing import Any, SupportsIndex, TypeVar

__all__ = ["EngineConfig", "Limits"]

_T = TypeVar("_T")

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
PAGE = 64 * KIB

# A worker with the interpreter, wasmtime and an empty instance stands near 25 MiB resident; below this a
# guest would be killed for what is not its own.
MIN_RSS = 32 * MIB
# One day: a longer wait is a mistake in units, and the kernel timer's arithmetic stays far from overflow.
MAX_SECONDS = 86_400.0
MAX_FUEL = 2**63 - 1

_BOUNDS: dict[str, tuple[float, float, bool]] = {
    # field: (low, high, may be None)
    "fuel": (1, MAX_FUEL, True),
    "wall_s": (0.001, MAX_SECONDS, True),
    "rss_bytes": (MIN_RSS, 1 << 44, True),
    "memory_bytes": (PAGE, 1 << 44, True),
    "memories": (1, 100, False),
    "table_elements": (1, 100_000_000, True),
    "stack_bytes": (16 * KIB, 4 * MIB, False),
    "message_bytes": (4 * KIB, GIB, False),
    "host_calls": (1, MAX_FUEL, True),
    "host_call_bytes": (1, MAX_FUEL, True),
    "module_bytes": (8, GIB, False),
    "compile_wall_s": (0.001, MAX_SECONDS, True),
    "compile_rss_bytes": (64 * MIB, 1 << 44, True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one supervisor's guests. Raises ValueError, naming the bounds, for a value outside them.

    fuel: units of wasmtime fuel (about one per instruction) for instantiation, and for each call; then
        `FuelExhausted`. Bounds 1 to 2**63 - 1, or None: no budget.
    wall_s: seconds for instantiation, for each call (encoding, transfer, guest and host functions) and each
        memory operation; then `WallClockExceeded`, the worker killed. 0.001 to 86,400, or None.
    rss_bytes: bytes resident (plus swap) of one worker, its interpreter's ~25 MiB included; beyond it
        `RssExceeded`, the worker killed. 32 MiB to 16 TiB, or None.
    memory_bytes: bytes of each linear memory; `memory.grow` beyond it answers -1, a larger minimum is an
        `InstantiationError`. 64 KiB to 16 TiB, or None.
    memories: linear memories of one instance; more is an `InstantiationError`. 1 to 100.
    table_elements: elements of each table (8 bytes each); `table.grow` beyond it answers -1, a larger minimum
        is an `InstantiationError`. 1 to 100 million, or None.
    stack_bytes: bytes of guest stack; beyond it `Trap`, STACK_OVERFLOW. 16 KiB to 4 MiB.
    message_bytes: bytes of one call's arguments, or of what one host call carries; more is a `CallError`.
        4 KiB to 1 GiB.
    host_calls: calls to host functions within one call; more is a `CallError`, HOST_FUNCTION. Or None.
    host_call_bytes: bytes handed to host functions within one call; more is a `CallError`, HOST_FUNCTION. Or None.
    module_bytes: bytes of a module's source; more is a `CompileError`. 8 to 1 GiB.
    compile_wall_s: seconds for one compilation; then `CompileError`, cause WALL. 0.001 to 86,400, or None.
    compile_rss_bytes: bytes resident of one compiler; then `CompileError`, cause RSS. 64 MiB to 16 TiB, or None.
    """

    fuel: int | None = 1_000_000_000
    wall_s: float | None = 5.0
    rss_bytes: int | None = 256 * MIB
    memory_bytes: int | None = 128 * MIB
    memories: int = 8
    table_elements: int | None = 1_000_000
    stack_bytes: int = 512 * KIB
    message_bytes: int = 16 * MIB
    host_calls: int | None = 1_000_000
    host_call_bytes: int | None = 64 * MIB
    module_bytes: int = 32 * MIB
    compile_wall_s: float | None = 30.0
    compile_rss_bytes: int | None = GIB

    def __post_init__(self) -> None:
        for field in fields(self):
            value = check_limit(field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, value)

    def explicit(self) -> dict[str, Any]:
        """The fields that differ from their default: what somebody asked for."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}


def check_limit(name: str, value: Any) -> Any:
    """`value` normalised for the limit `name`; ValueError saying the bounds when it lies outside them."""
    low, high, optional = _BOUNDS[name]
    if value is None and optional:
        return None
    seconds = name.endswith("_s")
    number: float | None = None
    if isinstance(value, bool):
        pass
    elif seconds:
        if isinstance(value, int | float):
            number = float(value) if abs(value) <= MAX_FUEL else math.inf
    elif isinstance(value, SupportsIndex):
        number = operator.index(value)
    if number is None or not low <= number <= high:
        shown = repr(value) if isinstance(value, float | str | bool | None) else _digits(value)
        unit = "seconds" if seconds else "bytes" if name.endswith("_bytes") else ""
        rest = ", or None for no limit" if optional else ""
        kind = "a number" if seconds else "an integer"
        raise ValueError(f"{name} must be {kind} from {low:,} to {high:,} {unit}".rstrip() + f"{rest}; got {shown}")
    return number


def config_of(name: str, value: object, cls: type[_T]) -> _T:
    """The configuration `value`, by default that of `cls`; TypeError when it is something else."""
    if value is None:
        return cls()
    if not isinstance(value, cls):
        raise TypeError(f"{name} takes {cls.__name__}, not {type(value).__name__}")
    return value


def _digits(value: object) -> str:
    if isinstance(value, int):
        return str(value) if value.bit_length() <= 256 else f"an integer of {value.bit_length()} bits"
    return type(value).__name__


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """How compiled code is metered; part of the compile cache's key.

    fuel: count fuel (the guest runs 1.02 to 1.25 times as long). False: `Limits.fuel` does not apply and
        `fuel_consumed()` is None.
    interruptible: check epochs, so that a deadline traps the guest and the instance survives it; a guest that
        does not come back within the grace period is killed all the same.
    """

    fuel: bool = True
    interruptible: bool = False

    def __post_init__(self) -> None:
        for name in ("fuel", "interruptible"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"EngineConfig.{name} must be True or False, not {getattr(self, name)!r}")
