import numpy as np
import pytest
import torch

from stream_trainer.evaluation.table import LEAST_ROWS, MOST_VALUES, TABLE, evaluation
from stream_trainer.prequential import Answers, Prequential


def scored() -> Prequential:
    found = Prequential.fresh("binary", 1, segments=1)
    good, bad = LEAST_ROWS, LEAST_ROWS * 2
    outputs = torch.tensor([0.9] * good + [0.9] * bad + [0.5])
    labels = torch.tensor([1.0] * good + [0.0] * bad + [1.0], dtype=torch.float64)
    names = ["easy"] * good + ["hard"] * bad + ["rare"]
    said = Answers(versions=np.array([1] * 10 + [0] * (good + bad - 9)), outputs=np.full(good + bad + 1, 0.8))
    return found.score(outputs, labels, answers=said, segments=[names])[0]


def test_the_table_tells_each_frequent_segment_apart() -> None:
    table = evaluation(scored(), ["origin"])
    assert table.schema == TABLE
    rows = table.to_pylist()
    found = {(r["forecast"], r["segment"], r["value"], r["forecaster"], r["metric"]): r["score"] for r in rows}
    assert found["trained", "origin", "easy", "model", "accuracy"] == 1.0
    assert found["trained", "origin", "hard", "model", "accuracy"] == 0.0
    assert found["trained", "", "", "model", "accuracy"] == pytest.approx(LEAST_ROWS / (3 * LEAST_ROWS + 1))
    assert found["trained", "origin", "easy", "model", "roc_auc"] is None
    assert {r["value"] for r in rows} == {"", "easy", "hard"}  # one row of `rare` says nothing
    assert found["served", "", "", "model", "log_loss"] == pytest.approx(-np.log(0.8), rel=1e-6)
    assert {r["rows"] for r in rows if r["forecast"] == "served"} == {10}
    assert {r["forecaster"] for r in rows} == {"model", "no_change", "majority"}


def test_of_many_values_the_most_frequent_are_told() -> None:
    found = Prequential.fresh("regression", 1, segments=1)
    names = [f"v{i}" for i in range(40) for _ in range(LEAST_ROWS + i)]
    rows = len(names)
    found = found.score(torch.zeros(rows), torch.ones(rows, dtype=torch.float64), segments=[names])[0]
    values = {r["value"] for r in evaluation(found, ["s"]).to_pylist()} - {""}
    assert values == {f"v{i}" for i in range(40 - MOST_VALUES, 40)}


def test_nothing_scored_is_an_empty_table() -> None:
    assert evaluation(Prequential.fresh("multiclass", 3, segments=1), ["s"]).num_rows == 0
