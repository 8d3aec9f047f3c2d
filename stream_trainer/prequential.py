"""Test-then-train: each row is forecast with the weights from before its micro-batch, then learned.

Beside the model stand two baselines that know as much as it does: *no-change* forecasts the last label known before
the block, *majority* the most frequent label so far; their probabilities are running frequencies (Laplace).
For numbers they are the last value and the running mean, and the loss is the squared error. Reference: Dawid 1984; Gama,
Sebastião and Rodrigues 2013.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stream_trainer.contract import Task

WINDOW = 5_000
_FLOOR = 1e-7
# Squares of larger numbers would leave float32, and one of them would outweigh every running sum.
_LARGEST = 1e15
_FORECASTERS = ("model", "no_change", "majority")
# Columns of a row: (loss, hit) for each forecaster, then the forecast of "true" and the label (binary only).
_COLUMNS = 8

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prequential:
    """The scores of the last `WINDOW` rows and what the baselines know. A pure value; stored with the version.

    Attributes:
        task: what kind of label.
        rows: float32 `[n ≤ WINDOW, 8]`, oldest first.
        sums: float64 `[8]`, column sums since the first row.
        seen: rows since the first.
        counts: labels seen per class, or (count, sum) of a numeric label.
        agreed: how often a label equalled the last one known before its block, and of how many.
        last: the newest label; NaN before the first.
    """

    task: Task
    rows: NDArray[np.float32]
    sums: Floats
    seen: int
    counts: Floats
    agreed: Floats
    last: float

    @classmethod
    def fresh(cls, task: Task, outputs: int) -> "Prequential":
        """Before any row."""
        classes = outputs if task == "multiclass" else 2
        return cls(
            task=task,
            rows=np.zeros((0, _COLUMNS), dtype=np.float32),
            sums=np.zeros(_COLUMNS),
            seen=0,
            counts=np.zeros(classes),
            agreed=np.zeros(2),
            last=float("nan"),
        )

    def score(self, outputs: Tensor, labels: Tensor) -> "tuple[Prequential, float]":
        """With a block added, and the model's mean loss over the block; itself and 0 for an empty one.

        Args:
            outputs: as a learner predicts them.
            labels: float64 `[rows]`, in log order.
        """
        if not len(labels):
            return self, 0.0
        y = self._labels(labels)
        scores = self._scores(outputs, labels)
        agreed = self.agreed
        if not np.isnan(self.last):
            agreed = agreed + np.array([np.sum(y == self.last), len(y)])
        if self.task == "regression":
            counts = self.counts + np.array([len(y), y.sum()])
        else:
            counts = self.counts + np.bincount(y.astype(np.int64), minlength=len(self.counts))
        after = replace(
            self,
            rows=np.concatenate([self.rows, scores.astype(np.float32)])[-WINDOW:],
            sums=self.sums + scores.sum(0),
            seen=self.seen + len(y),
            counts=counts,
            agreed=agreed,
            last=float(y[-1]),
        )
        return after, float(scores[:, 0].mean())

    def _scores(self, outputs: Tensor, labels: Tensor) -> Floats:
        of_task = self._numbers if self.task == "regression" else self._classes
        return of_task(outputs.numpy(), self._labels(labels))

    def _labels(self, labels: Tensor) -> Floats:
        y: Floats = labels.numpy()
        return np.clip(y, -_LARGEST, _LARGEST) if self.task == "regression" else y

    def _classes(self, outputs: NDArray[Any], y: Floats) -> Floats:
        classes = len(self.counts)
        truth = y.astype(np.int64)
        model = np.column_stack([1.0 - outputs, outputs]) if self.task == "binary" else outputs
        majority = np.tile((self.counts + 1.0) / (self.counts.sum() + classes), (len(y), 1))
        no_change = np.full((len(y), classes), 1.0 / classes)
        if not np.isnan(self.last):
            stay = (self.agreed[0] + 1.0) / (self.agreed[1] + 2.0)
            no_change[:] = (1.0 - stay) / (classes - 1)
            no_change[:, int(self.last)] = stay
        columns: list[Floats] = []
        for forecast in (model, no_change, majority):
            likelihood = np.clip(forecast[np.arange(len(y)), truth], _FLOOR, 1.0)
            columns += [-np.log(likelihood), (forecast.argmax(1) == truth).astype(np.float64)]
        # The no-change forecaster's hit is whether nothing changed, however unlikely it takes that to be.
        columns[3] = (y == self.last).astype(np.float64)
        shown = outputs.astype(np.float64) if self.task == "binary" else np.zeros(len(y))
        return np.column_stack([*columns, shown, y])

    def _numbers(self, outputs: NDArray[Any], y: Floats) -> Floats:
        mean = self.counts[1] / self.counts[0] if self.counts[0] else 0.0
        last = 0.0 if np.isnan(self.last) else self.last
        columns: list[Floats] = []
        for forecast in (outputs.astype(np.float64), np.full(len(y), last), np.full(len(y), mean)):
            error = np.minimum(np.abs(forecast - y), _LARGEST)
            columns += [error**2, error]
        return np.column_stack([*columns, np.zeros(len(y)), y])

    def metrics(self) -> dict[str, Any]:
        """Plain values for the manifest: over the window, and under `since_start` over everything.

        Binary and classes: `log_loss`, `accuracy`, for binary also `roc_auc` (null while only one class was
        seen). Numbers: `mse`, `mae`. The baselines stand under `no_change` and `majority`.
        """
        window = self._summary(self.rows.mean(0, dtype=np.float64) if len(self.rows) else np.zeros(_COLUMNS))
        found: dict[str, Any] = {"rows": len(self.rows), **window.pop("model"), **window}
        if self.task == "binary":
            found["roc_auc"] = roc_auc(self.rows[:, 6].astype(np.float64), self.rows[:, 7].astype(np.float64))
        whole = self._summary(self.sums / max(self.seen, 1))
        found["since_start"] = {"rows": self.seen, **whole.pop("model"), **whole}
        return found

    def _summary(self, means: Floats) -> dict[str, Any]:
        first, second = ("mse", "mae") if self.task == "regression" else ("log_loss", "accuracy")
        return {
            name: {first: float(means[2 * i]), second: float(means[2 * i + 1])} for i, name in enumerate(_FORECASTERS)
        }

    def tensors(self) -> dict[str, Tensor]:
        """The value as named tensors."""
        head = np.array([float(self.seen), self.last])
        parts = {"rows": self.rows, "sums": self.sums, "counts": self.counts, "agreed": self.agreed, "head": head}
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in parts.items()}

    @classmethod
    def from_tensors(cls, task: Task, tensors: Mapping[str, Tensor]) -> "Prequential":
        """The inverse of `tensors`."""
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        seen, last = arrays.pop("head")
        return cls(task=task, seen=int(seen), last=float(last), **arrays)


def uniform(task: Task, outputs: int, rows: int) -> Tensor:
    """The forecast before anything was learned."""
    match task:
        case "binary":
            return torch.full((rows,), 0.5)
        case "multiclass":
            return torch.full((rows, outputs), 1.0 / outputs)
        case "regression":
            return torch.zeros(rows)


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
