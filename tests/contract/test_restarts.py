"""The restart policy as a state machine: over any times and outcomes, against rules that are written down plainly."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import math
import pickle
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pdsandbox import (
    CallError,
    Cause,
    FuelExhausted,
    InstantiationError,
    Quarantined,
    RestartPolicy,
    RssExceeded,
    Standing,
    WallClockExceeded,
    WorkerCrashed,
)
from pdsandbox.history import History
from pdsandbox.restarts import Restarts, is_its_own, quarantined

DEATH = WorkerCrashed("worker crashed: SIGSEGV", signal=11)
OWN = [
    DEATH,
    WallClockExceeded("wall-clock limit of 1 s exceeded"),
    RssExceeded("RSS limit"),
    FuelExhausted(),
    InstantiationError("a trap while instantiating", cause=Cause.GUEST_TRAP),
]
OTHERS = [WorkerCrashed("x", cause=cause) for cause in (Cause.CANCELLED, Cause.HOST, Cause.CLOSED, Cause.USAGE)]
seconds = st.floats(0, 200, allow_nan=False)
policies = st.builds(
    RestartPolicy,
    on_failure=st.sampled_from(["reload", "closed", "open"]),
    restarts=st.integers(0, 8),
    window_s=st.floats(0.001, 100),
    backoff_s=st.floats(0, 5),
    backoff_max_s=st.floats(5, 50),
    jitter=st.floats(0, 1),
    quarantine_s=st.none() | st.floats(0.001, 100),
)


def history(policy=None, random=0.0, **fields):
    return Restarts(policy or RestartPolicy(**fields), lambda: random)


# --- the configuration ---

REFUSED = {
    "on_failure": ["", "reopen", None, 1, True],
    "restarts": [-1, 1001, 1.0, True, None, "5"],
    "window_s": [0, -1, 86_401, math.nan, math.inf, None, True, "60"],
    "backoff_s": [-0.1, 86_401, math.nan, math.inf, None, True, "1"],
    "backoff_max_s": [-1, 0.05, 86_401, math.nan, None, "1"],
    "jitter": [-0.01, 1.01, math.nan, None, True],
    "quarantine_s": [0, -1, 32 * 86_400, math.nan, math.inf, "300", False],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_what_makes_no_sense_is_refused(name, value):
    """With a ValueError that names the field."""
    with pytest.raises(ValueError, match=f"^{name} must be"):
        RestartPolicy(**{name: value})


def test_a_policy_is_frozen_and_documented():
    """Each field's default stands in the docstring."""
    policy = RestartPolicy()
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.restarts = 1
    for field in dataclasses.fields(policy):
        part = inspect.getdoc(RestartPolicy).split(f"\n{field.name}: ")[1].split("\n\n")[0]
        assert str(field.default).removesuffix(".0") in part
    assert pickle.loads(pickle.dumps(policy)) == policy


@given(policies, st.integers(0, 10_000), st.floats(0, 1))
def test_a_delay_is_bounded_and_doubles(policy, failures, random):
    """None after the first failure; then between what jitter leaves of the full wait and all of it."""
    delay, full = policy.delay_s(failures, random), policy.delay_s(failures, 0.0)
    if failures < 2:
        assert delay == 0
    else:
        assert full == min(policy.backoff_max_s, policy.backoff_s * 2 ** min(failures - 2, 1000))
        assert full * (1 - policy.jitter) - 1e-9 <= delay <= full


# --- the rules, one by one ---


def test_reload_restarts_so_often_and_then_quarantines():
    """Five deaths are made good, the first at once, the others after 0.1, 0.2, 0.4, 0.8 s; the sixth is too many."""
    restarts, now, waits = history(), 100.0, []
    for _ in range(5):
        assert restarts.start(now) is None
        refusal = restarts.failed(now, DEATH)
        waits.append(0.0 if refusal is None else refusal.until - now)
        if refusal is not None:
            assert refusal.standing is restarts.standing(now) is Standing.BACKING_OFF
            assert restarts.start(math.nextafter(refusal.until, 0)) == refusal
            now = refusal.until
    assert waits == pytest.approx([0.0, 0.1, 0.2, 0.4, 0.8])
    assert restarts.start(now) is None
    refusal = restarts.failed(now, DEATH)
    assert (refusal.standing, refusal.since, refusal.until, refusal.failures) == (
        Standing.QUARANTINED,
        now,
        now + 300,
        6,
    )
    assert refusal.error == DEATH


@pytest.mark.parametrize("on_failure", ["closed", "open"])
def test_closed_and_open_quarantine_at_the_first_failure(on_failure):
    """Whatever `restarts` says; and without an end, until somebody resets."""
    restarts = history(on_failure=on_failure, restarts=100, quarantine_s=None)
    assert restarts.start(0) is None
    refusal = restarts.failed(1, DEATH)
    assert (refusal.standing, refusal.until) == (Standing.QUARANTINED, None)
    assert restarts.start(1e9) == refusal
    restarts.reset()
    assert restarts.start(1e9) is None


def test_after_quarantine_one_start_is_tried():
    """No second one before the first has served; then as many as one likes."""
    restarts = history(restarts=0)
    restarts.start(0)
    restarts.failed(0, DEATH)
    assert restarts.start(300) is None
    assert restarts.trying
    refusal = restarts.start(301)
    assert (refusal.standing, refusal.error) == (Standing.ON_TRIAL, DEATH)
    restarts.succeeded(302)
    assert not restarts.trying
    assert restarts.start(302) is restarts.start(302) is None


def test_a_failed_trial_quarantines_again_however_many_restarts_are_allowed():
    """One start for each quarantine, also if it had served a little before it failed."""
    restarts, now = history(restarts=2), 0.0
    for _ in range(3):
        restarts.start(now)
        refusal = restarts.failed(now, DEATH)
        now = now if refusal is None else refusal.until
    assert refusal.standing is Standing.QUARANTINED
    for served in (False, True, True):
        assert restarts.start(now) is None
        if served:
            restarts.succeeded(now + 1)
        refusal = restarts.failed(now + 59, DEATH)
        assert refusal.standing is Standing.QUARANTINED
        now = refusal.until


def test_a_trial_that_lasts_is_a_new_beginning():
    """Who has run for a whole window after a quarantine may fail as often as anybody."""
    restarts = history(restarts=1)
    for _ in range(2):
        restarts.failed(0, DEATH)
    assert restarts.start(300) is None
    restarts.succeeded(301)
    assert restarts.failed(360.1, DEATH) is None


def test_a_trial_that_nobody_tells_of_does_not_stand_in_the_way_for_ever():
    """After a window another one is tried; at once, if it is told that this one said nothing."""
    restarts = history(restarts=0)
    restarts.failed(0, DEATH)
    assert restarts.start(300) is None
    assert restarts.start(359).until == 360
    assert restarts.start(360) is None
    restarts.abandoned(361)
    assert restarts.start(361) is None
    assert restarts.start(361) is not None
    assert restarts.failed(362, OTHERS[0]) is None
    assert restarts.start(362) is None


@pytest.mark.parametrize("error", OTHERS, ids=lambda error: error.cause.name)
def test_what_is_not_its_own_doing_does_not_count(error):
    """Killed, closed, refused by this machine: as often as you like."""
    assert not is_its_own(error)
    restarts = history(on_failure="closed")
    for now in range(100):
        assert restarts.start(now) is None
        assert restarts.failed(now, error) is None


@pytest.mark.parametrize("error", OWN, ids=lambda error: type(error).__name__)
def test_what_is_its_own_doing_counts(error):
    """A death, and a start that failed."""
    assert is_its_own(error)
    assert history(on_failure="closed").failed(0, error).error == error


def test_failures_that_are_far_apart_never_quarantine():
    """So many in a window are allowed for ever: the window moves along."""
    times = range(0, 100_000, 16)  # four of them in any 60 s
    restarts = history(restarts=4, backoff_s=0)
    assert [at for at in times if restarts.failed(at, DEATH) is not None] == []
    restarts = history(restarts=3, backoff_s=0)
    assert next(at for at in times if restarts.failed(at, DEATH) is not None) == 48


def test_the_first_reason_stays():
    """Neighbours in a pool that die while the plugin is in quarantine change neither its reason nor its end."""
    restarts = history(restarts=0)
    first = restarts.failed(0, OWN[1])
    assert restarts.failed(10, DEATH) == restarts.failed(20, OTHERS[0]) == first
    assert restarts.start(299.9) == first


def test_a_remembered_error_keeps_nobody_alive():
    """Neither the frames of whoever raised it, nor what a batch had done."""
    with pytest.raises(WorkerCrashed) as caught:
        raise WorkerCrashed("worker crashed: SIGSEGV", results=[[1]])
    kept = history(restarts=0).failed(0, caught.value).error
    assert kept == caught.value
    assert caught.value.results == [[1]]
    assert (kept.__traceback__, kept.results) == (None, None)


# --- the rules, over everything ---


class Model(RuleBasedStateMachine):
    """Any calls at any times, some a little late, with several instances at once."""

    def __init__(self):
        super().__init__()
        self.now, self.failures, self.running, self.begun = 0.0, [], 0, []

    @precondition(lambda self: not hasattr(self, "restarts"))
    @rule(policy=policies, random=st.floats(0, 1))
    def make(self, policy, random):
        self.policy, self.restarts = policy, Restarts(policy, lambda: random)

    @precondition(lambda self: hasattr(self, "restarts"))
    @rule(step=seconds)
    def wait(self, step):
        self.now += step

    @precondition(lambda self: hasattr(self, "restarts"))
    @rule()
    def start(self):
        asked = self.restarts.refusal(self.now)
        answer = self.restarts.start(self.now)
        assert answer == asked
        if answer is None:
            self.running += 1
        else:
            assert self.failures
            assert answer.error == self.failures[-1][1] or answer.standing is not Standing.BACKING_OFF
            assert answer.since <= self.now
            assert answer.until is None or answer.until > self.now

    @precondition(lambda self: getattr(self, "running", 0))
    @rule(error=st.sampled_from(OWN + OTHERS), late=st.floats(0, 1))
    def fail(self, error, late):
        before = self.restarts.standing(self.now)
        answer = self.restarts.failed(self.now - late, error)
        self.running -= 1
        if not is_its_own(error) or before is Standing.QUARANTINED:
            if before is Standing.QUARANTINED:
                assert answer is not None
            return
        self.failures.append((self.now, error))
        assert answer is None or answer.failures <= self.policy.restarts + 1
        if self.policy.on_failure != "reload" or self.policy.restarts == 0:
            assert answer.standing is Standing.QUARANTINED
        if answer is not None and answer.standing is Standing.QUARANTINED:
            assert answer.since == self.now
            self.begun.append(self.now)

    @precondition(lambda self: getattr(self, "running", 0))
    @rule()
    def serve(self):
        self.restarts.succeeded(self.now)
        assert not self.restarts.trying

    @precondition(lambda self: getattr(self, "running", 0))
    @rule()
    def abandon(self):
        self.restarts.abandoned(self.now)
        self.running -= 1

    @precondition(lambda self: hasattr(self, "restarts"))
    @rule()
    def reset(self):
        self.restarts.reset()
        self.failures, self.begun = [], []
        assert self.restarts.refusal(self.now) is None

    @invariant()
    def quarantines_do_not_overlap(self):
        if hasattr(self, "restarts"):
            apart = math.inf if self.policy.quarantine_s is None else self.policy.quarantine_s
            assert all(b - a >= apart for a, b in itertools.pairwise(self.begun))

    @invariant()
    def standing_is_what_a_refusal_says(self):
        if hasattr(self, "restarts"):
            refusal = self.restarts.refusal(self.now)
            assert self.restarts.standing(self.now) is (Standing.ADMITTED if refusal is None else refusal.standing)


TestModel = Model.TestCase


@given(policies, st.floats(0, 1), st.lists(st.floats(0, 30), min_size=1, max_size=200))
def test_one_that_always_dies_costs_a_bounded_number_of_starts(policy, random, steps):
    """Started whenever that is allowed and dead at once: so many in a window, and one for each quarantine."""
    restarts, now, starts = Restarts(policy, lambda: random), 0.0, []
    for step in steps:
        now += step
        if restarts.start(now) is None:
            starts.append(now)
            restarts.failed(now, DEATH)
    first = 1 + (policy.restarts if policy.on_failure == "reload" else 0)
    for at in starts:  # in any window that begins with a start
        inside = sum(at <= other <= at + policy.window_s for other in starts)
        quarantines = 0 if policy.quarantine_s is None else int(policy.window_s / policy.quarantine_s) + 1
        assert inside <= first + quarantines


# --- what is told ---

NOON = datetime(2026, 3, 4, 12, 0, 10, tzinfo=UTC)


def test_quarantined_tells_since_when_why_and_until_when():
    """As text for a log, and as data."""
    restarts = history(restarts=1)
    restarts.failed(99, DEATH)
    refusal = restarts.failed(100, WallClockExceeded("wall-clock limit of 1 s exceeded"))
    error = quarantined(refusal, restarts.policy, 110.0, NOON)
    assert isinstance(error, CallError)
    assert str(error) == (
        "WASM call error: the plugin is quarantined since 2026-03-04 12:00:00.000+00:00 until 2026-03-04 "
        "12:05:00.000+00:00: it failed 2 times within 60 s, the last time by: wall-clock limit of 1 s exceeded"
    )
    assert (error.since, error.until) == (NOON - timedelta(seconds=10), NOON + timedelta(seconds=290))
    assert (error.retry_after_s, error.cause) == (290, Cause.WALL)
    assert error.__cause__ == WallClockExceeded("wall-clock limit of 1 s exceeded")
    back = pickle.loads(pickle.dumps(error))
    assert (back, back.since, back.until, back.retry_after_s) == (error, error.since, error.until, 290)


def test_what_the_other_standings_say():
    """A short wait, a quarantine without an end, and a trial."""
    restarts = history(jitter=0, backoff_s=5)
    restarts.failed(95, DEATH)
    error = quarantined(restarts.failed(98, DEATH), restarts.policy, 100.0, NOON)
    assert error.message == (
        "the plugin waits until 2026-03-04 12:00:13.000+00:00 to be started again: it failed 2 times within 60 s, "
        "the last time by: worker crashed: SIGSEGV"
    )
    restarts = history(on_failure="closed", quarantine_s=None)
    error = quarantined(restarts.failed(100, DEATH), restarts.policy, 100.0, NOON)
    assert error.message == (
        "the plugin is quarantined since 2026-03-04 12:00:10.000+00:00 until it is reset: it failed once, the last "
        "time by: worker crashed: SIGSEGV"
    )
    assert (error.until, error.retry_after_s) == (None, None)
    restarts = history(on_failure="closed")
    restarts.failed(0, DEATH)
    restarts.start(300)
    error = quarantined(restarts.start(310), restarts.policy, 310.0, NOON)
    assert error.message.startswith("the plugin is being tried after a quarantine that began 2026-03-04 11:55:00")
    assert isinstance(error, Quarantined)
    assert error.retry_after_s == 50


def test_a_quarantine_is_reported_once():
    """However many instances fail while it lasts; the next one is another."""
    told = []
    history = History(RestartPolicy(on_failure="closed", quarantine_s=10), lambda: 0.0, lambda *what: told.append(what))
    for began in (0.0, 20.0):
        assert history.start(began) is None
        for later in range(1, 4):
            history.failed(began + later, DEATH)
    assert [(failures, left) for failures, _, left in told] == [(1, 10.0), (1, 10.0)]
    assert {str(error) for _, error, _ in told} == {str(DEATH)}
