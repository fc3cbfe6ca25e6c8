"""A run from beginning to end: which group is opened when, how often, for how many rounds and how long.

A run goes through the groups several times (passes), so that a slow minute of the machine falls on a part of each
group's rounds and not on one group's all, and each pass starts its processes anew: what differs from start to start
shows within one run. Without a given number of rounds it keeps to a time budget. Knows nothing of what is measured.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .measure import Group, Unmeasurable, take

# A minute and seven, less what starting Python and drawing the page take.
QUICK_S = 48.0
FULL_S = 410.0


@dataclass(slots=True)
class Taken:
    """What a group came to: its samples by series, how many rounds each pass took, and for how long in all."""

    planned: int
    samples: dict[str, list[float]] = field(default_factory=dict)
    passes: list[int] = field(default_factory=list)
    duration_s: float = 0.0


@dataclass(slots=True)
class Session:
    """What a run came to, by group. `unmeasured` says why; `failed` has the tracebacks of what should not happen."""

    groups: dict[str, Taken]
    unmeasured: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def samples(self) -> dict[str, list[float]]:
        """All samples, by series."""
        return {key: values for taken in self.groups.values() for key, values in taken.samples.items()}


@dataclass(frozen=True, slots=True)
class Leg:
    """One opening of one group."""

    group: Group
    rounds: int
    least: int


def legs(groups: Sequence[Group], *, quick: bool, rounds: int | None) -> list[Leg]:
    """The run's plan. Pure. A group with too few rounds for all its passes is left out of the later ones."""
    plan: list[tuple[int, int, Leg]] = []
    for order, group in enumerate(groups):
        total = group.planned(quick=quick, rounds=rounds)
        # A given number of rounds, like a quick run, is for a look: opening a group costs more than some rounds.
        passes = 1 if group.fixed or quick or rounds is not None else min(group.passes, total)
        least = total if group.fixed or rounds is not None else min(group.least_rounds, total)
        for number in range(passes):
            part = total // passes + (number < total % passes)
            plan.append((number, order, Leg(group, part, math.ceil(least / passes))))
    return [leg for _, _, leg in sorted(plan, key=lambda entry: entry[:2])]


def run(
    plan: Sequence[Leg], *, budget_s: float | None, after_round: Callable[[str], None], after_leg: Callable[[], None]
) -> Session:
    """Take all samples. `after_round` gets the group's title.

    A leg may use its weight's share of the time that is left, so what one leaves over is there for those after it. A
    group that fails is noted, and the rest is measured all the same: minutes of measuring are not lost for one.
    """
    ends = None if budget_s is None else time.monotonic() + budget_s
    session = Session({leg.group.key: Taken(0) for leg in plan})
    for number, leg in enumerate(plan):
        group, taken = leg.group, session.groups[leg.group.key]
        taken.planned += leg.rounds
        if group.key in session.unmeasured:
            after_leg()
            continue
        started = time.monotonic()
        until = None
        if ends is not None:
            weights = sum(later.group.weight for later in plan[number:])
            until = started + (ends - started) * group.weight / weights
        done = 0

        def count(title: str = group.title) -> None:
            nonlocal done
            done += 1
            after_round(title)

        try:
            samples = take(group, leg.rounds, count, least=leg.least, until=until)
            for key, values in samples.items():
                if not all(map(math.isfinite, values)):
                    raise ValueError(f"a sample of {key} is no finite number")
        except Unmeasurable as exc:
            session.unmeasured[group.key] = _plain(str(exc))
            taken.samples = {}
        except Exception as exc:
            session.unmeasured[group.key] = _plain(f"it failed: {type(exc).__name__}: {exc}")
            session.failed[group.key] = traceback.format_exc()
            taken.samples = {}
        else:
            for key, values in samples.items():
                taken.samples.setdefault(key, []).extend(values)
            taken.passes.append(done - group.warmup)
        taken.duration_s += time.monotonic() - started
        after_leg()
    return session


def _plain(text: str) -> str:
    """One line, of at most 500 characters that can be printed: the report's reader takes nothing else."""
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))[:500]
