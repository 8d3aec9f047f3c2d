"""What forecasters without a model know of the labels, and what they forecast from it.

*No-change* forecasts the last label known, *majority* the most frequent one; their probabilities are running
frequencies (Laplace). For numbers they are the last value and the running mean. What is known is one row of float64,
so that what was known at many versions is a matrix.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_trainer.contract import Task

Floats = NDArray[np.float64]

# Columns of what is known: the newest label (NaN before the first), how often a label equalled the last one known
# before its block and of how many, then the labels seen per class, or the number and sum of a numeric label.
_LAST, _AGREED, _OF, _COUNTS = 0, 1, 2, 3


def nothing_known(task: Task, outputs: int) -> Floats:
    """Before any label: `[3 + classes]`, for numbers `[5]`."""
    known = np.zeros(_COUNTS + (outputs if task == "multiclass" else 2))
    known[_LAST] = np.nan
    return known


def known_after(task: Task, known: Floats, labels: Floats, weights: Floats) -> Floats:
    """What is known after a block of labels, `[rows]`, in log order, that count `weights`, `[rows]`; itself after an empty one."""
    if not len(labels):
        return known
    after = known.copy()
    if not np.isnan(known[_LAST]):
        after[_AGREED] += np.sum((labels == known[_LAST]) * weights)
        after[_OF] += weights.sum()
    if task == "regression":
        after[_COUNTS:] += (weights.sum(), (labels * weights).sum())
    else:
        after[_COUNTS:] += np.bincount(labels.astype(np.int64), weights=weights, minlength=len(known) - _COUNTS)
    after[_LAST] = labels[-1]
    return after


def last_label(known: Floats) -> Any:
    """The newest label known: a number, or `[rows]` of them; NaN where there is none."""
    return known[..., _LAST]


def class_forecasts(known: Floats) -> tuple[Floats, Floats]:
    """No-change and majority, each `[rows, classes]`, from what is known at each row `[rows, 3 + classes]`."""
    counts = known[:, _COUNTS:]
    classes = counts.shape[1]
    majority = (counts + 1.0) / (counts.sum(1, keepdims=True) + classes)
    no_change = np.full(counts.shape, 1.0 / classes)
    some = np.flatnonzero(~np.isnan(known[:, _LAST]))
    stay = (known[some, _AGREED] + 1.0) / (known[some, _OF] + 2.0)
    no_change[some] = ((1.0 - stay) / (classes - 1))[:, None]
    no_change[some, known[some, _LAST].astype(np.int64)] = stay
    return no_change, majority


def number_forecasts(known: Floats) -> tuple[Floats, Floats]:
    """The last value and the mean, each `[rows]`; 0 before the first label."""
    rows, total = known[:, _COUNTS], known[:, _COUNTS + 1]
    return np.nan_to_num(known[:, _LAST], nan=0.0), np.divide(total, rows, out=np.zeros(len(known)), where=rows > 0)


class Memory:
    """What was known at versions: float64 `[versions, 1 + width]`, the version first, ascending; a pure value.

    Bounded: when full, every second of the older half is let go. Whoever asks for one that was let go gets the next
    newer one, so a baseline knows rather too much than too little.
    """

    __slots__ = ("rows",)
    MOST = 256

    def __init__(self, rows: Floats) -> None:
        self.rows = rows

    @classmethod
    def empty(cls, width: int) -> "Memory":
        """Of nothing."""
        return cls(np.zeros((0, 1 + width)))

    def remember(self, version: int, known: Floats) -> "Memory":
        """With one more version; itself when it is not newer than what is there."""
        rows = self.rows
        if len(rows) and rows[-1, 0] >= version:
            return self
        if len(rows) >= self.MOST:
            half = len(rows) // 2
            rows = np.concatenate([rows[:half:2], rows[half:]])
        return Memory(np.concatenate([rows, np.concatenate([[float(version)], known])[None]]))

    def at(self, versions: NDArray[np.int64], now: Floats) -> Floats:
        """What was known at each of `versions`: `[rows, width]`; `now` for those newer than all that is remembered."""
        table = np.concatenate([self.rows[:, 1:], now[None]])
        found: Floats = table[np.searchsorted(self.rows[:, 0], versions)]
        return found
