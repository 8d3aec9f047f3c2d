"""How many windows count as one, where windows that follow each other go together. Pure.

What makes questions hard lasts: a storm, a night, a campaign. The mean over n such windows varies as that over n / t independent
ones, t = 1 + 2 times the sum of the autocorrelations. Two estimates of t are made, and the larger counts: Geyer's initial
monotone sequence (1992, Practical Markov chain Monte Carlo), which takes any course, and that of an autoregression of first order
with Kendall's correction (1954) for few windows, where sums over many lags are too small.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEAST = 16
_STRONGEST = 0.98


def counted_as_one(values: Sequence[float]) -> float:
    """So many windows in a row say as much as one; at least 1.

    Args:
        values: of windows in their order, at least 2; their level is taken to stay.
    """
    series = np.asarray(values, dtype=np.float64)
    far = series - series.mean()
    covariance = np.correlate(far, far, mode="full")[len(far) - 1 :]
    if not covariance[0] > 0.0:
        return 1.0
    return max(1.0, _monotone(covariance / covariance[0]), _autoregressive(covariance, len(series)))


def _monotone(correlation: Floats) -> float:
    """-1 + 2 times the sum over pairs of neighbouring lags, while positive, none larger than the one before."""
    pairs = correlation[: len(correlation) // 2 * 2].reshape(-1, 2).sum(axis=1)
    ends = np.flatnonzero(pairs <= 0.0)
    kept = pairs[: ends[0]] if len(ends) else pairs
    return float(2.0 * np.minimum.accumulate(kept).sum() - 1.0) if len(kept) else 1.0


def _autoregressive(covariance: Floats, windows: int) -> float:
    first = float(covariance[1] / covariance[0])
    first = min(first + (1.0 + 3.0 * first) / windows, _STRONGEST)
    return (1.0 + first) / (1.0 - first)
