import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stream_trainer.evaluation.baselines import Memory
from stream_trainer.evaluation.calibration import calibration_error, roc_auc
from stream_trainer.evaluation.scores import WINDOW
from stream_trainer.evaluation.segments import MOST_VALUES
from stream_trainer.prequential import Answers, Prequential, uniform

LABELS = st.lists(st.integers(0, 1), min_size=1, max_size=12)
BLOCKS = st.lists(LABELS, min_size=1, max_size=5)


def tensor(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def binary(*blocks: tuple[list[float], list[int]]) -> Prequential:
    found = Prequential.fresh("binary", 1)
    for forecast, labels in blocks:
        found = found.score(torch.tensor(forecast), tensor(labels))[0]
    return found


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), st.integers(0, 1)), max_size=40))
def test_auc_is_the_share_of_pairs_in_the_right_order(pairs: list[tuple[float, int]]) -> None:
    up = [p for p, y in pairs if y]
    down = [p for p, y in pairs if not y]
    found = roc_auc(np.array([p for p, _ in pairs]), np.array([float(y) for _, y in pairs]))
    if not up or not down:
        assert found is None
    else:
        right = sum((a > b) + 0.5 * (a == b) for a in up for b in down)
        assert found == pytest.approx(right / (len(up) * len(down)))


def test_log_loss_and_accuracy_are_the_plain_formulas() -> None:
    p, y = [0.9, 0.2, 0.6, 0.5], [1, 0, 0, 0]
    found = binary((p, y)).metrics()
    losses = [-math.log(a if b else 1 - a) for a, b in zip(p, y, strict=True)]
    assert found["log_loss"] == pytest.approx(sum(losses) / 4, rel=1e-6)
    assert found["accuracy"] == 0.75
    assert found["rows"] == 4
    assert found["since_start"]["log_loss"] == pytest.approx(found["log_loss"])


def test_a_wrong_certainty_costs_much_but_not_everything() -> None:
    assert binary(([1.0], [0])).metrics()["log_loss"] == pytest.approx(-math.log(1e-7))


@given(BLOCKS)
def test_baselines_know_only_what_came_before_their_block(blocks: list[list[int]]) -> None:
    found = binary(*(([0.5] * len(block), block) for block in blocks)).metrics()
    counts, last, agreed = [0, 0], None, [0, 0]
    majority_loss, majority_hit, change_loss, change_hit = [], [], [], []
    for block in blocks:
        share = [(c + 1) / (sum(counts) + 2) for c in counts]
        stay = (agreed[0] + 1) / (agreed[1] + 2) if last is not None else 0.5
        for y in block:
            majority_loss.append(-math.log(share[y]))
            majority_hit.append(y == (1 if share[1] > share[0] else 0))
            change_loss.append(-math.log((stay if y == last else 1 - stay) if last is not None else 0.5))
            change_hit.append(y == last)
        if last is not None:
            agreed = [agreed[0] + block.count(last), agreed[1] + len(block)]
        counts = [counts[0] + block.count(0), counts[1] + block.count(1)]
        last = block[-1]
    assert found["majority"]["log_loss"] == pytest.approx(np.mean(majority_loss))
    assert found["majority"]["accuracy"] == pytest.approx(np.mean(majority_hit))
    assert found["no_change"]["log_loss"] == pytest.approx(np.mean(change_loss))
    assert found["no_change"]["accuracy"] == pytest.approx(np.mean(change_hit))


def test_the_window_slides_and_the_whole_is_kept_beside_it() -> None:
    found = binary(([0.1] * WINDOW, [1] * WINDOW), ([0.9] * (WINDOW - 1), [1] * (WINDOW - 1)))
    metrics = found.metrics()
    assert metrics["rows"] == len(found.trained.rows) == WINDOW
    assert metrics["accuracy"] == pytest.approx(1 - 1 / WINDOW)
    assert metrics["since_start"]["rows"] == found.trained.seen == 2 * WINDOW - 1
    assert metrics["since_start"]["accuracy"] == pytest.approx((WINDOW - 1) / (2 * WINDOW - 1))
    assert metrics["roc_auc"] is None


def test_a_block_longer_than_the_window_keeps_its_newest_rows() -> None:
    found = binary(([0.9] * (WINDOW + 10), [0] * 10 + [1] * WINDOW))
    assert found.metrics()["accuracy"] == 1.0


def test_classes_are_scored_by_the_probability_of_the_true_one() -> None:
    fresh = Prequential.fresh("multiclass", 3)
    p = [[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]]
    found = fresh.score(torch.tensor(p), tensor([0, 1]))[0].metrics()
    assert found["log_loss"] == pytest.approx(-(math.log(0.7) + math.log(0.2)) / 2, rel=1e-6)
    assert found["accuracy"] == 0.5
    assert found["majority"]["log_loss"] == pytest.approx(math.log(3))
    assert "roc_auc" not in found


def test_no_change_shares_the_rest_among_the_other_classes() -> None:
    thirds = torch.full((1, 3), 1 / 3)
    first = Prequential.fresh("multiclass", 3).score(thirds, tensor([2]))[0]
    found = first.score(thirds, tensor([0]))[0]
    assert found.trained.rows[1, 2] == pytest.approx(-math.log(0.25))


def test_numbers_are_scored_by_squared_and_absolute_error() -> None:
    found = Prequential.fresh("regression", 1).score(torch.tensor([1.0, 2.0]), tensor([2.0, 6.0]))[0]
    found = found.score(torch.tensor([5.0]), tensor([7.0]))[0]
    metrics = found.metrics()
    assert (metrics["mse"], metrics["mae"]) == (pytest.approx((1 + 16 + 4) / 3), pytest.approx(7 / 3))
    assert metrics["no_change"]["mse"] == pytest.approx((4 + 36 + 1) / 3)
    assert metrics["majority"]["mae"] == pytest.approx((2 + 6 + 3) / 3)


def test_scoring_leaves_the_given_value_alone_and_no_rows_change_nothing() -> None:
    before = binary(([0.5], [1]))
    kept = {k: t.clone() for k, t in before.tensors().items()}
    before.score(torch.tensor([0.1]), tensor([0]))
    assert all(torch.equal(kept[k], t) for k, t in before.tensors().items())
    assert before.score(torch.zeros(0), tensor([]))[0] is before


@pytest.mark.parametrize(("task", "outputs"), [("binary", 1), ("multiclass", 3), ("regression", 1)])
@pytest.mark.parametrize("rows", [0, 4])
def test_the_value_survives_being_stored(task: Any, outputs: int, rows: int) -> None:
    found = Prequential.fresh(task, outputs).score(uniform(task, outputs, rows), tensor([1.0] * rows))[0]
    again = Prequential.from_tensors(task, found.tensors())
    assert again.metrics() == found.metrics()
    following = [p.score(uniform(task, outputs, 2), tensor([0.0, 1.0]))[0] for p in (found, again)]
    assert (
        following[0].tensors()["trained.rows"].numpy().tobytes()
        == following[1].tensors()["trained.rows"].numpy().tobytes()
    )
    assert following[0].metrics() == following[1].metrics()


@pytest.mark.parametrize(("task", "outputs"), [("binary", 1), ("multiclass", 4), ("regression", 1)])
def test_nothing_scored_gives_numbers_that_json_knows(task: Any, outputs: int) -> None:
    import json

    json.dumps(Prequential.fresh(task, outputs).metrics(), allow_nan=False)


def test_blocks_may_be_cut_anywhere_for_the_models_own_score() -> None:
    p, y = [0.2, 0.7, 0.9, 0.4], [0, 1, 0, 1]
    whole = binary((p, y)).metrics()
    parts = binary((p[:1], y[:1]), (p[1:], y[1:])).metrics()
    for name in ("log_loss", "accuracy", "roc_auc"):
        assert parts[name] == pytest.approx(whole[name])


def test_one_absurd_number_does_not_blind_what_comes_after() -> None:
    before = Prequential.fresh("regression", 1)
    absurd = before.score(torch.zeros(3), torch.tensor([1.0, 1e160, 1.0], dtype=torch.float64))[0]
    after, loss = absurd.score(torch.zeros(2), torch.ones(2, dtype=torch.float64))
    assert loss == 1.0
    assert np.isfinite(after.trained.sums).all()
    assert np.isfinite(after.trained.rows).all()


def test_calibration_is_the_mean_gap_between_forecast_and_frequency() -> None:
    forecast = np.array([0.1] * 10 + [0.9] * 10)
    outcome = np.array([1.0] + [0.0] * 9 + [1.0] * 5 + [0.0] * 5)
    assert calibration_error(forecast, outcome) == pytest.approx((0.0 * 10 + 0.4 * 10) / 20)
    assert calibration_error(np.array([0.0, 1.0]), np.array([0.0, 1.0])) == 0.0
    assert calibration_error(np.zeros(0), np.zeros(0)) == 0.0


def answers(versions: list[int], outputs: Any) -> Answers:
    return Answers(versions=np.array(versions, dtype=np.int64), outputs=np.array(outputs, dtype=np.float64))


def test_what_was_served_is_scored_beside_what_was_trained() -> None:
    found = Prequential.fresh("binary", 1)
    said = answers([0, 3, 3, 0], [0.0, 0.9, 0.2, 0.0])
    found = found.score(torch.full((4,), 0.5), tensor([1, 1, 0, 0]), answers=said)[0]
    metrics = found.metrics()
    assert metrics["rows"] == 4
    assert metrics["served"]["rows"] == 2
    assert metrics["served"]["log_loss"] == pytest.approx(-(math.log(0.9) + math.log(0.8)) / 2, rel=1e-6)
    assert metrics["served"]["accuracy"] == 1.0
    assert "served" not in binary(([0.5], [1])).metrics()
    again = Prequential.from_tensors("binary", found.tensors())
    assert again.metrics() == metrics


def test_the_baselines_of_what_was_served_know_what_its_version_knew() -> None:
    found = binary(([0.5] * 3, [1, 1, 1])).at_version(1)  # version 1 has seen three ones
    found = found.score(torch.full((8,), 0.5), tensor([0] * 8))[0].at_version(2)  # version 2 eight zeros more
    labels, said = tensor([0, 0]), answers([1, 2], [0.5, 0.5])
    served = found.score(torch.full((2,), 0.5), labels, answers=said)[0].served
    of_first, of_second = served.rows[0], served.rows[1]
    assert of_first[4] == pytest.approx(-math.log(1 / 5))  # majority: (0 + 1) / (3 + 2)
    assert of_second[4] == pytest.approx(-math.log(9 / 13))
    assert (of_first[3], of_second[3]) == (0.0, 1.0)  # no-change: the last label was 1, then 0


def test_of_versions_that_are_no_longer_remembered_the_next_newer_one_is_taken() -> None:
    found = Prequential.fresh("binary", 1)
    for version in range(1, 3 * Memory.MOST):
        found = found.score(torch.full((1,), 0.5), tensor([version % 2]))[0].at_version(version)
    rows = found.memory.rows
    assert len(rows) <= Memory.MOST
    assert rows[-1, 0] == 3 * Memory.MOST - 1
    assert (np.diff(rows[:, 0]) > 0).all()
    known = found.memory.at(np.array([1, int(rows[0, 0]), int(rows[-1, 0]), 10**9]), found.known)
    assert (known[0] == rows[0, 1:]).all()
    assert (known[1] == rows[0, 1:]).all()
    assert (known[2] == rows[-1, 1:]).all()
    assert (known[3] == found.known).all()
    assert found.memory.remember(5, found.known) is found.memory


def test_segments_are_kept_with_the_scores_and_survive_being_stored() -> None:
    found = Prequential.fresh("binary", 1, segments=2)
    blocks: list[list[list[str | None]]] = [[["a", "b", None], ["x", "x", "y"]], [["b"], ["z"]]]
    for block in blocks:
        rows = len(block[0])
        found = found.score(torch.full((rows,), 0.5), tensor([1] * rows), segments=block)[0]
    assert found.segments.values == (("(other)", "a", "b", "(none)"), ("(other)", "x", "y", "z"))
    assert found.trained.codes.tolist() == [[1, 1], [2, 1], [3, 2], [2, 3]]
    again = Prequential.from_tensors("binary", found.tensors())
    assert again.segments == found.segments
    assert (again.trained.codes == found.trained.codes).all()


def test_values_of_a_segment_are_bounded() -> None:
    found = Prequential.fresh("binary", 1, segments=1)
    names = [f"n{i}" for i in range(300)]
    found = found.score(torch.full((300,), 0.5), tensor([1] * 300), segments=[names])[0]
    assert len(found.segments.values[0]) == MOST_VALUES + 1
    assert found.trained.codes[-1].tolist() == [0]


def test_numbers_have_the_root_of_their_squared_error_too() -> None:
    found = Prequential.fresh("regression", 1).score(torch.tensor([1.0, 2.0]), tensor([4.0, 6.0]))[0].metrics()
    assert found["rmse"] == pytest.approx(math.sqrt((9 + 16) / 2))
    assert found["no_change"]["rmse"] == pytest.approx(math.sqrt((16 + 36) / 2))
