"""How far a figure wanders from run to run, and how likely a difference is by chance alone. Pure, and deterministic.

Knows nothing of reports: samples and figures in, probabilities out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

#: Fewer samples say nothing of how far they wander.
FEWEST = 4
# Of two quick runs of the same code six times over, the differences were 1.3 times as far apart as their standard
# errors say with 8 blocks, and 1.7 times when samples were drawn one by one.
_BLOCKS = 8
_RESAMPLES = 1000
_SEED = 1

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure, its standard error, and the degrees of freedom of that. logarithm: of the figure, which is positive."""

    value: float
    error: float
    freedom: int
    logarithm: bool


def ratio(
    subject: Sequence[float], baseline: Sequence[float], statistic: Literal["p50", "mean"], passes: Sequence[int] = ()
) -> Estimate | None:
    """The subject's statistic over the baseline's: of medians the median of the rounds' own ratios where rounds pair
    up, which wanders half as far. None where the baseline is zero, or there are fewer than `FEWEST` samples.

    Both are resampled in blocks of neighbouring rounds (an eighth of the run): a machine is slow for seconds at a
    time, so neighbours resemble each other, and drawing them one by one would claim a precision that is not there.
    Where `passes` (rounds of each) divides the samples, the error is at least what the passes differ by.
    """
    upper, lower = np.asarray(subject, float), np.asarray(baseline, float)
    if min(len(upper), len(lower)) < FEWEST:
        return None
    middle = np.median if statistic == "p50" else np.mean
    generator = np.random.default_rng(_SEED)
    if len(upper) == len(lower) and statistic == "p50" and (lower > 0).all():
        ratios = upper / lower
        value = float(np.median(ratios))
        drawn = np.median(ratios[_blocks(generator, len(ratios))], axis=1)
    else:
        above = middle(upper[_blocks(generator, len(upper))], axis=1)
        below = middle(lower[_blocks(generator, len(lower))], axis=1)
        if not middle(lower) or not below.all():
            return None
        value, drawn = float(middle(upper) / middle(lower)), above / below
    blocks = min(_BLOCKS, len(upper), len(lower))
    # A sample's own deviation is too small by this, blocks being few.
    few = math.sqrt(blocks / (blocks - 1))
    parts = _parts(upper, lower, statistic, passes)
    logarithm = bool(value > 0 and (drawn > 0).all() and (parts > 0).all())
    if logarithm:
        value, drawn, parts = math.log(value), np.log(drawn), np.log(parts)
    error = few * float(np.std(drawn, ddof=1))
    if len(parts) > 1:
        error = max(error, float(np.std(parts, ddof=1)) / math.sqrt(len(parts)))
    return Estimate(value, error, blocks - 1, logarithm)


def _parts(upper: Floats, lower: Floats, statistic: str, passes: Sequence[int]) -> Floats:
    """The ratio in each pass; nothing where there is one, or the passes are not those of the samples."""
    if len(passes) < 2 or 0 in passes or not sum(passes) == len(upper) == len(lower):
        return np.empty(0)
    ends = np.cumsum(passes)[:-1]
    pairs = zip(np.split(upper, ends), np.split(lower, ends), strict=True)
    if statistic == "p50" and (lower > 0).all():
        return np.array([np.median(above / below) for above, below in pairs])
    middles = [(float(np.mean(above)), float(np.mean(below))) for above, below in pairs]
    return np.array([above / below for above, below in middles]) if all(below for _, below in middles) else np.empty(0)


def _blocks(generator: np.random.Generator, count: int) -> npt.NDArray[np.intp]:
    """Indices of `_RESAMPLES` times `count` samples: whole blocks, which begin anywhere and wrap around."""
    size = max(1, count // _BLOCKS)
    starts = generator.integers(0, count, (_RESAMPLES, -(-count // size), 1))
    return ((starts + np.arange(size)) % count).reshape(_RESAMPLES, -1)[:, :count]


def difference(one: Estimate, other: Estimate) -> tuple[float, float]:
    """(standard error of the difference, its degrees of freedom), after Welch and Satterthwaite."""
    a, b = one.error**2, other.error**2
    if not a + b:
        return 0.0, float(one.freedom + other.freedom)
    return math.sqrt(a + b), (a + b) ** 2 / (a**2 / one.freedom + b**2 / other.freedom)


def by_chance(distance: float, error: float, freedom: float) -> float:
    """How likely a difference at least this large, in either direction, is by chance alone."""
    if not distance:
        return 1.0
    return 2 * _student_tail(abs(distance) / error, freedom) if error else 0.0


def reach(error: float, freedom: float, alpha: float) -> float:
    """The distance that chance alone exceeds with probability `alpha`."""
    if not error:
        return 0.0
    low, high = 0.0, 1000.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if 2 * _student_tail(middle, freedom) > alpha else (low, middle)
    return high * error


def _student_tail(t: float, freedom: float) -> float:
    """P(T > t) of Student's distribution, t >= 0: by Simpson's rule over the angle arctan(t / sqrt(freedom)), in which
    its density is cos(angle) ** (freedom - 1), smooth and on a finite range."""
    steps = 1000
    low, high = math.atan(t / math.sqrt(freedom)), math.pi / 2
    weights = np.ones(steps + 1)
    weights[1:-1:2], weights[2:-1:2] = 4.0, 2.0
    density = np.cos(np.linspace(low, high, steps + 1)).clip(0.0) ** (freedom - 1)
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    return min(0.5, scale * float((weights * density).sum()) * (high - low) / steps / 3)


def beyond_by_chance(higher: Sequence[float], lower: Sequence[float], mark: float) -> float:
    """How likely so many (or more) of the samples above `mark` are from `higher`, were all drawn from one source; for
    either run in that role. `mark` is a high percentile of the lower run: the precedence test."""
    beyond, own = sum(sample > mark for sample in higher), sum(sample > mark for sample in lower)
    size, other, drawn = len(higher), len(lower), beyond + own
    total = math.comb(size + other, drawn)
    ways = sum(math.comb(size, k) * math.comb(other, drawn - k) for k in range(beyond, drawn + 1))
    return min(1.0, 2 * ways / total)


def step_down(chances: Sequence[float], alpha: float) -> list[bool]:
    """Which are significant, so that a false one is among them all with probability `alpha` at most (Holm): the
    smallest against alpha / n, the next against alpha / (n - 1), until one fails."""
    verdicts, standing = [False] * len(chances), True
    for number, index in enumerate(sorted(range(len(chances)), key=lambda index: chances[index])):
        standing = standing and chances[index] <= alpha / (len(chances) - number)
        verdicts[index] = standing
    return verdicts
