import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stream_trainer.prequential import WINDOW, Prequential, roc_auc, uniform

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
    assert metrics["rows"] == len(found.rows) == WINDOW
    assert metrics["accuracy"] == pytest.approx(1 - 1 / WINDOW)
    assert metrics["since_start"]["rows"] == found.seen == 2 * WINDOW - 1
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
    assert found.rows[1, 2] == pytest.approx(-math.log(0.25))


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
    assert following[0].tensors()["rows"].numpy().tobytes() == following[1].tensors()["rows"].numpy().tobytes()
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
    assert np.isfinite(after.sums).all()
    assert np.isfinite(after.rows).all()
