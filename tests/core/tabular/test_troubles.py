"""What streams do to a learner: outliers, gaps, imbalance, blocks of any size. Nothing may become NaN or infinite."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stream_trainer.contract import Task
from stream_trainer.features import FeatureSpec
from stream_trainer.learner import Batch
from stream_trainer.learners.tabular import Passes, Tabular
from tests.core.tabular.streams import assert_finite, blocks, prequential, rows_of, spec_of

KINDS: list[tuple[Task, int]] = [("binary", 2), ("multiclass", 3), ("regression", 1)]


def hostile(spec: FeatureSpec, what: str, rows: int = 600) -> Batch:
    batch = rows_of(spec, rows)
    features, labels = batch.features.clone(), batch.labels.clone()
    TROUBLES[what](features, labels)
    return Batch(features=features, labels=labels)


def constant(features: Tensor, labels: Tensor) -> None:
    features[:, 1] = 5.0


def vanishes(features: Tensor, labels: Tensor) -> None:
    features[len(features) // 2 :, 0] = torch.nan


def missing(features: Tensor, labels: Tensor) -> None:
    features[:, 1] = torch.nan


def outliers(features: Tensor, labels: Tensor) -> None:
    features[::50, 0] = 1e15
    features[7::50, 1] = -1e6


def largest(features: Tensor, labels: Tensor) -> None:
    features[::3, 0] = 3.4e38


def wakes(features: Tensor, labels: Tensor) -> None:
    features[: len(features) // 2, 1] = 0.0


def one_class(features: Tensor, labels: Tensor) -> None:
    labels[:] = labels[0]


def new_class(features: Tensor, labels: Tensor) -> None:
    labels[: len(labels) // 2] = labels[0]


def rare(features: Tensor, labels: Tensor) -> None:
    labels[:] = labels.min()
    labels[::97] = labels.max()


def wild_labels(features: Tensor, labels: Tensor) -> None:
    """Numbers only: a class is always one of the contract's."""
    if labels.max() > 2:
        labels[::100] = 1e15
        labels[5::100] = -3e38


TROUBLES: dict[str, Callable[[Tensor, Tensor], None]] = {
    "constant": constant,
    "vanishes": vanishes,
    "missing": missing,
    "outliers": outliers,
    "largest": largest,
    "wakes": wakes,
    "one class": one_class,
    "new class": new_class,
    "rare": rare,
    "wild labels": wild_labels,
}


@pytest.mark.parametrize("what", TROUBLES)
@pytest.mark.parametrize(("task", "classes"), KINDS)
def test_whatever_comes_stays_finite(task: Task, classes: int, what: str) -> None:
    spec = spec_of(task=task, classes=classes)
    learner = Tabular()
    state, _, _ = prequential(learner, learner.init(spec, 0), blocks(hostile(spec, what), 60))
    assert bool(torch.isfinite(learner.answer(state, rows_of(spec, 5).features)).all())


def test_outliers_in_a_column_do_not_hide_it() -> None:
    spec = spec_of()
    learner, batch = Tabular(), hostile(spec, "outliers", 2_000)
    _, outputs, _ = prequential(learner, learner.init(spec, 0), blocks(batch, 100))
    assert float(((outputs > 0.5).double() == batch.labels)[1_000:].double().mean()) > 0.9


def test_wild_labels_do_not_spoil_the_others() -> None:
    spec = spec_of(task="regression")
    learner, batch = Tabular(), hostile(spec, "wild labels", 2_000)
    _, outputs, _ = prequential(learner, learner.init(spec, 0), blocks(batch, 100))
    tame = (batch.labels.abs() < 1e6)[1_000:]
    error = (outputs - batch.labels)[1_000:][tame].abs().median()
    assert float(error) < float(batch.labels[batch.labels.abs() < 1e6].std())


@pytest.mark.parametrize("rows", [1, 2, 3, 15, 16, 17])
def test_blocks_may_be_smaller_than_a_step(rows: int) -> None:
    spec = spec_of()
    learner, batch = Tabular(), rows_of(spec, 40 * rows)
    prequential(learner, learner.init(spec, 0), blocks(batch, rows))


def test_a_block_may_be_large() -> None:
    spec = spec_of()
    learner = Tabular(passes=Passes(count=1))
    state, _, report = prequential(learner, learner.init(spec, 0), [rows_of(spec, 10_000), rows_of(spec, 100, 1)])
    assert report.rows == 100
    assert len(state.serving["recent.rows"]) == 1_000


@pytest.mark.parametrize("width", [1, 200])
def test_rows_may_be_narrow_or_wide(width: int) -> None:
    spec = spec_of(width)
    learner, batch = Tabular(), rows_of(spec_of(width), 800)
    _, outputs, _ = prequential(learner, learner.init(spec, 0), blocks(batch, 100))
    assert float(((outputs > 0.5).double() == batch.labels)[400:].double().mean()) > 0.7


def test_one_hot_columns_are_taken_as_they_are() -> None:
    buckets = 64
    spec = FeatureSpec(
        columns=tuple(f"carrier#{i}" for i in range(buckets)), scaled=(False,) * buckets, task="binary", outputs=1
    )
    which = torch.randint(buckets, (2_000,), generator=torch.Generator().manual_seed(1))
    features = torch.nn.functional.one_hot(which, buckets).double()
    batch = Batch(features=features, labels=(which % 2).double())
    learner = Tabular()
    _, outputs, _ = prequential(learner, learner.init(spec, 0), blocks(batch, 100))
    assert float(((outputs > 0.5).double() == batch.labels)[1_000:].double().mean()) > 0.95


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    seed=st.integers(0, 10),
    extreme=st.floats(allow_nan=True, allow_infinity=False, width=32),
)
def test_any_blocks_with_any_numbers_stay_finite(sizes: list[int], seed: int, extreme: float) -> None:
    spec, learner = spec_of(3), Tabular()
    state = learner.init(spec, seed)
    for index, rows in enumerate(sizes):
        batch = rows_of(spec, rows, seed + index)
        batch.features[rows // 2, index % 3] = extreme
        assert bool(torch.isfinite(learner.predict(state, batch.features)).all())
        state, report = learner.learn(state, batch)
        assert report.finite
        assert_finite(state)
