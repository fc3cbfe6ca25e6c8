"""Series, rows, bars and groups as data, and the one loop that takes samples: contender by contender, round by round.

Interleaved (A B C A B C …), because a machine's speed drifts: what slows one contender down then slows all. Knows
nothing of what is measured, nor how the rounds are spread over a run (`session`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

from .stats import Statistic

#: Takes one sample and returns it, or several at once, by the key of its series.
Contender = Callable[[], Mapping[str, float]]


class Unmeasurable(Exception):
    """This machine does not let a group be measured; the text says why."""


@dataclass(frozen=True, slots=True)
class Series:
    """One thing that is measured. `title` says exactly what; `short` names it where it is a baseline, and in charts.

    unit: seconds, bytes, calls (or bytes) a second, a share of something (1 is all of it), or how many. side: whether
    it is pdsandbox that is measured, for the charts' colours; left out, it is ours if it is the subject of a row.
    """

    key: str
    title: str
    unit: Literal["s", "bytes", "per_s", "share", "count"] = "s"
    short: str = ""
    side: Literal["ours", "peer"] | None = None


@dataclass(frozen=True, slots=True)
class Bar:
    """What an issue asks of a row: a ratio to its baseline, or (`of` "value") a figure, of at most `bound`; of at least
    that where `least`, which is what one asks of rates."""

    bound: float
    source: str
    of: Literal["ratio", "value"] = "ratio"
    least: bool = False

    def met(self, judged: float) -> bool:
        """Whether the ratio or figure is within it."""
        return judged >= self.bound if self.least else judged <= self.bound


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report: a statistic of a series, beside the same statistic of its baseline."""

    key: str
    title: str
    series: str
    baseline: str
    statistic: Statistic = "p50"
    bar: Bar | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Contenders that take turns. `open` gives them, ready to run, and closes everything afterwards.

    warmup: rounds whose samples are thrown away, each time that it is opened. fixed: opened once, for exactly
    `rounds`; `--quick`, `--rounds` and the time budget change nothing. Else it is opened `passes` times (once if
    quick), each time for its part of the rounds, so that processes which happen to lie badly in memory do not make a
    whole run; and a run that would take too long takes fewer rounds, but not fewer than `least_rounds`. weight: its
    part of the time, in relation to the other groups'. packages: whose versions go into the report, beside the
    known peers'.

    For the report's page only: caption, one or two sentences under the heading. chart: medians with quartiles, or
    all samples. hero: the keys of the series that go into the first chart of the page.
    """

    key: str
    title: str
    series: tuple[Series, ...]
    rows: tuple[Row, ...]
    open: Callable[[], AbstractContextManager[Sequence[Contender]]]
    rounds: int
    quick_rounds: int
    warmup: int = 3
    fixed: bool = False
    passes: int = 3
    least_rounds: int = 5
    weight: float = 1.0
    packages: tuple[str, ...] = ()
    caption: str = ""
    chart: Literal["bars", "distribution"] = "bars"
    hero: tuple[str, ...] = ()

    def planned(self, *, quick: bool, rounds: int | None) -> int:
        """How many rounds to take, given the time."""
        if self.fixed:
            return self.rounds
        if rounds is not None:
            return rounds
        return self.quick_rounds if quick else self.rounds


def take(
    group: Group,
    rounds: int,
    after_round: Callable[[], None],
    *,
    least: int | None = None,
    until: float | None = None,
) -> dict[str, list[float]]:
    """Samples by series, of `rounds` rounds; once time.monotonic() has reached `until`, of at least `least`.

    `after_round` is called between rounds, never inside one. Raises Unmeasurable.
    """
    samples: dict[str, list[float]] = {series.key: [] for series in group.series}
    enough = group.warmup + (rounds if least is None else min(least, rounds))
    with group.open() as contenders:
        for number in range(group.warmup + rounds):
            if number >= enough and until is not None and time.monotonic() >= until:
                break
            for contender in contenders:
                taken = contender()
                if number >= group.warmup:
                    for key, value in taken.items():
                        samples[key].append(value)
            after_round()
    return samples


def block(key: str, call: Callable[[], object], *, calls: int, lead_in: int) -> Contender:
    """A contender whose sample is the mean time of `calls` calls in a row, after `lead_in` calls off the clock.

    The mean of a short block keeps what a caller really pays (garbage collection, allocation); the median over the
    blocks then leaves out those that the scheduler interrupted. The lead-in gets adaptive waiting into its stride.
    """
    repeat, count = range(calls), calls

    def sample() -> Mapping[str, float]:
        for _ in range(lead_in):
            call()
        started = time.perf_counter()
        for _ in repeat:
            call()
        return {key: (time.perf_counter() - started) / count}

    return sample
