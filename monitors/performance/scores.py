"""Figures of a window by name, for history and page: of the model, and of two baselines that add up.

A tally knows no order of rows, so *no change* means from window to window here: it forecasts the frequencies of the
window before (for numbers its mean). *Majority* forecasts those of what is usual. Both need sums only.
"""

import math

import numpy as np
from numpy.typing import NDArray

from monitors.performance.calibration import calibration_error
from monitors.performance.estimate import Estimate
from monitors.performance.exact import as_float
from monitors.performance.tally import Tally

BASELINES = ("no_change", "majority")


def window_scores(now: Tally, before: Tally, past: Tally) -> dict[str, float]:
    """The figures of a window of joined examples; empty without rows.

    Args:
        now: the window.
        before: the window before: what no change forecasts from. Empty: it forecasts nothing and is absent.
        past: what is usual, without the window: the same for majority.

    Returns:
        For classes `log_loss` (nats), `accuracy`, `ece`; for numbers `mse`, `rmse`, `mae`; beside them
        `no_change_…` and `majority_…` of log loss and accuracy, or of mse and rmse; and `labelled_rows`.
    """
    rows = now.losses.rows
    if not rows:
        return {}
    known = [(name, tally) for name, tally in zip(BASELINES, (before, past), strict=True) if tally.losses.rows]
    found = {"labelled_rows": float(rows)}
    if now.task == "regression":
        found |= {"mae": as_float(now.absolute) / rows} | _squared("", now.losses.mean)
        for name, tally in known:
            found |= _squared(f"{name}_", _around(now, as_float(tally.label_sums[0]) / tally.losses.rows))
        return found
    found |= {"log_loss": now.losses.mean, "accuracy": now.losses.correct / rows, "ece": calibration_error(now)}
    for name, tally in known:
        if len(tally.labels) == len(now.labels):
            loss, accuracy = _frequencies(now, np.array(tally.labels, dtype=np.float64))
            found |= {f"{name}_log_loss": loss, f"{name}_accuracy": accuracy}
    return found


def estimated_scores(estimate: Estimate) -> dict[str, float]:
    """`estimated_log_loss`, `estimated_accuracy`, `estimated_roc_auc`, and with `_error` their standard errors."""
    found: dict[str, float] = {}
    for name in ("log_loss", "accuracy", "roc_auc"):
        figure = getattr(estimate, name)
        if figure is not None:
            found |= {f"estimated_{name}": figure.value, f"estimated_{name}_error": figure.error}
    return found


def _frequencies(now: Tally, counts: NDArray[np.float64]) -> tuple[float, float]:
    """Log loss and accuracy of who forecasts these frequencies, one added to each class (Laplace)."""
    chances = (counts + 1.0) / (counts.sum() + len(counts))
    shares = np.array(now.labels) / now.losses.rows
    return float(-shares @ np.log(chances)), float(shares[chances.argmax()])


def _around(now: Tally, forecast: float) -> float:
    """Mean squared error of one number for all rows, from the sums of the labels and of their squares."""
    rows = now.losses.rows
    mean = as_float(now.label_sums[0]) / rows
    variance = as_float(now.label_sums[1]) / rows - mean**2
    return max(variance, 0.0) + (mean - forecast) ** 2


def _squared(prefix: str, mse: float) -> dict[str, float]:
    return {f"{prefix}mse": mse, f"{prefix}rmse": math.sqrt(mse)}
