"""How much a record counts, on its way from its field `_weight` to what the learner is given."""

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
import torch

from stream_trainer import learning, offsets
from stream_trainer import lineage as lineages
from stream_trainer.learner import Batch, LearnReport, State
from stream_trainer.learners import Sgd
from stream_trainer.learning import Cut
from stream_trainer.pipeline import Pipeline
from tests.core.worlds import CONTRACT, NOW, TOPIC, MemoryLog, flight

PIPELINE = Pipeline(name="flights", contract=CONTRACT, learner=Sgd(), reference_rows=50)


def table(*weights: float | None) -> tuple[pa.Table, Cut]:
    """One record for each weight, read from a log; None: the record has no such field."""
    log = MemoryLog({0: []})
    log.append(0, *(flight(i) if w is None else flight(i, _weight=w) for i, w in enumerate(weights)))
    cut = Cut(ranges=offsets.ranges_between({TOPIC: {0: 0}}, log.ends()), covered_at=NOW)
    return log.fetch(cut), cut


def weights(rows: pa.Table) -> list[float] | None:
    found = learning.to_batch(PIPELINE, rows).weights
    assert found is None or found.dtype is torch.float64
    return None if found is None else found.tolist()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((0.5, 2.0, 0.0), [0.5, 2.0, 0.0]),
        ((None, 3.0, None), [1.0, 3.0, 1.0]),
        ((1.0, 1.0), [1.0, 1.0]),
        ((None, None), None),
        ((), None),
    ],
)
def test_a_record_without_a_weight_counts_1_and_none_is_given_when_no_record_has_one(
    given: tuple[float | None, ...], expected: list[float] | None
) -> None:
    assert weights(table(*given)[0]) == expected


def test_rows_from_before_there_were_weights_all_count_alike() -> None:
    rows, _ = table(2.0, 3.0)
    assert weights(rows.drop_columns(["_weight"])) is None


def test_several_chunks_are_one_column() -> None:
    rows, _ = table(2.0, None, 3.0)
    assert weights(pa.concat_tables([rows.slice(0, 1), rows.slice(1)])) == [2.0, 1.0, 3.0]


class Noting(Sgd):
    """Keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Any] = []

    def learn(self, state: State, batch: Batch) -> tuple[State, LearnReport]:
        self.given.append(batch)
        return super().learn(state, batch)


def test_each_row_keeps_its_weight_when_rows_are_put_in_order_and_bad_ones_left_out() -> None:
    log = MemoryLog({0: []})
    log.append(0, flight(0, _weight=5.0), b"not json", flight(2), flight(3, _weight=7.0))
    cut = Cut(ranges=offsets.ranges_between({TOPIC: {0: 0}}, log.ends()), covered_at=NOW)
    learner = Noting()
    pipeline = replace(PIPELINE, learner=learner)
    learning.learn(pipeline, lineages.fresh(pipeline, {TOPIC: {0: 0}}), cut, log.fetch(cut, backwards=True))
    (batch,) = learner.given
    assert batch.weights.tolist() == [5.0, 1.0, 7.0]
    alike = learning.to_batch(pipeline, table(None, None, None, None)[0]).features
    assert torch.equal(batch.features[:, 0], alike[[0, 2, 3], 0])
