"""What the soak takes for a fault: a call that is lost, doubled, answered wrongly or failed by what must not happen."""

from __future__ import annotations

import pytest

from pdsandbox import Cause, Trap, WorkerCrashed

KILLED = WorkerCrashed("worker crashed: SIGKILL", cause=Cause.SIGNAL, signal=9)
TRAP = Trap("unreachable", cause=Cause.GUEST_TRAP)


@pytest.fixture
def ledger(harness):
    return harness("ledger").Ledger({"killed": lambda error: error.cause is Cause.SIGNAL})


@pytest.fixture
def end(harness, ledger):
    """end(runs, answer, error, …): the faults of a call that is to answer 42, or to trap if `traps`."""

    def made(executed, answer=None, error=None, *, traps=False, **options):
        kind = harness("ledger").Kind(
            "some",
            1.0,
            lambda n: None,
            None if traps else lambda value, n: value == 42,
            (Trap, Cause.GUEST_TRAP) if traps else None,
            **options,
        )
        number = ledger.begin()
        for _ in range(executed):
            ledger.note(number)
        right = ledger.end(kind, number, answer, error, 0.0)
        assert right == (not ledger.faults and (error is None or traps))
        return ledger.faults

    return made


@pytest.mark.parametrize(
    ("runs", "answer", "error", "options"),
    [
        (1, 42, None, {}),
        (2, 42, None, {"at_most": 2}),
        (0, 42, None, {"runs": 0}),
        (1, None, TRAP, {"traps": True}),
        (0, None, TRAP, {"traps": True, "at_least": 0}),
        (0, None, KILLED, {}),
        (1, None, KILLED, {}),
    ],
)
def test_what_may_happen_is_no_fault(end, runs, answer, error, options):
    """The right end, and one's worker killed before the call ran or after."""
    assert end(runs, answer, error, **options) == []


@pytest.mark.parametrize(
    ("runs", "answer", "error", "options"),
    [
        (1, 41, None, {}),
        (0, 42, None, {}),
        (2, 42, None, {}),
        (1, 42, None, {"traps": True}),
        (0, None, TRAP, {"traps": True}),
        (2, None, TRAP, {"traps": True}),
        (1, None, TRAP, {}),
        (2, None, KILLED, {}),
        (1, None, WorkerCrashed("worker crashed: exit code 3", cause=Cause.EXIT), {}),
        (1, None, RuntimeError("what?"), {}),
    ],
)
def test_anything_else_is_one(end, runs, answer, error, options):
    """Said in one line, with the call's number and how often it executed."""
    (fault,) = end(runs, answer, error, **options)
    assert fault.startswith(f"call 1 (some), executed {runs} times: ")


def test_an_execution_after_the_end_is_counted(ledger, end):
    """And a call that has not ended is."""
    end(1, 42)
    ledger.note(1)
    ledger.begin()
    assert (ledger.strays, ledger.running, ledger.calls) == (1, 1, 1)


def test_what_calls_for_attention_fails_the_part(harness, ledger):
    """A bound that is missed, or a fault in words."""
    findings = harness("findings")
    found = findings.Findings("part")
    found.add("kept", 1, "count", most=1)
    found.add_calls(ledger)
    assert not found.failed
    found.add("missed", 2, "count", most=1)
    assert found.failed
    worded = findings.Findings("part", faults=["so it is"])
    assert worded.failed
