"""Scores of the newest rows and sums over all: of a model and, beside it, of the two baselines."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stream_trainer.contract import Task
from stream_trainer.evaluation.baselines import Floats, class_forecasts, last_label, number_forecasts
from stream_trainer.evaluation.calibration import Bin, calibration_error, reliability, roc_auc
from stream_trainer.evaluation.segments import Codes

WINDOW = 5_000
FORECASTERS = ("model", "no_change", "majority")
_FLOOR = 1e-7
# Squares of larger numbers would leave float32, and one of them would outweigh every running sum.
LARGEST = 1e15
# Columns of a row: (loss, hit) or (squared, absolute error) of each forecaster; the probability whose calibration
# is judged (of true, or of the likeliest class); the label.
_COLUMNS, _SHOWN, _LABEL = 8, 6, 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """A pure value, stored with the version.

    Attributes:
        task: what kind of label.
        rows: float32 `[n ≤ WINDOW, 8]`, oldest first.
        codes: int16 `[n, segments]`, see `Segments`.
        sums: float64 `[8]`, column sums since the first row.
        seen: rows since the first.
    """

    task: Task
    rows: NDArray[np.float32]
    codes: Codes
    sums: Floats
    seen: int

    @classmethod
    def fresh(cls, task: Task, segments: int) -> "Scores":
        """Before any row."""
        return cls(
            task=task,
            rows=np.zeros((0, _COLUMNS), dtype=np.float32),
            codes=np.zeros((0, segments), dtype=np.int16),
            sums=np.zeros(_COLUMNS),
            seen=0,
        )

    def add(self, columns: Floats, codes: Codes) -> "Scores":
        """With a block of scored rows: `columns` as `score_rows` gives them."""
        return replace(
            self,
            rows=np.concatenate([self.rows, columns.astype(np.float32)])[-WINDOW:],
            codes=np.concatenate([self.codes, codes])[-WINDOW:],
            sums=self.sums + columns.sum(0),
            seen=self.seen + len(columns),
        )

    def metrics(self) -> dict[str, Any]:
        """Plain values: over the window, and under `since_start` over everything.

        Binary and classes: `log_loss`, `accuracy`, `ece`, for binary also `roc_auc` (null while only one class was
        seen). Numbers: `mse`, `mae`, `rmse`. The baselines stand under `no_change` and `majority`.
        """
        found = self.over(np.ones(len(self.rows), dtype=np.bool_))
        whole = self._summary(self.sums / max(self.seen, 1))
        found["since_start"] = {"rows": self.seen, **whole.pop("model"), **whole}
        return found

    def over(self, chosen: NDArray[np.bool_]) -> dict[str, Any]:
        """The same over some rows of the window, without `since_start`."""
        rows = self.rows[chosen].astype(np.float64)
        summary = self._summary(rows.mean(0) if len(rows) else np.zeros(_COLUMNS))
        found: dict[str, Any] = {"rows": len(rows), **summary.pop("model"), **summary}
        if self.task != "regression":
            found["ece"] = calibration_error(*self._judged(rows))
        if self.task == "binary":
            found["roc_auc"] = roc_auc(*self._judged(rows))
        return found

    def reliability(self) -> list[Bin]:
        """The window's reliability diagram; empty for numbers."""
        return [] if self.task == "regression" else reliability(*self._judged(self.rows.astype(np.float64)))

    def _judged(self, rows: Floats) -> tuple[Floats, Floats]:
        """The probability of true and whether it was true; of classes the likeliest one's and whether it was that."""
        return rows[:, _SHOWN], rows[:, _LABEL] if self.task == "binary" else rows[:, 1]

    def _summary(self, means: Floats) -> dict[str, dict[str, float]]:
        first, second = ("mse", "mae") if self.task == "regression" else ("log_loss", "accuracy")
        found = {
            name: {first: float(means[2 * i]), second: float(means[2 * i + 1])} for i, name in enumerate(FORECASTERS)
        }
        if self.task == "regression":
            for scores in found.values():
                scores["rmse"] = float(np.sqrt(scores["mse"]))
        return found

    def tensors(self) -> dict[str, Tensor]:
        """The value as named tensors."""
        parts = {"rows": self.rows, "codes": self.codes, "sums": self.sums, "seen": np.array([float(self.seen)])}
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in parts.items()}

    @classmethod
    def from_tensors(cls, task: Task, tensors: Mapping[str, Tensor]) -> "Scores":
        """The inverse of `tensors`."""
        rows, codes, sums, seen = (tensors[name].numpy() for name in ("rows", "codes", "sums", "seen"))
        return cls(task=task, rows=rows, codes=codes, sums=sums, seen=int(seen[0]))


def score_rows(task: Task, outputs: NDArray[Any], labels: Floats, known: Floats) -> Floats:
    """Score forecasts: `[rows, 8]`, see `Scores.rows`.

    Args:
        task: what kind of label.
        outputs: as a learner predicts them.
        labels: `[rows]`.
        known: what the baselines knew at each row, `[rows, width]`, see `baselines`.
    """
    return (_numbers if task == "regression" else _classes)(outputs, labels, known)


def bounded_labels(task: Task, labels: Tensor) -> Floats:
    """Labels as they are scored and remembered."""
    y: Floats = labels.numpy()
    return np.clip(y, -LARGEST, LARGEST) if task == "regression" else y


def _classes(outputs: NDArray[Any], y: Floats, known: Floats) -> Floats:
    truth = y.astype(np.int64)
    binary = outputs.ndim == 1
    model = np.column_stack([1.0 - outputs, outputs]) if binary else outputs
    columns: list[Floats] = []
    for forecast in (model, *class_forecasts(known)):
        likelihood = np.clip(forecast[np.arange(len(y)), truth], _FLOOR, 1.0)
        columns += [-np.log(likelihood), (forecast.argmax(1) == truth).astype(np.float64)]
    # The no-change forecaster's hit is whether nothing changed, however unlikely it takes that to be.
    columns[3] = (y == last_label(known)).astype(np.float64)
    shown = outputs if binary else outputs.max(axis=1, initial=0.0)
    return np.column_stack([*columns, shown.astype(np.float64), y])


def _numbers(outputs: NDArray[Any], y: Floats, known: Floats) -> Floats:
    columns: list[Floats] = []
    for forecast in (outputs.astype(np.float64), *number_forecasts(known)):
        error = np.minimum(np.abs(forecast - y), LARGEST)
        columns += [error**2, error]
    return np.column_stack([*columns, np.zeros(len(y)), y])
