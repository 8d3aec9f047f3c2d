"""Champion against challenger: what must hold of any rows."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stream_trainer.betting import Wealth
from stream_trainer.contest import Contest, Rules
from stream_trainer.settings import TrialSettings

TASKS = st.sampled_from(["binary", "multiclass", "regression"])
RULES = st.builds(
    Rules,
    alpha=st.sampled_from([0.01, 0.3]),
    margin=st.sampled_from([0.0, 0.1]),
    max_rows=st.integers(1, 60),
    block_rows=st.integers(1, 12),
    least_reach=st.sampled_from([0.01, 0.5]),
)


@st.composite
def rounds(draw: st.DrawFn) -> tuple[Any, torch.Tensor, torch.Tensor, torch.Tensor]:
    task = draw(TASKS)
    count = draw(st.integers(1, 60))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    better = draw(st.floats(0, 1))
    if task == "regression":
        labels = torch.randn(count, generator=generator, dtype=torch.float64)
        one, other = (labels.float() + scale * torch.randn(count, generator=generator) for scale in (1.0, better))
    elif task == "binary":
        labels = torch.randint(2, (count,), generator=generator).double()
        one = torch.rand(count, generator=generator)
        other = (1 - better) * torch.rand(count, generator=generator) + better * labels.float()
    else:
        labels = torch.randint(3, (count,), generator=generator).double()
        one, other = (torch.rand(count, 3, generator=generator).softmax(1) for _ in range(2))
        other = (1 - better) * other + better * torch.nn.functional.one_hot(labels.long(), 3)
    return task, one, other, labels


@given(rounds(), RULES, st.lists(st.integers(0, 60), max_size=5))
def test_how_the_rows_are_split_changes_no_bit(played: Any, rules: Rules, cuts: list[int]) -> None:
    task, one, other, labels = played
    whole = Contest.begin(task, rules).add(one, other, labels)
    pieces = Contest.begin(task, rules)
    edges = [0, *sorted(min(cut, len(labels)) for cut in cuts), len(labels)]
    for start, end in pairwise(edges):
        pieces = pieces.add(one[start:end], other[start:end], labels[start:end])
    assert pieces == whole
    assert whole.rows <= rules.max_rows
    assert (whole.verdict is None) <= (whole.rows == len(labels) < rules.max_rows)


@given(rounds(), st.integers(1, 60))
def test_with_the_roles_swapped_everything_is(played: Any, most: int) -> None:
    task, one, other, labels = played
    rules = Rules(alpha=0.05, max_rows=most, block_rows=3)
    there = Contest.begin(task, rules).add(one, other, labels)
    back = Contest.begin(task, rules).add(other, one, labels)
    assert there.rows == back.rows
    assert (there.better, there.worse) == (back.worse, back.better)
    assert there.metrics["champion"] == back.metrics["challenger"]
    assert {"better": "worse", "worse": "better"}.get(there.verdict or "", there.verdict) == back.verdict


@given(rounds(), RULES)
def test_a_verdict_of_the_bets_comes_with_the_last_row_of_a_block(played: Any, rules: Rules) -> None:
    task, one, other, labels = played
    found = Contest.begin(task, rules).add(one, other, labels)
    if found.verdict in ("better", "worse"):
        assert (found.rows % rules.block_rows, found.block.rows) == (0, 0)
    assert found.block.rows == found.rows % rules.block_rows


def test_the_reach_is_the_most_that_a_difference_could_have_been_with_another_label() -> None:
    labels = torch.zeros(4, dtype=torch.float64)
    rules = Rules(block_rows=2, least_reach=0.01)
    one, other = torch.full((4,), 0.5), torch.full((4,), 0.25)
    binary = Contest.begin("binary", rules).add(one, other, labels)
    assert binary.reach == pytest.approx(0.75**2 - 0.5**2)  # 0.25 less was lost by the challenger with label 1
    first, second = (torch.stack([1 - chance, chance], dim=1) for chance in (one, other))
    assert Contest.begin("multiclass", rules).add(first, second, labels).reach == binary.reach
    assert Contest.begin("multiclass", rules).add(first, second, labels).better == binary.better
    assert Contest.begin("regression", rules).add(one, other, labels).reach == 1.0
    same = Contest.begin("binary", rules).add(one, one, labels)
    assert same.reach == rules.least_reach
    assert same.add(one, torch.full((4,), float("nan")), labels).add(one, one, labels).reach == 0.75


@given(rounds())
def test_what_is_decided_stays_decided(played: Any) -> None:
    task, one, other, labels = played
    done = Contest.begin(task, Rules(max_rows=1)).add(one, other, labels)
    assert (done.verdict, done.rows) == ("no_better", 1)
    assert done.add(one, other, labels) is done


def test_equal_versions_are_no_better_and_gather_no_evidence() -> None:
    outputs, labels = torch.full((500,), 0.3), torch.arange(500, dtype=torch.float64) % 2
    found = Contest.begin("binary", Rules(max_rows=400)).add(outputs, outputs, labels)
    assert (found.verdict, found.rows) == ("no_better", 400)
    assert found.better.evidence == found.worse.evidence == 1.0
    assert found.metrics["champion"] == found.metrics["challenger"]


def test_the_losses_are_those_of_the_textbook() -> None:
    labels = torch.tensor([1.0, 0.0], dtype=torch.float64)
    binary = Contest.begin("binary", Rules()).add(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.5]), labels)
    assert binary.metrics["champion"] == pytest.approx({"log_loss": math.log(2), "brier": 0.25})
    assert binary.metrics["challenger"] == pytest.approx({"log_loss": math.log(2) / 2, "brier": 0.125}, abs=1e-6)
    chances = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]])
    classes = Contest.begin("multiclass", Rules()).add(chances, chances, labels)
    assert classes.metrics["champion"]["brier"] == pytest.approx(((0.25 + 0.5625 + 0.0625) / 2 + 1.0) / 2)
    numbers = Contest.begin("regression", Rules()).add(torch.tensor([2.0, 2.0]), torch.tensor([1.0, 0.0]), labels)
    assert numbers.metrics == {"champion": {"mse": 2.5, "mae": 1.5}, "challenger": {"mse": 0.0, "mae": 0.0}}
    assert Contest.begin("binary", Rules()).metrics == {}


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_output_that_is_no_number_is_the_worst_there_is(task: Any, bad: float) -> None:
    labels = torch.zeros(40, dtype=torch.float64)
    good = torch.full((40, 2), 0.5) if task == "multiclass" else torch.full((40,), 0.1)
    broken = torch.full_like(good, bad)
    found = Contest.begin(task, Rules(block_rows=4)).add(good, broken, labels)
    assert found.verdict == "worse"
    assert all(math.isfinite(x) for losses in found.metrics.values() for x in losses.values())
    both = Contest.begin(task, Rules(block_rows=4)).add(broken, broken, labels)
    assert (both.verdict, both.better.evidence) == (None, 1.0)


def test_absurd_labels_weigh_no_more_than_others() -> None:
    labels = torch.tensor([1e300, -1e300], dtype=torch.float64)
    found = Contest.begin("regression", Rules(block_rows=1)).add(torch.zeros(2), torch.ones(2), labels)
    assert math.isfinite(found.better.evidence)
    assert math.isfinite(found.metrics["champion"]["mse"])


def test_a_bet_can_neither_ruin_nor_overflow() -> None:
    ones = np.ones(50_000)
    lost = Wealth(bound=0.0).path(-ones, ones)[0]
    assert np.isfinite(lost).all()
    assert (np.diff(lost) < 0).all()
    won = Wealth(bound=0.5)
    path, logs = won.path(ones, ones)
    assert won.at(logs[-1]).evidence == math.exp(700)
    assert np.isfinite(path).all()


def test_the_settings_are_the_rules() -> None:
    settings = TrialSettings()
    assert Rules() == Rules(**settings.model_dump(exclude={"rows_per_second"}))


def test_the_summary_names_the_figures() -> None:
    labels = torch.tensor([1.0] * 30, dtype=torch.float64)
    found = Contest.begin("binary", Rules(block_rows=2)).add(torch.full((30,), 0.1), torch.full((30,), 0.9), labels)
    assert found.verdict == "better"
    assert f"after {found.rows} labelled rows: brier champion 0.81, challenger 0.01" in found.summary()
    assert "of 100 needed" in found.summary()
