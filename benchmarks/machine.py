"""What the figures were measured on, and whether it was quiet enough for them to mean much.

Nothing that tells whose machine it is: no host name, no user, no paths.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

import pdsandbox

from .stats import Summary

#: What pdsandbox is measured against, by the names of its packages; the extra `bench` installs them all.
PEERS = ("wasmtime", "extism", "extism-sys", "loky", "pebble")

# Above this the middle half of a baseline's samples tells more of the machine than of the code.
MOST_SPREAD = 0.30
# Both ends of a call need a core at the same time; half of one may be lost to whatever a desktop does.
LEAST_FREE_CORES = 1.5
# Time that the hypervisor gave to somebody else while we were ready to run.
MOST_STEAL = 0.01


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """The hardware and the system."""
    return {
        "cpu": _cpu_model(),
        "cores": cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.system(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "governor": _first_line(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "virtual": "hypervisor" in (_cpuinfo("flags") or "").split(),
    }


def versions(packages: Iterable[str] = ()) -> dict[str, str | None]:
    """The software under test, its rivals, and further `packages` that were measured; None for what is missing."""
    names = dict.fromkeys((*PEERS, *packages))
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "pdsandbox": pdsandbox.__version__,
        "commit": _commit(),
    } | {name: _version(name) for name in names}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True, slots=True)
class Load:
    """A moment's load average (1, 5 and 15 minutes), and the CPU time booked so far, stolen and in all."""

    average: tuple[float, float, float]
    stolen_s: float
    total_s: float

    @classmethod
    def now(cls) -> Load:
        """As of now."""
        times = psutil.cpu_times()
        return cls(psutil.getloadavg(), getattr(times, "steal", 0.0), sum(times))


def steal(before: Load, after: Load) -> float:
    """The share of CPU time that the hypervisor took away in between."""
    return (after.stolen_s - before.stolen_s) / max(after.total_s - before.total_s, 1e-9)


def noise(before: Load, after: Load, baselines: Mapping[str, Summary]) -> list[str]:
    """Why these figures deserve distrust: one sentence each, none on a quiet machine.

    Of the load average only the one from before counts: afterwards it is our own.
    """
    return list(_reasons(before, after, baselines))


def _reasons(before: Load, after: Load, baselines: Mapping[str, Summary]) -> Iterable[str]:
    load, count = before.average[0], cores()
    if count - load < LEAST_FREE_CORES:
        yield (
            f"the load average was {load:.2f} on {count} core{'' if count == 1 else 's'} before it began: "
            "other programs were running, or this one a minute ago"
        )
    stolen = steal(before, after)
    if stolen > MOST_STEAL:
        yield f"the hypervisor took {stolen:.1%} of the CPU time away"
    for key, figures in baselines.items():
        if figures.spread > MOST_SPREAD:
            yield f"the middle half of the baseline {key} spreads over {figures.spread:.0%} of its median"


def _cpu_model() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(field: str) -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return None


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _commit() -> str | None:
    """The checkout's commit, with "-dirty" when it was changed since; None outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
