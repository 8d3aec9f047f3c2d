"""Joined examples of known truth."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitors.performance.counting import figures
from monitors.performance.tally import BINS, Tally

Rng = np.random.Generator
Floats = NDArray[np.float64]


def binary(rng: Rng, rows: int, *, a: float = 2.0, b: float = 5.0, shift: float = 0.0) -> tuple[Floats, Floats]:
    """Answers, and labels that come true by `shift` more often than was answered."""
    answers = np.clip(rng.beta(a, b, rows), 0.001, 0.999)
    return answers, (rng.random(rows) < np.clip(answers + shift, 0.0, 1.0)).astype(np.float64)


def binary_tally(rng: Rng, rows: int, **shape: float) -> Tally:
    answers, labels = binary(rng, rows, **shape)
    return figures("binary", answers[:, None], labels, np.ones(rows, dtype=np.int64), {})


def histogram(answers: Floats) -> list[int]:
    found: list[int] = np.bincount(np.minimum((answers * BINS).astype(int), BINS - 1), minlength=BINS).tolist()
    return found


def numbers_tally(rng: Rng, rows: int, *, spread: float = 1.0, outliers: int = 0) -> Tally:
    labels = rng.normal(size=rows)
    answers = labels + spread * rng.normal(size=rows)
    answers[:outliers] = 1e6
    return figures("regression", answers[:, None], labels, np.ones(rows, dtype=np.int64), {})


def classes(rng: Rng, rows: int, *, count: int = 3) -> tuple[Floats, Floats]:
    answers = rng.dirichlet(np.full(count, 0.7), rows)
    labels = (rng.random(rows)[:, None] > np.cumsum(answers, axis=1)).sum(1).clip(0, count - 1)
    return answers, labels.astype(np.float64)


def rows_of(task: Any, rng: Rng, rows: int) -> tuple[Floats, Floats]:
    if task == "binary":
        answers, labels = binary(rng, rows)
        return answers[:, None], labels
    if task == "multiclass":
        return classes(rng, rows)
    return rng.normal(size=(rows, 1)) * 10.0 ** rng.integers(-20, 14, size=(rows, 1)), rng.normal(size=rows)
