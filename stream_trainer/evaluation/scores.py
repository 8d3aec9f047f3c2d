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
# Which form scores are kept in; a manifest without it has the first.
SCORING = 2
# Columns of a row: (loss, hit) or (squared, absolute error) of each forecaster; the model's probability whose calibration
# is judged (of true, or of the likeliest class); the label; that probability of both baselines; how much the row counts.
_COLUMNS, _LABEL, _COUNT = 11, 7, 10
_SHOWN = (6, 8, 9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """A pure value, stored with the version.

    Attributes:
        task: what kind of label.
        rows: float32 `[n ≤ WINDOW, 11]`, oldest first.
        codes: int16 `[n, segments]`, see `Segments`.
        sums: float64 `[11]`, since the first row: of each column, every row times its count; last the sum of the counts.
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
            sums=self.sums + _weighted(columns).sum(0),
            seen=self.seen + len(columns),
        )

    def metrics(self) -> dict[str, Any]:
        """Plain values: over the window, and under `since_start` over everything; each row as much as it counts.

        Binary and classes: `log_loss`, `accuracy`, `ece`, for binary also `roc_auc` (null while only one class was
        seen). Numbers: `mse`, `mae`, `rmse`. The baselines stand under `no_change` and `majority`. `rows` is how many.
        """
        found = self.over(np.ones(len(self.rows), dtype=np.bool_))
        whole = self._summary(_means(self.sums))
        found["since_start"] = {"rows": self.seen, **whole.pop("model"), **whole}
        return found

    def over(self, chosen: NDArray[np.bool_]) -> dict[str, Any]:
        """The same over some rows of the window, without `since_start`."""
        rows = self.rows[chosen].astype(np.float64)
        summary: dict[str, dict[str, Any]] = self._summary(_means(_weighted(rows).sum(0)))
        for place, name in enumerate(FORECASTERS):
            if self.task != "regression":
                summary[name]["ece"] = calibration_error(*self._judged(rows, place))
            if self.task == "binary":
                summary[name]["roc_auc"] = roc_auc(*self._judged(rows, place))
        return {"rows": len(rows), **summary.pop("model"), **summary}

    def reliability(self) -> list[Bin]:
        """The window's reliability diagram; empty for numbers."""
        return [] if self.task == "regression" else reliability(*self._judged(self.rows.astype(np.float64), 0))

    def _judged(self, rows: Floats, place: int) -> tuple[Floats, Floats, Floats]:
        """The probability of true and whether it was true; of classes the likeliest one's and whether it was that; the counts."""
        outcome = rows[:, _LABEL] if self.task == "binary" else rows[:, 2 * place + 1]
        return rows[:, _SHOWN[place]], outcome, rows[:, _COUNT]

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


def _weighted(rows: Floats) -> Floats:
    """Each column times the counts, which stay as they are."""
    found = rows * rows[:, _COUNT:]
    found[:, _COUNT] = rows[:, _COUNT]
    return found


def _means(sums: Floats) -> Floats:
    found: Floats = sums / sums[_COUNT] if sums[_COUNT] else np.zeros(_COLUMNS)
    return found


def score_rows(
    task: Task, outputs: NDArray[Any], labels: Floats, known: Floats, counts: Floats | None = None
) -> Floats:
    """Score forecasts: `[rows, 11]`, see `Scores.rows`.

    Args:
        task: what kind of label.
        outputs: as a learner predicts them.
        labels: `[rows]`.
        known: what the baselines knew at each row, `[rows, width]`, see `baselines`.
        counts: how much each row counts, `[rows]`; None when all count once.
    """
    columns = (_numbers if task == "regression" else _classes)(outputs, labels, known)
    return np.column_stack([columns, np.ones(len(labels)) if counts is None else counts])


def bounded_labels(task: Task, labels: Tensor) -> Floats:
    """Labels as they are scored and remembered."""
    y: Floats = labels.numpy()
    return np.clip(y, -LARGEST, LARGEST) if task == "regression" else y


def _classes(outputs: NDArray[Any], y: Floats, known: Floats) -> Floats:
    truth = y.astype(np.int64)
    binary = outputs.ndim == 1
    model = np.column_stack([1.0 - outputs, outputs]) if binary else outputs
    columns: list[Floats] = []
    shown: list[Floats] = []
    for forecast in (model, *class_forecasts(known)):
        likelihood = np.clip(forecast[np.arange(len(y)), truth], _FLOOR, 1.0)
        columns += [-np.log(likelihood), (forecast.argmax(1) == truth).astype(np.float64)]
        shown.append(forecast[:, 1] if binary else forecast.max(axis=1, initial=0.0))
    # The no-change forecaster's hit is whether nothing changed, however unlikely it takes that to be.
    last = last_label(known)
    columns[3] = (y == last).astype(np.float64)
    if not binary:
        shown[1] = class_forecasts(known)[0][np.arange(len(y)), np.nan_to_num(last).astype(np.int64)]
    shown[0] = (outputs if binary else shown[0]).astype(np.float64)
    return np.column_stack([*columns, shown[0], y, *shown[1:]])


def _numbers(outputs: NDArray[Any], y: Floats, known: Floats) -> Floats:
    columns: list[Floats] = []
    for forecast in (outputs.astype(np.float64), *number_forecasts(known)):
        error = np.minimum(np.abs(forecast - y), LARGEST)
        columns += [error**2, error]
    nothing = np.zeros(len(y))
    return np.column_stack([*columns, nothing, y, nothing, nothing])
