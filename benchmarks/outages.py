"""The fork server is killed under load: who is told, and how long is the service away?

Its workers die with it, so each call that runs is lost, and no other: those that wait are served by the next one.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Final

from pdsandbox import Cause, Supervisor, WasmError, WorkerCrashed

from . import mix
from .deaths import GROWTH_BYTES, LIMITS, fork_server, make_pool, wait_ready
from .findings import Findings
from .ledger import Kind, Ledger
from .leftovers import adopt_orphans, take
from .load import HANG_S, Load

#: The issue's bound on the time from the kill to the end of the first call that began after it and was answered.
AWAY_S: Final = 1.0
# Answers between two kills, so that each hits a service at full load.
_ANSWERS: Final = 200
_LOOK_S: Final = 0.001


class _Watchman:
    """Hears of each call that came to its right end; waits for what it is asked for."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._answers = 0
        self._since = float("inf")
        self._first: float | None = None

    def heard(self, _kind: Kind, began: float) -> None:
        with self._changed:
            self._answers += 1
            if began > self._since and self._first is None:
                self._first = time.monotonic()
            self._changed.notify_all()

    def wait_answers(self, count: int) -> None:
        """Until so many more were answered. TimeoutError."""
        with self._changed:
            wanted = self._answers + count
            if not self._changed.wait_for(lambda: self._answers >= wanted, HANG_S):
                raise TimeoutError(f"no {count} answers within {HANG_S:g} s")

    def wait_back(self, killed_at: float) -> float:
        """Until a call that begins from now on is answered: seconds since `killed_at`. TimeoutError."""
        with self._changed:
            self._since, self._first = time.monotonic(), None
            if not self._changed.wait_for(lambda: self._first is not None, HANG_S) or self._first is None:
                raise TimeoutError(f"no answer within {HANG_S:g} s")
            return self._first - killed_at


def strike(kills: int, *, threads: int, workers: int, seed: int) -> Findings:
    """Kill the fork server so often, one call after the other being made by each of the `threads`."""
    found = Findings("fork server killed under load")
    ledger, watchman, away = Ledger({"lost": _was_lost}), _Watchman(), []
    victims: list[int] = []
    adopt_orphans()
    with (
        Supervisor(limits=LIMITS, spares=1) as host,
        make_pool(host, ledger, threads=threads, workers=workers) as pool,
    ):
        wait_ready(pool)
        # The first outage is warm-up to what is counted.
        before = None
        for n in range(kills + 1):
            with Load(ledger, mix.harmless(pool), threads=threads, seed=seed + n, on_right=watchman.heard):
                watchman.wait_answers(_ANSWERS)
                lost = ledger.ended("lost")
                for again in range(1 + n % 2):
                    if again:
                        # The next one, too, as soon as it is there: long before it is warm.
                        _wait_until(lambda: host.stats().fork_server not in (None, victims[-1]))
                    killed_at = time.monotonic()
                    victims.append(_kill_fork_server(host))
                # What is answered before that is known may have been made before the kill.
                _wait_until(lambda: host.stats().fork_servers_lost == len(victims))
                away.append(watchman.wait_back(killed_at))
                watchman.wait_answers(_ANSWERS)
            told = ledger.ended("lost") - lost
            if told > workers * (1 + n % 2):
                found.faults.append(f"{told} calls were lost with {workers} workers")
            wait_ready(pool)
            if before is None:
                before = take(host, workers + 1, killed=victims)
        after = take(host, workers + 1, killed=victims)
        servers_lost = host.stats().fork_servers_lost
    found.add("fork servers killed", servers_lost, "count")
    found.add("longest time without service", max(away), "s", most=AWAY_S)
    found.add("median time without service", sorted(away)[len(away) // 2], "s")
    found.add_calls(ledger)
    assert before is not None
    found.add_growth(before, after, GROWTH_BYTES)
    if servers_lost != len(victims):
        found.faults.append(f"{servers_lost} fork servers died of {len(victims)} that were killed")
    return found


def _kill_fork_server(host: Supervisor) -> int:
    """The process id of the victim."""
    pid = fork_server(host)
    pidfd = os.pidfd_open(pid)
    try:
        if host.stats().fork_server != pid:
            raise RuntimeError("the fork server died by itself")
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)
    return pid


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HANG_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no other fork server within {HANG_S:g} s")
        time.sleep(_LOOK_S)


def _was_lost(error: WasmError) -> bool:
    """Whether this is what a call gets whose worker died with the fork server."""
    return type(error) is WorkerCrashed and error.cause is Cause.HOST
