"""A fake worker in every state, with every mutation: each operation ends as the model says, and nothing is left."""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fuzz_effort import TIMES, Growth, naming, seeds, selected
from fuzz_model import PROTOCOL, Model, Told, Verdict
from fuzz_mutations import NAMES, Dice
from fuzz_peer import Honest, Peer
from fuzz_scenes import LOADED, SCENES, wasi
from fuzz_stage import Stage, check_error

from pdsandbox.errors import Cause, TrapCode, WasmError, WorkerCrashed
from pdsandbox.protocol import messages as m

PARTS = 4 * TIMES
#: Nothing waits for more than milliseconds; the limit of an operation is 60 s.
AT_MOST_S = 20.0
MIB = 1 << 20
INTERRUPTED = m.Error(m.Failure.TRAP, 4, trap_code=TrapCode.INTERRUPT.value).frame()


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with pytest.MonkeyPatch.context() as patch:
        made = Stage(patch)
        yield made
        made.close()


@dataclasses.dataclass
class Round:
    """One instance and its operations. `plan`: which reply is mutated, and how."""

    stage: Stage
    scene: str
    plan: dict[int, str]
    seed: int
    outcomes: collections.Counter[Any] = dataclasses.field(default_factory=collections.Counter)
    ended: str = "nowhere"

    def __str__(self) -> str:
        return f"scene {self.scene!r}, mutations {self.plan}, at {self.ended}"

    def run(self) -> Peer:
        """Do it; the peer that was used in the end."""
        dice, scene = Dice(self.seed), SCENES[self.scene]
        spare = dice.one_in(2)
        peers = [self._peer(self.plan, dice, greeted=spare and dice.one_in(2))]
        peers += [self._peer({}, dice, greeted=False) for _ in range(2)]
        first = peers[0]
        try:
            instance, error = None, None
            try:
                instance = self._timed(
                    "loading",
                    lambda: self.stage.instantiate(
                        peers, interruptible=scene.interruptible, spare=spare, wasi=wasi() if scene.wasi else None
                    ),
                )
            except WasmError as exc:
                error = exc
            used = self.stage.processes.used
            if used[-1] is not first:
                # Told that the first never read LOAD, the supervisor took another one: nothing was run twice.
                assert spare
                assert (first.heard, len(used)) == (0, 2)
                with pytest.raises(Told) as told:
                    Model(first, wasi=scene.wasi).load()
                assert told.value.verdict[0] is WorkerCrashed
            model = Model(used[-1], wasi=scene.wasi)
            self._compare(model, Model.load, (), error, None)
            if instance is not None:
                self._operate(instance, model, scene.operations)
            return used[-1]
        finally:
            self.stage.end_round()

    def _peer(self, plan: dict[int, str], dice: Dice, *, greeted: bool) -> Peer:
        peer = Peer(Honest(SCENES[self.scene].programs), plan, dice, greeted=greeted)
        peer.on_interrupt = lambda: [INTERRUPTED]
        peer.copies = Dice(self.seed + 1).one_in(2)
        return peer

    def _timed(self, what: str, action: Any) -> Any:
        self.ended = what
        started = time.monotonic()
        try:
            return action()
        finally:
            assert time.monotonic() - started < AT_MOST_S, "it hung"

    def _operate(self, instance: Any, model: Model, operations: list[Any]) -> None:
        talk = instance._talk
        talk.memory.flag = m.WHERE  # as if memory had been used: what replies say of it counts from the start
        for number, (name, *args) in enumerate(operations):
            assert (instance.alive, talk.busy) == (True, False)
            if name == "set_fuel":
                instance.set_fuel(*args)
                continue
            extra = (talk.fuel.begin(),) if name.startswith("call") else ()
            error, value = None, None
            try:
                value = self._timed(f"{number}: {name}", lambda name=name, args=args: getattr(instance, name)(*args))
            except WasmError as exc:
                error = exc
            model.look(interrupted=talk.channel.interrupted)
            fatal = self._compare(model, getattr(Model, name), (*args, *extra), error, value)
            assert instance.alive is not fatal
            if fatal:
                if name != "output":
                    assert instance.output().stdout.startswith(model.kept)
                self._gone(instance, error)
                return
        instance.close()
        self._gone(instance, None)

    def _compare(self, model: Model, operation: Any, args: Any, error: WasmError | None, value: Any) -> bool:
        """What was raised or returned is what the model says; whether the worker is gone."""
        expected: Any
        told: Verdict | None = None
        fatal = False
        try:
            expected = operation(model, *args)
        except Told as exc:
            told, fatal, expected = exc.verdict, exc.fatal, None
        if error is None:
            assert told is None, f"returned {value!r}, and the model says {told}"
            assert value == expected
            self.outcomes["an answer"] += 1
            return False
        got = (type(error), error.cause)
        if got == PROTOCOL and model.may_break:
            fatal = True
        else:
            assert told == got, f"raised {error!r}, and the model says {told or expected}"
        check_error(error)
        self.outcomes[got] += 1
        return fatal

    def _gone(self, instance: Any, error: WasmError | None) -> None:
        """Every later use raises the same, at once."""
        uses = (
            lambda: instance.call("none"),
            lambda: instance.call_many("none", [[]]),
            lambda: instance.memory_read(0, 1),
            lambda: instance.memory_write(0, b"x"),
        )
        for use in uses:
            with pytest.raises(WasmError) as again:
                use()
            if error is None:
                assert again.value.cause is Cause.CLOSED
            else:
                assert (again.value, again.value.cause) == (error, error.cause)


def told_apart(number: int, replies: list[bytes]) -> Iterator[int]:
    """Which replies of scene `number` are worth a lie.

    READY, and LOADED after it, are the same in nearly all scenes: every fourth has them, and those that have nothing
    else. What has the kind, and the function, of an earlier reply that followed the same meets the supervisor in the
    same state: the first two of them do, and the last of all replies.
    """
    before = b""
    seen: collections.Counter[tuple[bytes, bytes]] = collections.Counter()
    for reply, frame in enumerate(replies):
        kind = frame[4:5] + (frame[8:12] if frame[4] in (m.HOST_CALL, m.HOST_LOG) else b"")
        seen[before, kind] += 1
        common = reply == 0 or (reply == 1 and frame == LOADED)
        if number % 4 == 0 or len(replies) == 2 if common else seen[before, kind] <= 2 or frame is replies[-1]:
            yield reply
        before = kind


@pytest.fixture(scope="module")
def cells(stage: Stage) -> list[tuple[str, int, str]]:
    """Every reply of every scene that differs from those before it, with every mutation."""
    found = []
    for number, scene in enumerate(SCENES):
        replies = Round(stage, scene, {}, 0).run().replies
        found += [(scene, reply, mutation) for mutation in NAMES for reply in told_apart(number, replies)]
    return found


@pytest.mark.parametrize("scene", SCENES)
def test_an_honest_peer_is_believed(stage: Stage, scene: str) -> None:
    """Without a mutation, whole or in pieces, every scene ends as its program says; the model agrees.

    Only a program that breaks the protocol by itself ends in a verdict about that.
    """
    for pieces in ("honest", "in pieces"):
        for seed in range(4):
            round_ = Round(stage, scene, dict.fromkeys(range(100), pieces), seed)
            with naming(seed, round_.__str__):
                round_.run()
            assert (PROTOCOL in round_.outcomes) is SCENES[scene].broken


@pytest.mark.parametrize("part", range(PARTS))
def test_every_lie_has_its_verdict(stage: Stage, cells: list[tuple[str, int, str]], part: int) -> None:
    """A right answer or one typed error, as the model says; nothing hangs, nothing grows."""
    outcomes: collections.Counter[Any] = collections.Counter()
    before = None
    for count, seed in enumerate(seeds(part, PARTS, len(cells))):
        scene, reply, mutation = cells[seed % len(cells)]
        plan = {reply: mutation}
        if Dice(~seed).one_in(8):  # and one more, later
            plan[reply + 1 + Dice(seed).below(3)] = Dice(-seed).choice(NAMES)
        round_ = Round(stage, scene, plan, seed)
        with naming(seed, round_.__str__):
            round_.run()
        outcomes += round_.outcomes
        if count == 600:
            before = Growth()
    if before is not None:
        # Scenes move some MiB at a time: by where the last ones lie, the heap is up to 10 MiB larger without a leak.
        before.check(16 * MIB, settle=Round(stage, "calls", {}, 0).run)
    if not selected():
        assert len(outcomes) > 10, outcomes
