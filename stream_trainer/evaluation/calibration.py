"""Two figures that need the whole window: the area under the ROC curve, and the expected calibration error."""

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


def calibration_error(forecast: Floats, outcome: Floats) -> float:
    """Expected calibration error over 15 bins of equal width (Naeini et al. 2015; Guo et al. 2017); 0 without rows.

    Args:
        forecast: probabilities in [0, 1], `[rows]`.
        outcome: 1 where what was forecast came true, else 0.
    """
    if not len(forecast):
        return 0.0
    place = np.minimum((forecast * _BINS).astype(np.int64), _BINS - 1)
    gaps = np.bincount(place, weights=forecast - outcome, minlength=_BINS)
    return float(np.abs(gaps).sum() / len(forecast))
