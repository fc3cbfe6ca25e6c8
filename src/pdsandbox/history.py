"""The failures of one plugin as people hear of them: its host once a quarantine, its callers in the same words for as
long as that lasts. What follows from a failure is `restarts`' to say; whoever shares one holds a lock, as there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from .errors import Quarantined, WasmError
from .restarts import Refusal, RestartPolicy, Restarts, Standing, quarantined

__all__ = ["History", "Report"]

#: (failures, the last error, seconds until a start is tried or None), of a quarantine that begins.
Report: TypeAlias = Callable[[int, WasmError, float | None], object]


class History(Restarts):
    """See the module's text."""

    def __init__(self, policy: RestartPolicy, random: Callable[[], float], report: Report) -> None:
        super().__init__(policy, random)
        self._report = report
        self._reported: Refusal | None = None
        self._told: tuple[Refusal, Quarantined] | None = None

    def failed(self, now: float, error: WasmError) -> Refusal | None:
        """See `Restarts.failed`."""
        refusal = super().failed(now, error)
        if refusal is not None and refusal.standing is Standing.QUARANTINED and refusal != self._reported:
            self._reported = refusal
            self._report(refusal.failures, refusal.error, None if refusal.until is None else refusal.until - now)
        return refusal

    def quarantined(self, refusal: Refusal, now: float) -> Quarantined:
        """The error that tells of a refusal."""
        from datetime import UTC, datetime  # for those who fail only

        if self._told is None or self._told[0] != refusal:
            self._told = refusal, quarantined(refusal, self.policy, now, datetime.now(UTC))
        first = self._told[1]
        left = None if refusal.until is None else max(0.0, refusal.until - now)
        error = Quarantined(first.message, cause=first.cause, since=first.since, until=first.until, retry_after_s=left)
        error.__cause__ = first.__cause__
        return error
