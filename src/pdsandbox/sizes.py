"""How large a pool may be: frozen configuration, checked at construction. It knows nothing of who keeps to it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from .values import _short

__all__ = ["Sizes", "check_seconds", "usable_cores"]

# More processes than a machine has room for, and more callers than it has threads: larger is a mistake.
_MOST_INSTANCES: Final = 10_000
_MOST_CALLS: Final = 2**63 - 1
_MOST_WAITING: Final = 1_000_000
_DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large a pool is: see `WasmHost.pool`. Raises ValueError for what makes no sense."""

    min: int
    max: int
    queue: int
    reset: str = "never"
    max_calls: int | None = None
    max_idle_s: float | None = None
    tenant_running: int | None = None
    tenant_queue: int | None = None

    def __post_init__(self) -> None:
        self._whole("max", 1, _MOST_INSTANCES)
        self._whole("min", 0, self.max)
        self._whole("queue", 0, _MOST_WAITING)
        if self.reset not in ("never", "each_call"):
            raise ValueError(f'reset must be "never" or "each_call", not {_short(self.reset)}')
        for name, low, high in (
            ("max_calls", 1, _MOST_CALLS),
            ("tenant_running", 1, self.max),
            ("tenant_queue", 0, self.queue),
        ):
            if getattr(self, name) is not None:
                self._whole(name, low, high)
        if self.max_idle_s is not None:
            check_seconds("max_idle_s", self.max_idle_s, 0.001)

    def _whole(self, name: str, low: int, high: int) -> None:
        value: object = getattr(self, name)
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"{name} must be an integer from {low:,} to {high:,}, not {_short(value)}")


def check_seconds(name: str, value: object, low: float = 0.0) -> float:
    """`value`, if it is a number of seconds from `low` to a day; else ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= _DAY_S:
        raise ValueError(f"{name} must be a number of seconds from {low:g} to {_DAY_S:,.0f}, not {_short(value)}")
    return value


def usable_cores(least: object) -> int:
    """How many cores this process may use, and no fewer than `least`, if that is a number."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(cores, least) if type(least) is int else cores
