"""Thousands of workers die under load: is every call answered once, and is anything left behind?

Two pools of one host, the second with a function in its workers, which therefore cannot be spares. Some calls end their
worker by what they do, by their time or by their memory, and a thread kills any worker it can see. The counts before
and after are of a full, quiet host; what the first deaths leave (arenas of allocators, caches) is warm-up.
"""

from __future__ import annotations

import time
from typing import Final

from pdsandbox import Cause, Limits, Pool, RestartPolicy, Supervisor, WorkerCrashed

from . import mix
from .findings import Findings
from .ledger import Ledger
from .leftovers import Count, take
from .load import HANG_S, Killer, Load

MIB: Final = 1 << 20
#: The issue's bound on what the service's memory may grow by, over ten thousand deaths.
GROWTH_BYTES: Final = 5 * MIB
# Small, so that exceeding it takes little of the machine; a worker alone takes 25 MiB.
LIMITS: Final = Limits(wall_s=HANG_S / 4, rss_bytes=64 * MIB, memory_bytes=128 * MIB)
# Restarts are not what is looked at: a thousand in a moment may be, and none has to wait.
_RESTARTS: Final = RestartPolicy(restarts=1000, window_s=0.1, backoff_s=0.0)
# Instances with a function in the worker, which start ten times as slowly: they have few of the calls.
_NATIVE: Final = 2
_LOOK_S: Final = 0.02
# After so many the load pauses, and what there is is counted: whether memory goes on growing.
_ROUND: Final = 1000
# Ends that were wanted.
_ORDERLY: Final = frozenset({Cause.CLOSED, Cause.CANCELLED})


def soak(
    deaths: int, *, warm_up: int, threads: int, workers: int, seconds: float, kill_every: int, seed: int
) -> Findings:
    """Until `deaths` workers died after the first `warm_up`, or for `seconds`."""
    found = Findings("workers that die under load")
    ledger = Ledger({"killed": mix.was_killed})
    deadline = time.monotonic() + seconds
    with Supervisor(limits=LIMITS, spares=1) as host:
        plain = make_pool(host, ledger, threads=threads, workers=workers)
        native = make_pool(host, ledger, threads=threads, workers=_NATIVE, native=True)
        with plain, native:
            kinds = [*mix.harmless(plain), *mix.deadly(plain), *mix.crashing(native)]
            kills, loaded_s = 0, 0.0

            def leg(target: int) -> Count:
                """Load until so many have died; then what there is when all is quiet again."""
                nonlocal kills, loaded_s, seed
                wait_ready(plain)
                wait_ready(native)
                seed += 1
                began = time.monotonic()
                killer = Killer(fork_server(host), ledger, every=kill_every, seed=seed)
                with killer, Load(ledger, kinds, threads=threads, seed=seed):
                    while died(host) < target and time.monotonic() < deadline:
                        time.sleep(_LOOK_S)
                kills += killer.kills
                loaded_s += time.monotonic() - began
                wait_ready(plain)
                wait_ready(native)
                return take(host, workers + _NATIVE + 1)

            counts = [leg(warm_up)]
            warm = died(host)
            loaded_s = 0.0
            while (total := died(host) - warm) < deaths and time.monotonic() < deadline:
                counts.append(leg(warm + min(total + _ROUND, deaths)))
            ends = host.stats().workers_ended
    found.add("workers that died", total, "count")
    if loaded_s:
        found.add("deaths a second", total / loaded_s, "per_s")
    for cause, count in ends.items():
        if cause not in _ORDERLY:
            found.add(f"… by {cause.name}, warm-up included", count, "count")
    found.add("killed from outside", kills, "count")
    found.add_calls(ledger)
    before, halfway, after = counts[0], counts[len(counts) // 2], counts[-1]
    found.add_growth(before, after, GROWTH_BYTES)
    found.add("… service, resident, in the second half", after.service[0] - halfway.service[0], "bytes")
    if total < deaths:
        found.faults.append(f"only {total:,} of {deaths:,} deaths within {seconds:g} s")
    # Each death is told to one call and to no other; one that nobody's call ran in, to none.
    told = ledger.ended("killed")
    if told > kills:
        found.faults.append(f"{told:,} calls were told that their worker was killed, of {kills:,} that were")
    for cause, kind in ((Cause.WALL, "wall"), (Cause.RSS, "rss"), (Cause.EXIT, "exit")):
        told, ended = ledger.ended("right", kind), ends.get(cause, 0)
        if told != ended:
            found.faults.append(f"{told:,} calls were told of {ended:,} workers that ended by {cause.name}")
    return found


def make_pool(host: Supervisor, ledger: Ledger, *, threads: int, workers: int, native: bool = False) -> Pool:
    """A pool of the mixture's guest, always full, in which all of the threads may wait."""
    module = host.compile(mix.source(native=native))
    imports = mix.imports(ledger, native=native)
    return host.pool(module, imports, min=workers, max=workers, queue=threads, timeout=HANG_S / 2, restart=_RESTARTS)


def fork_server(host: Supervisor) -> int:
    """Its process id."""
    pid = host.stats().fork_server
    if pid is None:
        raise RuntimeError("there is no fork server")
    return pid


def wait_ready(pool: Pool) -> None:
    """Until all its instances stand. One that was killed while it started is replaced, and no failure of that."""
    while True:
        try:
            if pool.wait_ready(HANG_S):
                return
        except WorkerCrashed:
            time.sleep(_LOOK_S)
        else:
            raise RuntimeError(f"the instances of a pool did not stand within {HANG_S:g} s")


def died(host: Supervisor) -> int:
    """How many workers have ended that were not to end."""
    return sum(count for cause, count in host.stats().workers_ended.items() if cause not in _ORDERLY)
