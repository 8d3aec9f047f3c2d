"""Small streams and specs for the tests of the learner for tables."""

from typing import Any

import torch
from torch import Generator, Tensor

from stream_trainer.contract import Task
from stream_trainer.features import FeatureSpec
from stream_trainer.learner import Batch, LearnReport, State
from stream_trainer.learners.tabular import Tabular


def spec_of(width: int = 4, task: Task = "binary", classes: int = 2) -> FeatureSpec:
    """Numeric columns only."""
    columns = tuple(f"x{i}" for i in range(width))
    outputs = classes if task == "multiclass" else 1
    return FeatureSpec(columns=columns, scaled=(True,) * width, task=task, outputs=outputs)


def rows_of(spec: FeatureSpec, rows: int, seed: int = 0) -> Batch:
    """The label depends on the first column: its sign, its rank or its value."""
    features = torch.randn(rows, spec.width, generator=Generator().manual_seed(seed), dtype=torch.float64)
    first = features[:, 0]
    match spec.task:
        case "binary":
            labels = (first > 0).double()
        case "multiclass":
            labels = (first.erf().add(1.0).mul(spec.outputs / 2.0)).floor().clamp(0, spec.outputs - 1)
        case "regression":
            labels = 100.0 + 10.0 * first
    return Batch(features=features, labels=labels)


def blocks(batch: Batch, size: int) -> list[Batch]:
    """The rows as blocks of one size; the last may be smaller."""
    starts = range(0, batch.rows, size)
    return [Batch(features=batch.features[i : i + size], labels=batch.labels[i : i + size]) for i in starts]


def prequential(learner: Tabular, state: State, batches: list[Batch]) -> tuple[State, Tensor, LearnReport]:
    """Each block forecast, then learned: the last state, all outputs, the last report."""
    outputs: list[Tensor] = []
    report: Any = None
    for batch in batches:
        outputs.append(learner.predict(state, batch.features))
        state, report = learner.learn(state, batch)
        assert report.finite
        assert_finite(state)
    found = torch.cat(outputs)
    assert bool(torch.isfinite(found).all())
    return state, found, report


def assert_finite(state: State) -> None:
    for name, tensor in {**state.serving, **state.training}.items():
        assert bool(torch.isfinite(tensor).all()), name


def same(one: State, other: State) -> bool:
    """Whether two states are the same, bit for bit."""
    pairs = ((one.serving, other.serving), (one.training, other.training))
    return all(
        a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a) for a, b in pairs
    )
