"""The CPU time that a worker is allowed: the backstop behind its wall-clock limit. Pure."""

from __future__ import annotations

import math

__all__ = ["START_TIMEOUT_S", "cpu_s", "cpu_until", "first_cpu_s"]

#: From exec to a warm fork server takes about 85 ms on an idle machine, from there to a worker 3 ms.
START_TIMEOUT_S = 60.0
# So that it is seldom raised.
_CPU_SLACK_S = 60


def cpu_s(age_s: float, wall_s: float | None, cores: int) -> int | None:
    """The RLIMIT_CPU, in seconds, that a worker of this age will not reach in an operation that keeps its wall-clock
    limit: all its threads may have been busy for all its life. Generous, so that it is seldom raised."""
    return None if wall_s is None else math.ceil(cores * (1.5 * age_s + 1.5 * wall_s + _CPU_SLACK_S))


def cpu_until(cpu_s: int | None, born: float, cores: int) -> float:
    """The time before which a worker with this RLIMIT_CPU cannot reach it."""
    return math.inf if cpu_s is None else born + cpu_s / cores


def first_cpu_s(wall_s: float | None, cores: int) -> int | None:
    """The RLIMIT_CPU of a process that is about to be started; its functions may take a while to import."""
    return cpu_s(START_TIMEOUT_S, wall_s, cores)
