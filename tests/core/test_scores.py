"""Scores against what must hold of any of them: however rows are cut or ordered, and for forecasters whose scores are known."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream_trainer.contract import Task
from stream_trainer.evaluation.baselines import nothing_known
from stream_trainer.evaluation.calibration import calibration_error, reliability, roc_auc
from stream_trainer.evaluation.scores import WINDOW, Scores, score_rows

Floats = NDArray[np.float64]
TASKS: tuple[Task, ...] = ("binary", "multiclass", "regression")
CLASSES = 3
seeds = st.integers(0, 2**32 - 1)


def drawn(task: Task, count: int, seed: int) -> tuple[NDArray[Any], Floats]:
    """Outputs and labels of a forecaster that knows nothing."""
    rng = np.random.default_rng(seed)
    if task == "binary":
        return rng.random(count), rng.integers(0, 2, count).astype(np.float64)
    if task == "multiclass":
        return rng.dirichlet(np.ones(CLASSES), count), rng.integers(0, CLASSES, count).astype(np.float64)
    return rng.normal(0, 10, count), rng.normal(0, 10, count)


def scored(task: Task, outputs: NDArray[Any], labels: Floats) -> Floats:
    known = np.tile(nothing_known(task, CLASSES if task == "multiclass" else 1), (len(labels), 1))
    return score_rows(task, outputs, labels, known)


def metrics(task: Task, outputs: NDArray[Any], labels: Floats) -> dict[str, Any]:
    columns = scored(task, outputs, labels)
    return Scores.fresh(task, 0).add(columns, np.zeros((len(labels), 0), dtype=np.int16)).metrics()


def flat(found: dict[str, Any]) -> dict[str, float]:
    """One level, for `approx`; what is not known is not a number."""
    plain: dict[str, float] = {}
    for name, value in found.items():
        parts = flat(value) if isinstance(value, dict) else {"": value}
        plain |= {f"{name}.{part}": math.nan if one is None else one for part, one in parts.items()}
    return plain


def alike(found: dict[str, Any]) -> Any:
    return pytest.approx(flat(found), rel=1e-5, abs=1e-6, nan_ok=True)


@given(st.sampled_from(TASKS), st.lists(st.integers(0, 60), max_size=12), seeds)
def test_blocks_of_any_size_give_what_one_pass_gives(task: Task, sizes: list[int], seed: int) -> None:
    outputs, labels = drawn(task, sum(sizes), seed)
    columns = scored(task, outputs, labels)
    codes = np.arange(len(labels), dtype=np.int16)[:, None]
    whole = Scores.fresh(task, 1).add(columns, codes)
    cut = Scores.fresh(task, 1)
    for first, last in itertools.pairwise([0, *itertools.accumulate(sizes)]):
        cut = cut.add(columns[first:last], codes[first:last])
    assert np.array_equal(cut.rows, whole.rows)
    assert np.array_equal(cut.codes, whole.codes)
    assert cut.seen == whole.seen == len(labels)
    assert cut.sums == pytest.approx(whole.sums)
    assert flat(cut.metrics()) == alike(whole.metrics())


@given(st.sampled_from(TASKS), st.integers(1, 200), seeds)
def test_the_order_of_rows_changes_no_score(task: Task, count: int, seed: int) -> None:
    outputs, labels = drawn(task, count, seed)
    order = np.random.default_rng(seed).permutation(count)
    assert flat(metrics(task, outputs[order], labels[order])) == alike(metrics(task, outputs, labels))


@given(st.sampled_from(TASKS), st.integers(1, 3), seeds)
def test_the_window_forgets_and_the_sums_do_not(task: Task, more: int, seed: int) -> None:
    outputs, labels = drawn(task, WINDOW + more, seed)
    columns, codes = scored(task, outputs, labels), np.zeros((WINDOW + more, 0), dtype=np.int16)
    long = Scores.fresh(task, 0).add(columns[:more], codes[:more]).add(columns[more:], codes[more:])
    newest = Scores.fresh(task, 0).add(columns[more:], codes[more:])
    assert np.array_equal(long.rows, newest.rows)
    assert long.sums == pytest.approx(columns.sum(0))
    assert long.seen == WINDOW + more


@given(st.sampled_from(TASKS), st.integers(1, 300), seeds)
def test_tensors_hold_all_of_it(task: Task, count: int, seed: int) -> None:
    outputs, labels = drawn(task, count, seed)
    scores = Scores.fresh(task, 1).add(scored(task, outputs, labels), np.ones((count, 1), dtype=np.int16))
    assert flat(Scores.from_tensors(task, scores.tensors()).metrics()) == pytest.approx(
        flat(scores.metrics()), nan_ok=True
    )


@given(st.lists(st.booleans(), min_size=2, max_size=300).filter(lambda drawn: len(set(drawn)) == 2))
def test_a_perfect_forecaster(truths: list[bool]) -> None:
    labels = np.array(truths, dtype=np.float64)
    found = metrics("binary", labels, labels)
    assert (found["accuracy"], found["roc_auc"], found["ece"]) == (1.0, 1.0, 0.0)
    assert found["log_loss"] == pytest.approx(0.0, abs=1e-6)
    wrong = metrics("binary", 1.0 - labels, labels)
    assert (wrong["accuracy"], wrong["roc_auc"], wrong["ece"]) == (0.0, 0.0, 1.0)
    assert wrong["log_loss"] == pytest.approx(-math.log(1e-7))


@given(st.integers(1, 300), seeds)
def test_a_perfect_forecaster_of_classes_and_of_numbers(count: int, seed: int) -> None:
    _, classes = drawn("multiclass", count, seed)
    found = metrics("multiclass", np.eye(CLASSES)[classes.astype(np.int64)], classes)
    assert (found["accuracy"], found["ece"]) == (1.0, 0.0)
    assert found["log_loss"] == pytest.approx(0.0, abs=1e-6)
    _, numbers = drawn("regression", count, seed)
    found = metrics("regression", numbers, numbers)
    assert (found["mse"], found["mae"], found["rmse"]) == (0.0, 0.0, 0.0)


@given(st.integers(1, 300), st.integers(1, 300))
def test_a_constant_forecast_of_the_base_rate(positive: int, negative: int) -> None:
    labels = np.array([1.0] * positive + [0.0] * negative)
    rate = positive / len(labels)
    found = metrics("binary", np.full(len(labels), rate), labels)
    entropy = -rate * math.log(rate) - (1 - rate) * math.log(1 - rate)
    assert found["log_loss"] == pytest.approx(entropy, rel=1e-6)
    assert found["ece"] == pytest.approx(0.0, abs=1e-6)
    assert found["roc_auc"] == pytest.approx(0.5)
    assert found["accuracy"] == pytest.approx(max(rate, 1 - rate))


@given(seeds)
def test_a_random_forecaster_ranks_as_chance_does(seed: int) -> None:
    forecast, labels = drawn("binary", WINDOW, seed)
    area = roc_auc(forecast, labels)
    assert area is not None
    # Mann-Whitney: a standard error of 1/sqrt(3 n) at equal classes, here 0.0082. Eight of them are never seen.
    assert abs(area - 0.5) < 8 / math.sqrt(3 * WINDOW)


@given(st.integers(1, 60), seeds)
def test_the_area_is_the_share_of_pairs_in_the_right_order(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    forecast, labels = rng.integers(0, 6, count) / 5.0, rng.integers(0, 2, count).astype(np.float64)
    ahead = forecast[labels == 1][:, None] - forecast[labels == 0][None, :]
    expected = ((ahead > 0) + 0.5 * (ahead == 0)).mean() if ahead.size else None
    assert roc_auc(forecast, labels) == (None if expected is None else pytest.approx(expected))
    turned = roc_auc(1.0 - forecast, labels)
    assert turned == (None if expected is None else pytest.approx(1.0 - expected))


@given(st.integers(0, 300), seeds)
def test_the_diagram_holds_every_row_and_its_gaps_are_the_calibration_error(count: int, seed: int) -> None:
    forecast, labels = drawn("binary", count, seed)
    bins = reliability(forecast, labels)
    assert sum(one.rows for one in bins) == count
    assert all(one.low <= one.forecast <= one.high for one in bins)
    gaps = sum(one.rows * abs(one.forecast - one.frequency) for one in bins) / max(count, 1)
    error = calibration_error(forecast, labels)
    assert error == pytest.approx(gaps)
    assert 0.0 <= error <= 1.0
