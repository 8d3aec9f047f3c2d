"""Estimates without labels: what comes true lies where they say, and an alarm is as rare as stated."""

import math

import numpy as np
import pytest

from monitors.performance.calibration import calibration_error, calibration_map
from monitors.performance.counting import figures
from monitors.performance.estimate import estimate, estimate_finding
from monitors.performance.levels import LEAST, Levels
from monitors.performance.tally import BINS, Tally
from stream_trainer.evaluation.calibration import roc_auc

from .worlds import Rng, binary, binary_tally, classes, histogram, numbers_tally


def realised(answers: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    loss = -np.log(np.where(labels == 1.0, answers, 1.0 - answers)).mean()
    area = roc_auc(answers, labels)
    assert area is not None
    return float(loss), float(((answers > 0.5) == labels).mean()), area


@pytest.mark.parametrize("shift", [0.0, 0.15])
def test_what_comes_true_lies_within_the_stated_error(shift: float) -> None:
    """Also with answers that are wrong by 0.15 in the past as in the window, and with other answers than in the past."""
    far = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        known = calibration_map(binary_tally(rng, 4_000, shift=shift))
        answers, labels = binary(rng, 500, a=3.0, b=4.0, shift=shift)
        found = estimate("binary", known, np.array(histogram(answers), dtype=float))
        assert found.roc_auc is not None
        figures_ = (found.log_loss, found.accuracy, found.roc_auc)
        far.append([(f.value - r) / f.error for f, r in zip(figures_, realised(answers, labels), strict=True)])
    spreads = np.sqrt((np.array(far) ** 2).mean(0))
    # Of forty standard normals the root of the mean square is within 0.6 and 1.4 but once in thousands.
    assert (spreads < 1.4).all()
    assert (spreads > 0.6).all()


def test_the_error_of_the_map_shrinks_with_its_examples() -> None:
    rng = np.random.default_rng(1)
    outputs = np.array(histogram(binary(rng, 2_000)[0]), dtype=float)
    few, many = (calibration_map(binary_tally(rng, rows)) for rows in (500, 20_000))
    assert (
        estimate("binary", many, outputs).log_loss.map_error < estimate("binary", few, outputs).log_loss.map_error / 2
    )


def test_the_map_of_no_examples_is_the_answer_itself() -> None:
    known = calibration_map(Tally())
    np.testing.assert_allclose(known.chance, (np.arange(BINS) + 0.5) / BINS)
    assert (np.diff(calibration_map(binary_tally(np.random.default_rng(1), 300)).chance) >= 0.0).all()


def test_more_classes_are_estimated_by_the_likeliest() -> None:
    rng = np.random.default_rng(2)
    one = np.ones(6_000, dtype=np.int64)
    past = figures("multiclass", *classes(rng, 6_000), one, {})
    answers, labels = classes(rng, 2_000)
    truth = figures("multiclass", answers, labels, one[:2_000], {})
    found = estimate("multiclass", calibration_map(past), np.array(truth.bins.rows, dtype=float))
    assert abs(found.accuracy.value - truth.losses.correct / 2_000) < 3.0 * found.accuracy.error
    assert abs(found.log_loss.value - truth.losses.mean) < 0.05
    assert found.roc_auc is None


def rate(rng: Rng, rows: int, alpha: float, *, harder: float = 0.0, windows: int = 300) -> int:
    """Windows that alarm, after `LEAST`; `harder`: how much the questions of windows differ."""
    found, usual = 0, Levels()
    for _ in range(windows + LEAST):
        past = binary_tally(rng, 3_000)
        outputs = histogram(binary(rng, rows, a=2.0 * math.exp(harder * rng.standard_normal()))[0])
        finding, usual = estimate_finding(past, outputs, usual, alpha=alpha, min_rows=50)
        found += finding.state == "drift"
    return found


def known(rng: Rng, past: Tally, windows: int = 30) -> Levels:
    """How much windows of 400 rows differ while nothing changes."""
    usual = Levels()
    for _ in range(windows):
        _, usual = estimate_finding(past, histogram(binary(rng, 400)[0]), usual, alpha=1e-4, min_rows=50)
    return usual


@pytest.mark.parametrize("rows", [50, 2_000])
def test_quiet_windows_alarm_at_most_as_often_as_stated(rows: int) -> None:
    # 15 of 300 are stated; 29 would come with a chance below 0.001.
    assert rate(np.random.default_rng(rows), rows, 0.05) < 29


def test_windows_that_are_each_as_hard_as_days_are_alarm_at_most_as_often_as_stated() -> None:
    # By rows alone nearly half of them would: every window differs surely.
    assert rate(np.random.default_rng(9), 2_000, 0.05, harder=0.5) < 29


def test_before_it_is_known_how_much_windows_differ_there_is_no_verdict() -> None:
    rng = np.random.default_rng(3)
    past, hard = binary_tally(rng, 5_000), histogram(binary(rng, 400, a=4.0, b=4.0)[0])
    for windows in (0, LEAST - 1):
        finding, _ = estimate_finding(past, hard, known(rng, past, windows), alpha=1e-4, min_rows=50)
        assert (finding.state, f"{windows} of {LEAST}" in finding.detail) == ("not enough data", True)
    assert estimate_finding(past, hard, known(rng, past, LEAST), alpha=1e-2, min_rows=50)[0].state == "drift"


def test_less_sure_answers_are_an_alarm_and_surer_ones_are_none() -> None:
    rng = np.random.default_rng(3)
    past = binary_tally(rng, 5_000)
    usual = known(rng, past)
    worse, _ = estimate_finding(past, histogram(binary(rng, 400, a=4.0, b=4.0)[0]), usual, alpha=1e-4, min_rows=50)
    better, _ = estimate_finding(past, histogram(binary(rng, 400, a=1.0, b=9.0)[0]), usual, alpha=1e-4, min_rows=50)
    assert (worse.kind, worse.state, worse.against) == ("estimate", "drift", "learned")
    assert worse.effect.psi is not None
    assert worse.effect.psi > 0.25
    assert better.state == "quiet"


def test_numbers_and_few_rows_have_no_verdict() -> None:
    rng = np.random.default_rng(3)
    numbers, usual = estimate_finding(numbers_tally(rng, 1_000), [], Levels(), alpha=0.1, min_rows=50)
    few, same = estimate_finding(binary_tally(rng, 100), [1] * BINS, usual, alpha=0.1, min_rows=50)
    assert same == Levels()
    assert (numbers.state, few.state) == ("not enough data", "not enough data")
    assert "not estimated" in numbers.detail
    with pytest.raises(ValueError, match="no calibration map"):
        calibration_map(numbers_tally(rng, 10))


def test_the_calibration_error_of_honest_answers_is_small() -> None:
    rng = np.random.default_rng(3)
    assert calibration_error(binary_tally(rng, 20_000)) < 0.02
    assert calibration_error(binary_tally(rng, 20_000, shift=0.2)) == pytest.approx(0.2, abs=0.02)
