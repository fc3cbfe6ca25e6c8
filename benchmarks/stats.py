"""What a list of samples comes to. Pure.

Quartiles interpolate; the high percentiles do not (nearest rank): a p99 of fewer than 100 samples is their maximum,
never a figure that nobody saw.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Statistic = Literal["mean", "p50", "p99", "max"]


@dataclass(frozen=True, slots=True)
class Summary:
    """Order statistics of one series, in the series' unit."""

    n: int
    mean: float
    min: float
    p25: float
    p50: float
    p75: float
    p90: float
    p99: float
    max: float

    @property
    def spread(self) -> float:
        """The middle half's width, as a share of the median."""
        return (self.p75 - self.p25) / self.p50 if self.p50 else 0.0

    def get(self, statistic: Statistic) -> float:
        """The named statistic."""
        value: float = getattr(self, statistic)
        return value


def summary(samples: Sequence[float]) -> Summary:
    """The summary of at least one sample; ValueError for none."""
    if not samples:
        raise ValueError("no samples")
    low, middle, high = quartiles(samples)
    ordered = sorted(samples)
    return Summary(
        n=len(ordered),
        mean=statistics.fmean(ordered),
        min=ordered[0],
        p25=low,
        p50=middle,
        p75=high,
        p90=nearest_rank(ordered, 0.90),
        p99=nearest_rank(ordered, 0.99),
        max=ordered[-1],
    )


def quartiles(samples: Sequence[float]) -> tuple[float, float, float]:
    """(first quartile, median, third quartile) of at least one sample."""
    if len(samples) == 1:
        return samples[0], samples[0], samples[0]
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return low, middle, high


def nearest_rank(ordered: Sequence[float], share: float) -> float:
    """The smallest sample that is not below `share` of all (0 < share <= 1), from sorted samples."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def paired_ratios(subject: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """Round by round, so that what slowed both down cancels out; empty when the rounds do not pair up."""
    if len(subject) != len(baseline) or 0 in baseline:
        return []
    return [a / b for a, b in zip(subject, baseline, strict=True)]
