"""Puts together what `Supervisor.stats` gives, from what each part has counted anyway."""

from __future__ import annotations

from typing import Any

from ..errors import Cause
from ..stats import HostStats
from .cache import CompileCache
from .journal import Journal
from .processes import Processes

_COUNTED = (
    "compile_failures",
    "compiled",
    "fork_servers",
    "fork_servers_lost",
    "hits_disk",
    "hits_memory",
    "instances_started",
    "quarantined",
    "workers_refused",
    "workers_started",
)


def stats_of(processes: Processes, cache: CompileCache, journal: Journal, *, memory: bool) -> HostStats:
    """See `Supervisor.stats`."""
    processes.check_ours()
    counts = journal.counts
    fields: dict[str, Any] = {**processes.census(memory=memory), **{name: counts[name] for name in _COUNTED}}
    return HostStats(
        **fields,
        workers_ended={cause: counts[cause] for cause in Cause if counts[cause]},
        cached_modules=len(cache),
        cached_bytes=cache.bytes_held,
        events_dropped=journal.dropped,
        hook_failures=journal.hook_failures,
    )
