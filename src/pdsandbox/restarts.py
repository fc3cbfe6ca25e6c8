"""When a plugin that died may be started again: told times and failures, it answers; it starts and ends nothing.

One `Restarts` a plugin, whether one instance serves it or a pool. No clock, no randomness and no lock of its own: times
are monotonic seconds that the caller passes, and whoever shares one between threads holds a lock around each call.
"""

from __future__ import annotations

import copy
import enum
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from .errors import Cause, Quarantined, WasmError

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["Refusal", "RestartPolicy", "Restarts", "Standing"]

# A day, as for `Limits.wall_s`, and a month: longer is a mistake in units.
_DAY_S: Final = 86_400.0
_MONTH_S: Final = 31 * _DAY_S
_ACTIONS: Final = ("reload", "closed", "open")
#: A failure with such a cause is not the plugin's: it was ended on purpose, or this machine failed us.
_NOT_ITS_OWN: Final = frozenset((Cause.CANCELLED, Cause.CLOSED, Cause.HOST, Cause.USAGE))


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """What becomes of a plugin whose instance is gone, or cannot be started. Raises ValueError for what makes no sense.

    A failure is a death of the plugin's own (its deadline, its memory, a crash) or a start that failed. A trap or used
    up fuel is none: the instance lives on. Nor is what was done to it: kill, close, a machine out of processes.

    on_failure: "reload": the next call starts a new instance, with fresh memory, as often as the fields below allow;
        while they do not, calls raise `Quarantined`. "closed": the first failure quarantines. "open": so it does, and
        calls then return their `default` instead of raising, the one that failed included: for a plugin that may be
        missing. The words are those of Envoy's wasm plugins.
    restarts: failures within `window_s` that are made good, as the intensity of an OTP supervisor; one more
        quarantines. Default 5, 0 to 1,000; used by "reload" only.
    window_s: seconds over which failures count. Default 60, 0.001 to 86,400.
    backoff_s: seconds to wait after the second failure in the window, doubled with each one after it; after the first
        there is no wait. Default 0.1, 0 to 86,400.
    backoff_max_s: the longest such wait. Default 10, `backoff_s` to 86,400.
    jitter: which part of a wait is random, so that plugins that failed together do not come back together. Default
        0.5: half to all of it. 0 to 1.
    quarantine_s: seconds of quarantine; then one start is tried, and a failure within `window_s` quarantines again.
        Default 300, 0.001 to a month, or None: until somebody calls `reset`.
    """

    on_failure: str = "reload"
    restarts: int = 5
    window_s: float = 60.0
    backoff_s: float = 0.1
    backoff_max_s: float = 10.0
    jitter: float = 0.5
    quarantine_s: float | None = 300.0

    def __post_init__(self) -> None:
        if self.on_failure not in _ACTIONS:
            raise ValueError(f"on_failure must be one of {', '.join(map(repr, _ACTIONS))}, not {self.on_failure!r}")
        if type(self.restarts) is not int or not 0 <= self.restarts <= 1000:
            raise ValueError(f"restarts must be an integer from 0 to 1,000, not {self.restarts!r}")
        self._seconds("window_s", 0.001, _DAY_S)
        self._seconds("backoff_s", 0.0, _DAY_S)
        self._seconds("backoff_max_s", self.backoff_s, _DAY_S)
        self._seconds("jitter", 0.0, 1.0)
        if self.quarantine_s is not None:
            self._seconds("quarantine_s", 0.001, _MONTH_S)

    def _seconds(self, name: str, low: float, high: float) -> None:
        value: object = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError(f"{name} must be a number from {low:,g} to {high:,g}, not {value!r}")

    def delay_s(self, failures: int, random: float) -> float:
        """Seconds to wait after so many failures in the window; `random` is from 0 to 1."""
        if failures < 2:
            return 0.0
        # `restarts` allows no more doublings than this, and a float takes them.
        full = min(self.backoff_max_s, self.backoff_s * 2.0 ** min(failures - 2, 1000))
        return full * (1.0 - self.jitter * random)


class Standing(enum.Enum):
    """How a plugin stands."""

    ADMITTED = "admitted"  #: it runs, or may be started
    BACKING_OFF = "backing_off"  #: it failed more than once, and waits a moment before it is started again
    QUARANTINED = "quarantined"  #: it failed too often
    ON_TRIAL = "on_trial"  #: quarantine is over: one start is being tried, and no other before that has served


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a plugin is not to be started. Times as passed to `Restarts`.

    since     when it was held back
    until     when it may be started; None: when it is reset
    failures  how many there were, within the policy's window
    error     the last one, without its traceback
    """

    standing: Standing
    since: float
    until: float | None
    failures: int
    error: WasmError


class Restarts:
    """The history of one plugin, and what follows from it. See `RestartPolicy`.

    Failures are bounded: at most `restarts` + 1 within any window, and then one every `quarantine_s`; where several run
    at a time (a pool), those that were under way when it was held back come on top.
    """

    def __init__(self, policy: RestartPolicy, random: Callable[[], float]) -> None:
        """`random`: numbers from 0 to 1."""
        self.policy = policy
        self._random = random
        self._allowed = policy.restarts if policy.on_failure == "reload" else 0
        self._now = -math.inf
        self.reset()

    def reset(self) -> None:
        """Forget everything: somebody has mended the plugin, and knows."""
        self._failures: deque[float] = deque(maxlen=self._allowed + 1)
        self._held: Refusal | None = None
        self._strict_until = -math.inf  # a failure until then quarantines at once
        self._trial: Refusal | None = None  # the quarantine after which nothing has served yet
        self._trial_until = -math.inf  # until then a start is under way whose outcome matters

    @property
    def trying(self) -> bool:
        """Whether the first start after a quarantine has yet to serve: say `succeeded` when it has."""
        return self._trial is not None

    def refusal(self, now: float) -> Refusal | None:
        """Why a start is refused now; None: it is not."""
        now = self._advance(now)
        held, trial = self._held, self._trial
        if held is not None and (held.until is None or now < held.until):
            return held
        if trial is not None and now < self._trial_until:
            return replace(trial, standing=Standing.ON_TRIAL, until=self._trial_until)
        return None

    def start(self, now: float) -> Refusal | None:
        """Ask to start an instance now, and if that is not refused, book it. Whoever starts says how it went: `failed`,
        `abandoned`, or once it has served a call, `succeeded`."""
        refusal = self.refusal(now)
        if refusal is not None:
            return refusal
        held, self._held = self._held, None
        if held is not None and held.standing is Standing.QUARANTINED:
            self._failures.clear()
            self._trial = held
        if self._trial is not None:
            # Nobody may ever tell what became of it: then this is how long it stands in the others' way.
            self._trial_until = self._strict_until = self._now + self.policy.window_s
        return None

    def succeeded(self, now: float) -> None:
        """An instance has served a call: others may be started, too."""
        self._advance(now)
        self._trial = None

    def abandoned(self, now: float) -> None:
        """A start came to an end that says nothing of the plugin: another one may be tried."""
        self._advance(now)
        self._trial_until = -math.inf

    def failed(self, now: float, error: WasmError) -> Refusal | None:
        """An instance is gone, or could not be started: what follows. If the plugin is in quarantine already, nothing:
        the first reason stays."""
        now = self._advance(now)
        refusal = self.refusal(now)
        if refusal is not None and refusal.standing is Standing.QUARANTINED:
            return refusal
        if not is_its_own(error):
            self.abandoned(now)
            return self.refusal(now)
        self._trial = None
        while self._failures and self._failures[0] < now - self.policy.window_s:
            self._failures.popleft()
        self._failures.append(now)
        count, kept = len(self._failures), copy.copy(error)
        kept.results = None  # of a batch: what it had done is its caller's
        if count > self._allowed or now < self._strict_until:
            until = None if self.policy.quarantine_s is None else now + self.policy.quarantine_s
            self._held = Refusal(Standing.QUARANTINED, now, until, count, kept)
        else:
            until = now + self.policy.delay_s(count, self._random())
            self._held = Refusal(Standing.BACKING_OFF, now, until, count, kept)
        return self.refusal(now)

    def standing(self, now: float) -> Standing:
        """How the plugin stands."""
        refusal = self.refusal(now)
        return Standing.ADMITTED if refusal is None else refusal.standing

    def _advance(self, now: float) -> float:
        """Threads may come with times a little out of order."""
        self._now = max(self._now, now)
        return self._now


def is_its_own(error: WasmError) -> bool:
    """Whether the end of an instance that raised this counts against the plugin."""
    return error.cause not in _NOT_ITS_OWN


def quarantined(refusal: Refusal, policy: RestartPolicy, now: float, clock_time: datetime) -> Quarantined:
    """The error that tells of a refusal. `now` and `clock_time` are the same moment; the latter with its time zone."""
    from datetime import timedelta  # for those who fail only

    last, count = refusal.error, refusal.failures
    left = None if refusal.until is None else max(0.0, refusal.until - now)
    since = clock_time - timedelta(seconds=now - refusal.since)
    until = None if left is None else clock_time + timedelta(seconds=left)
    began, end = (None if moment is None else moment.isoformat(" ", "milliseconds") for moment in (since, until))
    ending = "until it is reset" if end is None else f"until {end}"
    times = "once" if count == 1 else f"{count:,} times within {policy.window_s:g} s"
    what = {
        Standing.BACKING_OFF: f"the plugin waits {ending} to be started again: it failed {times}",
        Standing.ON_TRIAL: f"the plugin is being tried after a quarantine that began {began}: it had failed {times}",
    }.get(refusal.standing, f"the plugin is quarantined since {began} {ending}: it failed {times}")
    text = f"{what}, the last time by: {last.message}"
    error = Quarantined(text, cause=last.cause, since=since, until=until, retry_after_s=left)
    error.__cause__ = last
    return error
