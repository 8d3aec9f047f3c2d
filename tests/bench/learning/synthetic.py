"""Streams of our own where River has no generator: rare positives, many features, moving classes, heavy tails.

Everything comes from the seed. Each changes once abruptly at half of its rows, or all the time.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from tests.bench.learning.stream import Column, Floats, Stream, Task

RARE = 0.015


def imbalanced(rows: int, rng: Generator) -> tuple[Task, Floats, Floats]:
    """12 numbers, 1.5 % positives: the tail of a curved score; half of its directions turn at half."""
    x = rng.normal(size=(rows, 12))
    early, late = (_directions(rng, 12) for _ in range(2))
    late = np.where(np.arange(12) < 6, early, late)
    weights = np.where((np.arange(rows) < rows // 2)[:, None], early, late)
    score = (x * weights).sum(1) + 0.7 * x[:, 0] * x[:, 1] + 0.4 * rng.normal(size=rows)
    return "binary", x, (score > np.quantile(score, 1.0 - RARE)).astype(np.float64)


def wide(rows: int, rng: Generator) -> tuple[Task, Floats, Floats]:
    """200 numbers of which 12 matter, in pairs too; four of them are others after half."""
    x = rng.normal(size=(rows, 200))
    matter = rng.permutation(200)[:16]
    signs = rng.choice((-1.0, 1.0), size=12)
    early, late = x[:, matter[:12]], x[:, matter[4:]]
    seen = np.where((np.arange(rows) < rows // 2)[:, None], early, late)
    score = seen @ signs + 1.5 * seen[:, 0] * seen[:, 1] + rng.normal(size=rows)
    return "binary", x, (score > 0.0).astype(np.float64)


def moving_classes(rows: int, rng: Generator) -> tuple[Task, Floats, Floats]:
    """6 classes of 3 clusters each in 16 dimensions; the clusters wander, two classes fade in only after half."""
    clusters, width = 18, 16
    centres = rng.normal(size=(clusters, width)) * 1.2
    drift = rng.normal(size=(clusters, width)) * 1.2
    when = np.linspace(0.0, 1.0, rows)
    late = np.isin(np.arange(clusters) % 6, (4, 5))
    weight = np.where(late, np.clip((when - 0.5) * 4.0, 0.02, 1.0)[:, None], 1.0)
    bounds = np.cumsum(weight / weight.sum(1, keepdims=True), axis=1)
    cluster = np.minimum((rng.random(rows)[:, None] > bounds).sum(1), clusters - 1)
    x = centres[cluster] + drift[cluster] * when[:, None] + rng.normal(size=(rows, width))
    return "multiclass", x, (cluster % 6).astype(np.float64)


def heavy_tail(rows: int, rng: Generator) -> tuple[Task, Floats, Floats]:
    """A curved function of 4 of 8 numbers with Student noise of 2.5 degrees of freedom; it turns at half."""
    x = rng.normal(size=(rows, 8))
    turned = np.where(np.arange(rows) < rows // 2, 1.0, -1.0)
    truth = 3.0 * x[:, 0] * turned + 2.0 * x[:, 1] * x[:, 2] + 4.0 * np.sin(2.0 * x[:, 3])
    return "regression", x, 10.0 + truth + 1.5 * rng.standard_t(2.5, size=rows)


MAKERS: dict[str, Callable[[int, Generator], tuple[Task, Floats, Floats]]] = {
    "imbalanced": imbalanced,
    "wide": wide,
    "moving-classes": moving_classes,
    "heavy-tail": heavy_tail,
}


def make(name: str, rows: int, seed: int) -> Stream:
    """So many rows of the stream `name`."""
    task, x, y = MAKERS[name](rows, np.random.default_rng([seed, *name.encode()]))
    classes = () if task == "regression" else tuple(str(code) for code in range(int(y.max()) + 1))
    columns = tuple(Column(name=f"x_{at}") for at in range(x.shape[1]))
    return Stream(name=name, origin="generator", task=task, columns=columns, classes=classes, x=x, y=y)


def _directions(rng: Generator, width: int) -> Floats:
    found = rng.normal(size=width)
    return np.asarray(found / np.linalg.norm(found) * 2.0)
