"""How sure a difference is: block bootstrap of paired differences over stretches of time (Carlstein 1986).

Stretches do not overlap and begin where blocks begin: what one stale version did to its block stays together. (Circular
blocks cut it in two, and their interval covered 82 % instead of 95 %.) Few stretches give too narrow a percentile
interval; it is widened by Student's t over the normal quantile and by sqrt(k / (k - 1)) for k stretches.
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
    starts = np.arange(0, sums.shape[1], stretch)
    parts = np.add.reduceat(sums, starts, axis=1).ravel()
    weights = np.tile(np.add.reduceat(rows, starts), sums.shape[0])
    mean = float(parts.sum() / weights.sum())
    if len(parts) < LEAST_STRETCHES:
        return Interval(mean=mean, low=-math.inf, high=math.inf)
    places = np.random.default_rng(seed).integers(len(parts), size=(REPLICATES, len(parts)))
    drawn = parts[places].sum(1) / weights[places].sum(1)
    low, high = np.quantile(drawn, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    wider = _widening(len(parts))
    return Interval(mean=mean, low=float(mean + wider * (low - mean)), high=float(mean + wider * (high - mean)))


def _widening(k: int) -> float:
    """t over z for k - 1 degrees of freedom (Abramowitz and Stegun 26.7.5), and the bias of a variance of k."""
    z, v = NormalDist().inv_cdf((1 + LEVEL) / 2), k - 1
    t = z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
    t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    return t / z * math.sqrt(k / v)
