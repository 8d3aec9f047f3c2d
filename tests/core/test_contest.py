"""Champion against challenger: error rates by simulation, and what must hold of any rows."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream_trainer.betting import Wealth
from stream_trainer.contest import Contest, Rules
from stream_trainer.settings import TrialSettings

Floats = NDArray[np.float64]
TRIALS = 1_000
ROWS = 3_000
ALPHA = 0.01
# Of 1,000 trials with a probability of 0.01 more than 20 are promoted with a probability of 0.0015.
TOLERATED = 20


def promoted(draw: Callable[[np.random.Generator], Floats], *, bound: float = 0.0, rows: int = ROWS) -> int:
    """In how many trials the evidence ever exceeds 1/alpha; `draw` gives the differences of one."""
    bar = -math.log(ALPHA)
    generator = np.random.default_rng(20_240_229)
    paths = (Wealth(bound=bound).path(draw(generator))[0] for _ in range(TRIALS))
    return sum(bool(path.max() >= bar) for path in paths)


def coins(generator: np.random.Generator) -> Floats:
    return generator.choice([-1.0, 1.0], ROWS)


def calibrated(generator: np.random.Generator) -> Floats:
    """Two forecasters with equally large errors of their own around the true probability."""
    truth = generator.beta(2, 3, ROWS)
    label = generator.random(ROWS) < truth
    one, other = (truth + generator.choice([-0.1, 0.1], ROWS) for _ in range(2))
    difference: Floats = np.clip((one - label) ** 2 - (other - label) ** 2, -1, 1)
    return difference


def in_blocks(generator: np.random.Generator) -> Floats:
    """Blocks of 20 rows share how large they are: dependent, and each of mean zero given those before."""
    sizes = np.repeat(generator.choice([0.02, 0.9], ROWS // 20), 20)
    signs: Floats = generator.choice([-1.0, 1.0], ROWS)
    return sizes * signs


def after_the_last(generator: np.random.Generator) -> Floats:
    """How much a row weighs depends on how the one before it went."""
    signs = generator.choice([-1.0, 1.0], ROWS)
    return signs * np.where(np.roll(signs, 1) > 0, 0.9, 0.1)


def rare(generator: np.random.Generator) -> Floats:
    """Mostly a little worse, seldom much better; zero in the mean."""
    return np.where(generator.random(ROWS) < 0.01, 0.99, -0.01)


@pytest.mark.parametrize("draw", [coins, calibrated, in_blocks, after_the_last, rare])
def test_one_that_is_no_better_is_promoted_in_at_most_alpha_of_the_trials(draw: Any) -> None:
    assert promoted(draw) <= TOLERATED
    assert promoted(lambda generator: -draw(generator)) <= TOLERATED  # nor is one that is no worse withdrawn


def test_the_simulation_would_notice_a_test_that_looks_too_often() -> None:
    """A z-test at the same level, looked at after every row, is what must not be done."""
    found = 0
    generator = np.random.default_rng(7)
    for _ in range(200):
        rows = coins(generator)
        count = np.arange(1, ROWS + 1)
        found += bool((rows.cumsum()[100:] / np.sqrt(count[100:]) > 2.326).any())
    assert found / 200 > 3 * ALPHA


def test_within_the_margin_is_no_better() -> None:
    def slightly(generator: np.random.Generator) -> Floats:
        return coins(generator) * 0.2 + 0.05

    assert promoted(slightly, bound=0.05) <= TOLERATED
    assert promoted(slightly, bound=0.0) > TRIALS / 2


def test_rows_that_share_their_sign_are_outside_of_what_is_promised() -> None:
    """Whoever wins one row of a block wins them all: given the rows before, the mean is not zero. Stated, not hidden."""

    def shared(generator: np.random.Generator) -> Floats:
        return np.repeat(generator.choice([-0.2, 0.2], ROWS // 20), 20)

    assert promoted(shared) > 5 * TOLERATED


@pytest.mark.parametrize(("error", "within"), [(0.2, 1_500), (0.1, 5_000), (0.05, 20_000)])
def test_one_that_is_clearly_better_is_found_within_so_many_rows(error: float, within: int) -> None:
    """The champion's probabilities are off by `error` either way, the challenger's are right: 4, 1, 0.25 points of Brier."""
    generator = np.random.default_rng(3)
    for _ in range(50):
        truth = generator.uniform(0.2, 0.8, within)
        labels = torch.from_numpy((generator.random(within) < truth).astype(np.float64))
        off = torch.from_numpy((truth + generator.choice([-error, error], within)).astype(np.float32))
        right = torch.from_numpy(truth.astype(np.float32))
        found = Contest.begin("binary", Rules(alpha=ALPHA, max_rows=within)).add(off, right, labels)
        back = Contest.begin("binary", Rules(alpha=ALPHA, max_rows=within)).add(right, off, labels)
        assert (found.verdict, back.verdict) == ("better", "worse")
        assert found.rows == back.rows <= within


TASKS = st.sampled_from(["binary", "multiclass", "regression"])
RULES = st.builds(
    Rules, alpha=st.sampled_from([0.01, 0.3]), margin=st.sampled_from([0.0, 0.1]), max_rows=st.integers(1, 60)
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
    rules = Rules(alpha=0.05, max_rows=most)
    there = Contest.begin(task, rules).add(one, other, labels)
    back = Contest.begin(task, rules).add(other, one, labels)
    assert there.rows == back.rows
    assert (there.better, there.worse) == (back.worse, back.better)
    assert there.metrics["champion"] == back.metrics["challenger"]
    assert {"better": "worse", "worse": "better"}.get(there.verdict or "", there.verdict) == back.verdict


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
    found = Contest.begin(task, Rules()).add(good, broken, labels)
    assert found.verdict == "worse"
    assert all(math.isfinite(x) for losses in found.metrics.values() for x in losses.values())
    both = Contest.begin(task, Rules()).add(broken, broken, labels)
    assert (both.verdict, both.better.evidence) == (None, 1.0)


def test_absurd_labels_weigh_no_more_than_others() -> None:
    labels = torch.tensor([1e300, -1e300], dtype=torch.float64)
    found = Contest.begin("regression", Rules()).add(torch.zeros(2), torch.ones(2), labels)
    assert math.isfinite(found.better.evidence)
    assert math.isfinite(found.metrics["champion"]["mse"])


def test_a_bet_can_neither_ruin_nor_overflow() -> None:
    lost = Wealth(bound=0.0).path(np.full(50_000, -1.0))[0]
    assert np.isfinite(lost).all()
    assert (np.diff(lost) < 0).all()
    won = Wealth(bound=0.5)
    path, logs = won.path(np.full(50_000, 1.0))
    assert won.at(logs[-1]).evidence == math.exp(700)
    assert np.isfinite(path).all()


def test_the_settings_are_the_rules() -> None:
    settings = TrialSettings()
    assert Rules() == Rules(alpha=settings.alpha, margin=settings.margin, max_rows=settings.max_rows)


def test_the_summary_names_the_figures() -> None:
    labels = torch.tensor([1.0] * 30, dtype=torch.float64)
    found = Contest.begin("binary", Rules()).add(torch.full((30,), 0.1), torch.full((30,), 0.9), labels)
    assert found.verdict == "better"
    assert f"after {found.rows} labelled rows: brier champion 0.81, challenger 0.01" in found.summary()
    assert "of 100 needed" in found.summary()
