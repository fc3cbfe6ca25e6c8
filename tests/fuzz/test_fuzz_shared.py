"""A worker that lies while one more instance is made in it: a contract's error, no hang, one verdict for all in it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from fuzz_effort import naming, seeds
from fuzz_mutations import MUTATIONS, Dice
from fuzz_peer import Honest, Peer
from fuzz_scenes import CALL_ONE, LOADED, ONE, calls
from fuzz_stage import Stage, check_error

from pdsandbox import I32, Cause, WasmError
from pdsandbox.protocol import messages as m

PARTS = 4
ROUNDS = 800
AT_MOST_S = 20.0
#: What the second instance's LOAD may come to.
PROGRAMS = (
    [LOADED],
    [calls(0), calls(2), LOADED],
    [m.Error(m.Failure.START_TRAP, trap_code=10).frame()],
    [m.Error(m.Failure.LINK, text="no such import").frame()],
)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with pytest.MonkeyPatch.context() as patch:
        made = Stage(patch)
        yield made
        made.close()


def attempt(action: Any) -> tuple[Any, WasmError | None]:
    """What it returns, or the contract's error that it raises, in time."""
    started = time.monotonic()
    try:
        return action(), None
    except WasmError as exc:
        check_error(exc)
        return None, exc
    finally:
        assert time.monotonic() - started < AT_MOST_S, "it hung"


def called(instance: Any) -> WasmError | None:
    value, error = attempt(lambda: getattr(instance, CALL_ONE[0])(*CALL_ONE[1:]))
    assert error is not None or [type(each) for each in value] == [I32]  # which one, a worker may lie about
    return error


def one_round(stage: Stage, seed: int, name: str) -> str:
    """One that is there, one more with a lie among the replies to it, and a call of each; what it came to."""
    dice = Dice(seed)
    program = dice.choice(PROGRAMS)
    # READY, LOADED, then the second LOAD's replies, then those to calls.
    plan = {2 + dice.below(len(program) + 1): name}
    liar = Peer(Honest([[LOADED], program, [ONE], [ONE]]), plan, dice)
    fresh = Peer(Honest([[LOADED], [ONE]]), {}, dice)
    try:
        first = stage.share([liar])
        second, error = attempt(lambda: stage.share([fresh], more=True))
        moved = second is not None and second._handle is not first._handle
        if moved:
            assert not first.alive  # never in place of one that lives
        if error is not None and first.alive:
            assert second is None
            assert error.cause not in (Cause.PROTOCOL, Cause.WALL), "a verdict on the worker, which lives"
        lied = called(first)
        if not first.alive:
            assert lied is not None
            assert called(first) == lied
            if second is not None and not moved:
                assert called(second) == lied
            elif error is not None and error.cause in (Cause.PROTOCOL, Cause.WALL, Cause.SIGNAL, Cause.EXIT):
                assert type(error) is type(lied)
                assert error.cause is lied.cause
        elif second is not None:
            called(second)
        for instance in (first, second):
            if instance is not None:
                instance.close()
                assert not instance.alive
        return "moved" if moved else "refused" if second is None else "lied" if lied else "fine"
    finally:
        stage.end_round()


@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_a_worker_says_to_one_more(stage: Stage, part: int) -> None:
    """Every mutation of every reply; each outcome comes about."""
    names = sorted(MUTATIONS)
    seen = set()
    for seed in seeds(part, PARTS, ROUNDS):
        name = names[seed // PARTS % len(names)]
        with naming(seed, lambda name=name: name):
            seen.add(one_round(stage, seed, name))
    assert {"fine", "refused", "lied"} <= seen
