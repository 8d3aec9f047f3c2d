"""What a forecast is worth, the same for every learner: hits and log loss, or absolute and squared error."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.bench.learning.stream import Floats, Task

# Who says "never" and is wrong pays ln(1000): trees say it often, and a lower floor would rank them by that alone.
CLIP = 1e-3
LARGEST = 1e15
# Scores are kept as sums over so many rows of time.
CHUNK = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Of a block.

    Attributes:
        values: `[rows, classes]` probabilities, or `[rows]` numbers.
        classes: the forecast class of each row; None takes the most probable one.
    """

    values: Floats
    classes: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Of each row: hit (0 or 1) and log loss, or absolute and squared error.

    Attributes:
        positive: the forecast probability of class 1, binary only; else 0.
        broken: rows whose forecast was not finite; they count as a uniform one, or 0.
    """

    first: Floats
    second: Floats
    positive: Floats
    broken: int


def uniform(task: Task, outputs: int, rows: int) -> Forecast:
    """The forecast of all before anything was learned."""
    return Forecast(values=np.zeros(rows) if task == "regression" else np.full((rows, outputs), 1.0 / outputs))


def clipped(probabilities: Floats) -> Floats:
    """Each at least `CLIP`, each row's sum 1; a row that sums to 0 is uniform."""
    outputs = probabilities.shape[1]
    total = probabilities.sum(1, keepdims=True)
    shares = np.where(total > 0.0, probabilities / np.where(total > 0.0, total, 1.0), 1.0 / outputs)
    floored = np.maximum(shares, CLIP)
    found: Floats = floored / floored.sum(1, keepdims=True)
    return found


def score(task: Task, forecast: Forecast, y: Floats) -> Scores:
    """A block's rows, each by itself."""
    if task == "regression":
        return _numbers(forecast.values, y)
    finite = np.all(np.isfinite(forecast.values) & (forecast.values >= 0.0), axis=1)
    shares = clipped(np.where(finite[:, None], forecast.values, 0.0))
    truth = y.astype(np.int64)
    classes = shares.argmax(1) if forecast.classes is None else forecast.classes
    return Scores(
        first=(classes == truth).astype(np.float64),
        second=-np.log(shares[np.arange(len(y)), truth]),
        positive=shares[:, 1] if task == "binary" else np.zeros(len(y)),
        broken=int((~finite).sum()),
    )


def _numbers(values: Floats, y: Floats) -> Scores:
    finite = np.isfinite(values)
    error = np.minimum(np.abs(np.where(finite, values, 0.0) - y), LARGEST)
    return Scores(first=error, second=error**2, positive=np.zeros(len(y)), broken=int((~finite).sum()))


def chunk_sums(values: Floats) -> list[float]:
    """Sums over `CHUNK` rows each, the last of what is left."""
    if not len(values):
        return []
    return [float(v) for v in np.add.reduceat(values, np.arange(0, len(values), CHUNK))]


def roc_auc(forecast: Floats, label: Floats) -> float | None:
    """Area under the ROC curve by average ranks; None when one class is missing."""
    positive = int(label.sum())
    negative = len(label) - positive
    if not positive or not negative:
        return None
    _, place, counts = np.unique(forecast, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[place]
    return float((ranks[label == 1].sum() - positive * (positive + 1) / 2.0) / (positive * negative))
