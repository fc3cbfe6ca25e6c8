"""Native code in a worker or a compiler: every act of the table comes to exactly what the table says.

Each is proven to be one: with hardening off it succeeds in the same place. What cannot succeed here even then proves
nothing by failing, and is listed apart, in a test that is skipped with the list as its reason.
"""

from __future__ import annotations

import pytest
from escape_scene import GRANTED_STAGES, STAGES
from escape_table import ALL, TABLE, table_at

from pdsandbox.platform.lockdown import filters

#: What the message on these may end with. The first is fatal with some arguments only, the next two are no calls of
#: 64-bit x86_64.
TOLD = {
    "tgkill another process": {"", " (system call tgkill)"},
    "x32 call": {"", " (system call getpid of x32)"},
    "32-bit call": {"", " (system call number 1 of another architecture)"},
    **{name: {"", f" (system call {name})"} for name in TABLE if name in filters.FATAL},
}

IN_A_PROCESS = "in a process"


def differences(found, expected):
    """name: (found, expected) where they differ."""
    return {name: (found.get(name), outcome) for name, outcome in expected.items() if found.get(name) != outcome}


def unproven(free):
    """name: why its failing would prove nothing. Any other outcome than success must be one that the table explains."""
    other = differences(free, {name: ALL[name].freely for name in free})
    unexplained = {name: outcome for name, (outcome, _) in other.items() if outcome not in ALL[name].unproven}
    assert not unexplained, "with hardening off"
    return {name: ALL[name].unproven[outcome] for name, (outcome, _) in other.items()}


@pytest.fixture(scope="module")
def apart():
    """What could not succeed in this environment, by user and place."""
    return {}


def test_at_default_hardening_every_attempt_fails_as_the_table_says(play):
    """In a worker before and after it has its module, and in a compiler."""
    found = play("escape_direct", stages=STAGES)
    for stage in STAGES:
        assert not differences(found[stage], {name: attempt.at(stage) for name, attempt in TABLE.items()}), stage


@pytest.mark.parametrize("stage", GRANTED_STAGES)
def test_with_granted_directories_every_attempt_fails_as_the_table_says(play, stage):
    """The same in a worker with one directory to read and one to write, and what would get at more than these."""
    found = play("escape_direct", stages=[stage])[stage]
    assert not differences(found, {name: attempt.at(stage) for name, attempt in table_at(stage).items()})


def test_with_hardening_off_every_attempt_succeeds(play, user, apart):
    """In the same processes; but for what the table explains."""
    free = play("escape_direct", stages=["free"])["free"]
    assert free.keys() == ALL.keys()
    apart[user, IN_A_PROCESS] = unproven(free)


@pytest.mark.parametrize("stage", ["locked", "granted"])
def test_at_default_hardening_every_attempt_fails_in_a_guests_worker(play, stage):
    """A function that a guest calls is native code there; one that the filter ends is named where the kernel tells."""
    found = play("escape_real", hardening="default", granted=stage == "granted")
    asked = found.pop("")
    assert not differences(
        {name: outcome for name, (outcome, _) in found.items()},
        {name: attempt.at(stage) for name, attempt in table_at(stage).items()},
    )
    assert asked["descriptors"][:3] == [0, 1, 2]
    # Standard streams, two pipes, and the module, or, where that is a copy, the directories.
    assert len(asked["descriptors"]) == (7 if stage == "granted" else 6)
    assert asked["variables"] == 0
    for name, (outcome, message) in found.items():
        if outcome != "SIGSYS":
            assert message in ("", f"worker crashed: {outcome}"), name
            continue
        # The kernel tells of a few in a second only.
        told = message.removeprefix("worker crashed: SIGSYS")
        assert not told or asked["log"]
        assert told in TOLD.get(name, {"", *(f" (system call {call})" for call in filters.FATAL)}), name


def test_with_hardening_off_every_attempt_succeeds_in_a_guests_worker(play, user, apart):
    """In the same place; but for what the table explains."""
    found = play("escape_real", hardening="off", granted=True)
    apart[user, "in a guest's worker"] = unproven({name: outcome for name, (outcome, _) in found.items()})


def test_what_could_not_be_proven_here(play, user, apart):
    """Listed with the reason, as the reason for a skip."""
    if (user, IN_A_PROCESS) not in apart:  # that test ran elsewhere
        apart[user, IN_A_PROCESS] = unproven(play("escape_direct", stages=["free"])["free"])
    lists = [
        f"{place}: " + "; ".join(f"{name} ({why})" for name, why in sorted(listed.items()))
        for (whose, place), listed in apart.items()
        if whose == user and listed
    ]
    if lists:
        pytest.skip("cannot succeed here, even with hardening off, " + " | ".join(lists))
