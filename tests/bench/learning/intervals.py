"""How sure a difference is: circular block bootstrap of paired differences (Politis and Romano 1992).

Whole stretches of time are drawn, so that what one stale version did to its block stays together. Few stretches give
too narrow a percentile interval; it is widened by Student's t over the normal quantile and by sqrt(k / (k - 1)) for k
stretches.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from tests.bench.learning.stream import Floats

LEVEL = 0.95
REPLICATES = 2_000
LEAST_STRETCHES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean difference a row; without bounds where the stream is too short for its block size."""

    mean: float
    low: float
    high: float

    def verdict(self, *, higher_is_better: bool) -> Literal["win", "tie", "loss"]:
        """A tie when 0 is inside."""
        if not (self.low > 0.0 or self.high < 0.0):
            return "tie"
        return "win" if (self.low > 0.0) == higher_is_better else "loss"


def paired(sums: Floats, rows: Floats, stretch: int, seed: int = 0) -> Interval:
    """The interval of the mean difference a row.

    Args:
        sums: `[series, chunks]`, differences summed over the rows of a chunk; one series a seed with data of its own.
        rows: `[chunks]`, rows of each.
        stretch: so many chunks are drawn together.
        seed: of the draws.
    """
    series, chunks = sums.shape
    mean = float(sums.sum() / (rows.sum() * series))
    stretch = min(stretch, chunks)
    pieces = -(-chunks // stretch)
    if pieces * series < LEAST_STRETCHES:
        return Interval(mean=mean, low=-math.inf, high=math.inf)
    rng = np.random.default_rng(seed)
    starts = rng.integers(chunks, size=(REPLICATES, series, pieces, 1))
    places = ((starts + np.arange(stretch)) % chunks).reshape(REPLICATES, series, -1)[:, :, :chunks]
    drawn = np.take_along_axis(sums[None], places, axis=2).sum((1, 2)) / rows[places].sum((1, 2))
    low, high = np.quantile(drawn, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    wider = _widening(pieces * series)
    return Interval(mean=mean, low=float(mean + wider * (low - mean)), high=float(mean + wider * (high - mean)))


def _widening(k: int) -> float:
    """t over z for k - 1 degrees of freedom (Abramowitz and Stegun 26.7.5), and the bias of a variance of k."""
    z, v = NormalDist().inv_cdf((1 + LEVEL) / 2), k - 1
    t = z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
    t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    return t / z * math.sqrt(k / v)
