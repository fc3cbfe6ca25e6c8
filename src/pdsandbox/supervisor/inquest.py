"""What a worker died of that nobody had condemned: the verdict, from how it ended and what was known before.

Decides and looks at the kernel's log; who kills, waits and records is the handle.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from ..errors import WasmError
from ..platform import os_
from ..protocol.control import NOT_LOCKED_DOWN
from . import monitor

__all__ = ["verdict_on"]


def verdict_on(
    end: tuple[int | None, int | None],
    watch: monitor.Watch | None,
    now: float,
    *,
    pid: int | None,
    age_s: float,
    tail: bytes,
    at_ceiling: Callable[[monitor.Watch | None], WasmError | None],
) -> WasmError:
    """`end`: the signal that ended it, or its exit code. `watch`: of the last operation. `tail`: its last words.
    `at_ceiling`: see `Handle.at_ceiling`."""
    sig, exit_code = end
    if monitor.timer_fired(sig, watch, now):
        return monitor.wall_exceeded(watch.wall_s if watch else None)
    if watch is not None and watch.starting and exit_code == NOT_LOCKED_DOWN:
        return monitor.not_locked_down(tail)
    verdict = at_ceiling(watch) if monitor.wants_memory(sig, exit_code) else None
    if verdict is None:
        denied = os_.denied_call(pid, age_s) if sig == signal.SIGSYS and pid else None
        verdict = monitor.ended(sig, exit_code, denied)
    verdict.stderr_tail = tail
    return verdict
