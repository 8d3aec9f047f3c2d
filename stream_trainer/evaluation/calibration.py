"""What needs the whole window: the area under the ROC curve, and how far forecasts are from the frequencies they claim."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_BINS = 15


def roc_auc(forecast: Floats, label: Floats, weight: Floats | None = None) -> float | None:
    """Area under the ROC curve: the share of pairs in the right order (Mann-Whitney), a pair counts its rows' weights' product.

    None when one class is missing.
    """
    _, place = np.unique(forecast, return_inverse=True)
    count = np.ones(len(label)) if weight is None else weight
    positive, negative = (np.bincount(place, weights=count * of) for of in (label, 1.0 - label))
    pairs = positive.sum() * negative.sum()
    if not pairs:
        return None
    below = np.cumsum(negative) - negative / 2.0
    return float(positive @ below / pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Forecasts in `[low, high)`, the last bin with 1: how many, their mean, and how often what they forecast came true.

    `weight` is what the rows count together; mean and frequency are weighted.
    """

    low: float
    high: float
    rows: int
    weight: float
    forecast: float
    frequency: float


def reliability(forecast: Floats, outcome: Floats, weight: Floats | None = None) -> list[Bin]:
    """The bins of `calibration_error` that hold rows, ascending: what a reliability diagram shows (DeGroot and Fienberg 1983)."""
    place, count = _places(forecast), np.ones(len(forecast)) if weight is None else weight
    rows = np.bincount(place, minlength=_BINS)
    sums = [
        np.bincount(place, weights=values, minlength=_BINS) for values in (forecast * count, outcome * count, count)
    ]
    return [
        Bin(
            low=i / _BINS,
            high=(i + 1) / _BINS,
            rows=int(rows[i]),
            weight=float(sums[2][i]),
            forecast=float(sums[0][i] / sums[2][i]),
            frequency=float(sums[1][i] / sums[2][i]),
        )
        for i in np.flatnonzero(sums[2]).tolist()
    ]


def calibration_error(forecast: Floats, outcome: Floats, weight: Floats | None = None) -> float:
    """Expected calibration error over 15 bins of equal width (Naeini et al. 2015; Guo et al. 2017); 0 without rows.

    Args:
        forecast: probabilities in [0, 1], `[rows]`.
        outcome: 1 where what was forecast came true, else 0.
        weight: how much each row counts; None when all count 1.
    """
    count = np.ones(len(forecast)) if weight is None else weight
    total = count.sum()
    if not total:
        return 0.0
    gaps = np.bincount(_places(forecast), weights=(forecast - outcome) * count, minlength=_BINS)
    return float(np.abs(gaps).sum() / total)


def _places(forecast: Floats) -> NDArray[np.int64]:
    return np.minimum((forecast * _BINS).astype(np.int64), _BINS - 1)
