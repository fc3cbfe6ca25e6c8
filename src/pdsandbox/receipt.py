"""What one call took: data only. See `accounting` for how to get it."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import Cause

__all__ = ["Receipt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What one `call` (also through `func`), `call_many` or `run` took. Figures from the worker are not billing-grade.

    operation       "call", "call_many" or "run"
    func            the export's name: the caller's word, not checked
    fuel            units of fuel used; None where the engine does not meter it, and where the guest was ended in the
                    middle: how far it came is known to nobody, also where an `interruptible` guest survived its
                    deadline, because the engine books a loop's fuel when that is left
    cpu_s           CPU time of the worker's process, all threads, from when it was this call's turn to its end, however
                    it ended; what the worker spends awake before it sleeps again is the next call's. None when the fork
                    server was lost
    wall_s          seconds from when it was this call's turn to its end, host functions included
    queue_s         seconds before that, of waiting for other calls on the same worker
    peak_rss_bytes  the most memory that the worker ever had resident until then, as the kernel counts; of one that was
                    ended, the most that was seen
    cause           why it failed; None: it did not
    sha256          of the module's bytes
    generation      the worker: a number that no other one of this process has, and that grows
    pid             the worker's process id
    """

    operation: str
    func: str
    fuel: int | None
    cpu_s: float | None
    wall_s: float
    queue_s: float
    peak_rss_bytes: int
    cause: Cause | None
    sha256: str
    generation: int
    pid: int
