"""The figures that `Supervisor.stats` gives: data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .errors import Cause

__all__ = ["HostStats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostStats:
    """What a supervisor has now, and what it has done since it was made. Read piece by piece while others go on: the
    figures need not be of the very same moment.

    Now:

    workers            worker processes with instances in them, or about to have them
    spares             workers kept ready
    compilers          compilers at work
    instances          instances
    busy               workers in the middle of an operation (a call, a memory operation, loading)
    resident_bytes     memory of all workers, spares and compilers, the pages that they share counted in each; None
                       unless asked for
    cached_modules     compiled modules kept in memory
    cached_bytes       bytes of native code in those
    fork_server        the fork server's process id; None when there is none

    So far:

    workers_started    workers forked, spares included
    workers_refused    processes that this machine refused, compilers included
    workers_ended      workers that ended, by their first cause
    instances_started  instances that came to stand
    compiled           modules compiled
    compile_failures   compilations that failed
    hits_memory        modules that `compile` found in memory, or got from an equal request under way
    hits_disk          modules that it found in `cache_dir`
    fork_servers       fork servers started
    fork_servers_lost  those of them that died
    quarantined        how often a plugin was quarantined
    events_dropped     events that the hook, or a logging handler, was too slow for
    hook_failures      events that the hook raised an exception for
    """

    workers: int
    spares: int
    compilers: int
    instances: int
    busy: int
    resident_bytes: int | None
    cached_modules: int
    cached_bytes: int
    fork_server: int | None
    workers_started: int
    workers_refused: int
    workers_ended: Mapping[Cause, int] = field(hash=False)
    instances_started: int
    compiled: int
    compile_failures: int
    hits_memory: int
    hits_disk: int
    fork_servers: int
    fork_servers_lost: int
    quarantined: int
    events_dropped: int
    hook_failures: int
