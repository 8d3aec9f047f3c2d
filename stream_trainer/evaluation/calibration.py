"""What needs the whole window: the area under the ROC curve, and how far forecasts are from the frequencies they claim."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_BINS = 15


def roc_auc(forecast: Floats, label: Floats) -> float | None:
    """Area under the ROC curve by average ranks (Mann-Whitney); None when one class is missing."""
    positive = int(label.sum())
    negative = len(label) - positive
    if not positive or not negative:
        return None
    values, place, counts = np.unique(forecast, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2.0)[place] if len(values) else place
    return float((ranks[label == 1].sum() - positive * (positive + 1) / 2.0) / (positive * negative))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Forecasts in `[low, high)`, the last bin with 1: how many, their mean, and how often what they forecast came true."""

    low: float
    high: float
    rows: int
    forecast: float
    frequency: float


def reliability(forecast: Floats, outcome: Floats) -> list[Bin]:
    """The bins of `calibration_error` that hold rows, ascending: what a reliability diagram shows (DeGroot and Fienberg 1983)."""
    place = _places(forecast)
    rows = np.bincount(place, minlength=_BINS)
    sums = [np.bincount(place, weights=values, minlength=_BINS) for values in (forecast, outcome)]
    return [
        Bin(
            low=i / _BINS,
            high=(i + 1) / _BINS,
            rows=int(rows[i]),
            forecast=float(sums[0][i] / rows[i]),
            frequency=float(sums[1][i] / rows[i]),
        )
        for i in np.flatnonzero(rows).tolist()
    ]


def calibration_error(forecast: Floats, outcome: Floats) -> float:
    """Expected calibration error over 15 bins of equal width (Naeini et al. 2015; Guo et al. 2017); 0 without rows.

    Args:
        forecast: probabilities in [0, 1], `[rows]`.
        outcome: 1 where what was forecast came true, else 0.
    """
    if not len(forecast):
        return 0.0
    gaps = np.bincount(_places(forecast), weights=forecast - outcome, minlength=_BINS)
    return float(np.abs(gaps).sum() / len(forecast))


def _places(forecast: Floats) -> NDArray[np.int64]:
    return np.minimum((forecast * _BINS).astype(np.int64), _BINS - 1)
