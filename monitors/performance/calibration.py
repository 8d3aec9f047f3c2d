"""What the answers of the newest joined examples were worth: a map from a probability that was answered to a frequency."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitors.performance.counting import COST_UNIT
from monitors.performance.tally import BINS, CALIBRATION_BINS, Tally

Floats = NDArray[np.float64]
# Each bin believes the answers themselves as if they had been right on so many rows.
PRIOR_ROWS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationMap:
    """Per bin of `tally.BINS`, all float64 `[100]` but `block`.

    Attributes:
        chance: that it comes true; never falls from bin to bin.
        variance: of `chance`; bins of one `block` (int64) share one estimate, so their errors are one.
        cost_hit, cost_miss: log loss in nats if it comes true, and if not.
        rows: joined examples a bin.
    """

    chance: Floats
    variance: Floats
    block: NDArray[np.int64]
    cost_hit: Floats
    cost_miss: Floats
    rows: Floats

    def error(self, gradient: Floats) -> float:
        """Standard error of `sum(gradient * chance)` that comes from the map, gradient `[100]`."""
        blocks = np.bincount(self.block, weights=gradient)
        return math.sqrt(float(blocks**2 @ self.variance[np.unique(self.block, return_index=True)[1]]))


def calibration_map(past: Tally) -> CalibrationMap:
    """The map of joined examples of classes: frequencies shrunk to the answers themselves, then made monotone.

    Pool adjacent violators (Ayer et al. 1955; Zadrozny and Elkan 2002 for calibration). An empty bin is the answer itself.

    Raises:
        ValueError: the examples are of numbers.
    """
    if past.task == "regression":
        raise ValueError("numbers have no calibration map")
    rows, hits, cost_hit, cost_miss = _columns(past)
    middles = (np.arange(BINS) + 0.5) / BINS
    weights = rows + PRIOR_ROWS
    chance, block = _monotone((hits + PRIOR_ROWS * middles) / weights, weights)
    pooled = np.bincount(block, weights=weights)[block]
    others = max(len(past.labels) - 1, 1)
    missed = rows if past.task == "binary" else rows - hits
    return CalibrationMap(
        chance=chance,
        variance=chance * (1.0 - chance) / pooled,
        block=block,
        cost_hit=(cost_hit - np.log(middles)) / (rows + 1.0),
        cost_miss=(cost_miss - np.log((1.0 - middles) / others)) / (missed + 1.0),
        rows=rows,
    )


def calibration_error(tally: Tally) -> float:
    """Expected calibration error over 20 bins of equal width (Naeini et al. 2015), answers taken to the middle of 1/100."""
    rows, hits, _, _ = _columns(tally)
    gaps = rows * (np.arange(BINS) + 0.5) / BINS - hits
    coarse = gaps.reshape(CALIBRATION_BINS, -1).sum(1)
    return float(np.abs(coarse).sum() / max(rows.sum(), 1.0))


def _columns(tally: Tally) -> tuple[Floats, Floats, Floats, Floats]:
    bins = tally.bins
    rows, hits, hit, miss = (
        np.array(column or [0] * BINS, dtype=np.float64)
        for column in (bins.rows, bins.hits, bins.cost_hit, bins.cost_miss)
    )
    return rows, hits, hit * COST_UNIT, miss * COST_UNIT


def _monotone(values: Floats, weights: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Weighted isotonic regression `[bins]`, and the block of each."""
    means: list[float] = []
    sums: list[float] = []
    counts: list[int] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        means.append(value)
        sums.append(weight)
        counts.append(1)
        while len(means) > 1 and means[-2] >= means[-1]:
            mean, total, count = means.pop(), sums.pop(), counts.pop()
            means[-1] = (means[-1] * sums[-1] + mean * total) / (sums[-1] + total)
            sums[-1] += total
            counts[-1] += count
    block = np.repeat(np.arange(len(means)), counts)
    return np.array(means)[block], block
