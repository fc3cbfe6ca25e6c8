"""A pool's module is replaced under load: does any call fail, which version answers, and who waits how long?

The same load runs as long without a swap first. A call that begins after a swap returned has to be answered by that
version or a later one; none by one that was not there yet.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from pdsandbox import I32, Pool, Supervisor

from . import mix
from .deaths import LIMITS, make_pool, wait_ready
from .findings import Findings
from .ledger import Kind, Ledger
from .leftovers import take
from .load import Load


class _Versions:
    """Which may answer: at least `done` (its swap has returned), at most `begun`."""

    def __init__(self) -> None:
        self.done = self.begun = 0

    def call(self, pool: Pool, n: int) -> tuple[int, Any]:
        """The oldest version that may answer, and the answer."""
        oldest = self.done
        return oldest, pool.call("work", [n])

    def right(self, made: tuple[int, Any], n: int) -> bool:
        """Whether the answer is right, and one of a version that may answer."""
        oldest, answer = made
        if len(answer) != 2 or answer[0] != I32(n + 1):
            return False
        return bool(oldest <= answer[1].value <= self.begun)


def turn(swaps: int, *, pause_s: float, threads: int, workers: int, seed: int) -> Findings:
    """So many swaps, `pause_s` apart."""
    found = Findings("module swapped under load")
    versions = _Versions()
    calm, busy = Ledger({}, timed=True), Ledger({}, timed=True)
    took = []
    with Supervisor(limits=LIMITS, spares=1) as host:
        modules = [host.compile(mix.source(version=n)) for n in range(swaps + 1)]
        with make_pool(host, calm, threads=threads, workers=workers) as pool:
            wait_ready(pool)
            kind = Kind("versioned", 1.0, lambda n: versions.call(pool, n), versions.right)
            with Load(calm, [kind], threads=threads, seed=seed):
                time.sleep(swaps * pause_s)
            before = take(host, workers + 1)
            # The same module with the other ledger's imports.
            pool.swap(modules[0], mix.imports(busy))
            with Load(busy, [kind], threads=threads, seed=seed):
                for n in range(1, swaps + 1):
                    versions.begun = n
                    began = time.monotonic()
                    pool.swap(modules[n])
                    took.append(time.monotonic() - began)
                    versions.done = n
                    time.sleep(max(0.0, pause_s - took[-1]))
            wait_ready(pool)
            after = take(host, workers + 1)
    found.add("swaps", len(took), "count")
    found.add("a swap, median", statistics.median(took), "s")
    found.add("a swap, longest", max(took), "s")
    found.add_calls(busy)
    for name, ledger in (("without a swap", calm), ("with swaps", busy)):
        durations = sorted(ledger.took)
        found.add(f"call {name}, median", statistics.median(durations), "s")
        found.add(f"call {name}, p99", durations[len(durations) * 99 // 100], "s")
        found.add(f"call {name}, slowest", durations[-1], "s")
    found.faults += calm.faults + list(after.against(before))
    return found
