"""From a cached module to the first answer of a fresh worker, against starting a Python that does nothing.

On the clock: `compile` (a cache hit), `instantiate`, the first call. Off it: closing the instance, and waiting until
the fork server and, where there is one, the spare have come to rest. That a spare was used, or none, is checked for
each sample by its process id.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

from pdsandbox import I32, Supervisor

from .guests import ADD, binary
from .measure import Bar, Contender, Group, Row, Series
from .quiet import Family

_BARE = [sys.executable, "-I", "-S", "-c", "pass"]

SERIES = (
    Series("start.cold", "Supervisor(spares=0): cached module to first answer"),
    Series(
        "start.cold_off", 'Supervisor(spares=0, hardening="off"): cached module to first answer', short="hardening off"
    ),
    Series("start.lockdown", "start.cold less start.cold_off of the same round"),
    Series("start.spare", "Supervisor(spares=1), the spare at rest: cached module to first answer"),
    Series("start.python", "posix_spawn of `python -I -S -c pass` to waitpid", short="python -I -S -c pass"),
)
ROWS = (
    Row("start_cold.python", "start to first answer", "start.cold", "start.python", bar=Bar(0.45, "issue 4")),
    Row(
        "start_cold_off.python",
        "start to first answer, hardening off",
        "start.cold_off",
        "start.python",
        bar=Bar(0.35, "issue 2"),
    ),
    Row(
        "start.lockdown",
        "all layers of lock-down, per worker",
        "start.lockdown",
        "start.cold_off",
        bar=Bar(0.0025, "issue 3", of="value"),
    ),
    Row(
        "start_spare.python",
        "start to first answer, spare ready",
        "start.spare",
        "start.python",
        bar=Bar(0.18, "issue 4"),
    ),
)


def bare_python() -> Mapping[str, float]:
    """One start of a bare interpreter, to its end."""
    started = time.perf_counter()
    pid = os.posix_spawn(sys.executable, _BARE, {})
    _, status = os.waitpid(pid, 0)
    taken = time.perf_counter() - started
    if status:
        raise RuntimeError(f"`{' '.join(_BARE)}` ended with status {status}")
    return {"start.python": taken}


class Starter:
    """One supervisor that starts one instance a sample."""

    def __init__(self, key: str, host: Supervisor, spares: int) -> None:
        self._key = key
        self._host = host
        self._spares = spares
        self._wasm = binary(ADD)
        with host.instantiate(host.compile(self._wasm)) as instance:
            self._family = Family(instance.pid)
        self._ready = self._family.wait_quiet(spares)

    def sample(self) -> Mapping[str, float]:
        """One start; everything is at rest before and after."""
        host, wasm = self._host, self._wasm
        started = time.perf_counter()
        instance = host.instantiate(host.compile(wasm))
        answer = instance.call("add", [I32(1), I32(2)])
        taken = time.perf_counter() - started
        pid = instance.pid
        instance.close()
        if answer != [I32(3)]:
            raise RuntimeError(f"1 + 2 gave {answer}")
        if (pid in self._ready) != bool(self._spares):
            raise RuntimeError(f"worker {pid} was{' not' if self._spares else ''} a spare")
        self._ready = self._family.wait_quiet(self._spares)
        return {self._key: taken}


@contextlib.contextmanager
def _open() -> Iterator[Sequence[Contender]]:
    with (
        Supervisor(spares=0) as without,
        Supervisor(spares=0, hardening="off") as off,
        Supervisor(spares=1) as with_spare,
    ):
        cold = Starter("start.cold", without, 0)
        cold_off = Starter("start.cold_off", off, 0)
        spare = Starter("start.spare", with_spare, 1)

        def both() -> Mapping[str, float]:
            taken = {**cold.sample(), **cold_off.sample()}
            return {**taken, "start.lockdown": taken["start.cold"] - taken["start.cold_off"]}

        yield (bare_python, both, spare.sample)


GROUP = Group(
    "starts",
    "worker starts",
    SERIES,
    ROWS,
    _open,
    rounds=200,
    quick_rounds=35,
    caption="From a cached module to the first answer of a fresh, locked-down worker.",
)
