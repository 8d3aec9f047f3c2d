"""How often a contest errs and how soon it finds what is there: seeded simulations."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from stream_trainer.contest import Contest, Rules

Floats = NDArray[np.float64]
# The differences of one trial, `[rows]`, or with their reach `[rows, 2]`.
Draw = Callable[[np.random.Generator], Floats]
TRIALS = 1_000
ROWS = 10_000
ALPHA = 0.01
# Of 1,000 trials with a probability of 0.01 more than 20 are promoted with a probability of 0.0015.
TOLERATED = 20


def ended(draw: Draw, *, trials: int = TRIALS, rules: Rules | None = None) -> tuple[int, int]:
    """How many of the trials end as `better`, and how many as `worse`.

    Unless `draw` gives a reach it is the difference's own size: the least there can be, so that bets are the largest.
    """
    generator = np.random.default_rng(20_240_229)
    verdicts = []
    for _ in range(trials):
        rows = draw(generator)
        pairs = rows if rows.ndim == 2 else np.column_stack([rows, np.abs(rows)])
        verdicts.append(Contest.begin("binary", rules or Rules())._count(pairs, np.zeros((len(pairs), 4))).verdict)
    return verdicts.count("better"), verdicts.count("worse")


def coins(generator: np.random.Generator) -> Floats:
    return generator.choice([-1.0, 1.0], ROWS)


def calibrated(generator: np.random.Generator) -> Floats:
    """Two forecasters with equally large errors of their own around the true probability."""
    truth = generator.beta(2, 3, ROWS)
    label = (generator.random(ROWS) < truth).astype(np.int64)
    one, other = (np.clip(truth + generator.choice([-0.1, 0.1], ROWS), 0, 1) for _ in range(2))
    each = np.column_stack([one**2 - other**2, (1 - one) ** 2 - (1 - other) ** 2])
    return np.column_stack([each[np.arange(ROWS), label], np.abs(each).max(axis=1)])


def in_blocks(generator: np.random.Generator) -> Floats:
    """Blocks of 20 rows share how large they are: dependent, and each of mean zero given those before."""
    sizes = np.repeat(generator.choice([0.02, 0.9], ROWS // 20), 20)
    signs: Floats = generator.choice([-1.0, 1.0], ROWS)
    return sizes * signs


def after_the_last(generator: np.random.Generator) -> Floats:
    """How much a row weighs depends on how the one before it went."""
    signs = generator.choice([-1.0, 1.0], ROWS)
    return signs * np.where(np.roll(signs, 1) > 0, 0.9, 0.1)


def seldom_much_better(generator: np.random.Generator) -> Floats:
    """Mostly a little worse, seldom much better; zero in the mean."""
    return np.where(generator.random(ROWS) < 0.01, 0.99, -0.01)


def seldom_much_worse(generator: np.random.Generator) -> Floats:
    return -seldom_much_better(generator)


def runs_of(length: int) -> Draw:
    """Differences of 0.2 whose sign is drawn every `length` rows; the first run is cut somewhere."""

    def draw(generator: np.random.Generator) -> Floats:
        start = int(generator.integers(length))
        rows: Floats = np.repeat(generator.choice([-0.2, 0.2], ROWS // length + 2), length)[start : start + ROWS]
        return rows

    draw.__name__ = f"runs_of_{length}"
    return draw


def runs_of_about_20(generator: np.random.Generator) -> Floats:
    """Every row draws a new sign with a probability of 1/20."""
    drawn = np.where(generator.random(ROWS) < 1 / 20, np.arange(ROWS), 0)
    rows: Floats = generator.choice([-0.2, 0.2], ROWS)[np.maximum.accumulate(drawn)]
    return rows


def turns_after_about_20(generator: np.random.Generator) -> Floats:
    """Who wins changes with every row's probability of 1/20."""
    turns = (generator.random(ROWS) < 1 / 20).cumsum() + generator.integers(2)
    return np.where(turns % 2 == 0, 0.2, -0.2)


def autoregressive(generator: np.random.Generator) -> Floats:
    """AR(1) of 0.95, about as dependent as runs of 20 are; cut at 1."""
    steps = generator.normal(size=ROWS) * np.sqrt(1 - 0.95**2)
    weights = 0.95 ** np.arange(400)
    rows: Floats = np.clip(
        0.2 * np.fft.irfft(np.fft.rfft(steps, 2 * ROWS) * np.fft.rfft(weights, 2 * ROWS))[:ROWS], -1, 1
    )
    return rows


DEPENDENT: list[Draw] = [runs_of(5), runs_of(20), runs_of_about_20, turns_after_about_20, autoregressive]
ALIKE: list[Draw] = [coins, calibrated, in_blocks, after_the_last, seldom_much_better, seldom_much_worse]


@pytest.mark.parametrize("draw", ALIKE + DEPENDENT, ids=lambda draw: draw.__name__)
def test_equal_ones_are_promoted_and_withdrawn_in_at_most_alpha_of_the_trials(draw: Draw) -> None:
    better, worse = ended(draw)
    assert better <= TOLERATED
    assert worse <= TOLERATED


@pytest.mark.parametrize("draw", DEPENDENT, ids=lambda draw: draw.__name__)
def test_the_simulation_would_notice_bets_on_single_rows(draw: Draw) -> None:
    """Whoever wins one row of a run wins them all: given the rows before, the mean is not zero."""
    assert min(ended(draw, trials=100, rules=Rules(block_rows=1))) > 100 * ALPHA * 10


def test_the_simulation_would_notice_a_test_that_looks_too_often() -> None:
    """A z-test at the same level, looked at after every row, is what must not be done."""
    found = 0
    generator = np.random.default_rng(7)
    for _ in range(200):
        rows = coins(generator)
        count = np.arange(1, ROWS + 1)
        found += bool((rows.cumsum()[100:] / np.sqrt(count[100:]) > 2.326).any())
    assert found / 200 > 3 * ALPHA


def test_runs_that_reach_over_blocks_are_outside_of_what_is_promised() -> None:
    """Stated, not hidden: `docs/decisions/0011-champion-and-challenger.md` has the figure."""
    assert min(ended(runs_of(400), trials=200)) > 200 * ALPHA * 5
    assert max(ended(runs_of(400), rules=Rules(block_rows=2_000))) <= TOLERATED


def disasters(generator: np.random.Generator) -> Floats:
    """A little better on all but one of a hundred days of 100 rows, and much worse then; zero in the mean."""
    bad = np.repeat(generator.random(200) < 0.01, 100)
    reach = np.where(bad, 0.5, 0.05)
    wins = generator.random(len(bad)) < (1 + np.where(bad, -0.396, 0.004) / reach) / 2
    return np.column_stack([np.where(wins, reach, -reach), reach])


def test_a_disaster_that_no_block_has_shown_yet_is_guarded_against_by_a_reach_of_one() -> None:
    assert ended(disasters, trials=200)[0] > 200 * ALPHA * 5
    assert ended(disasters, rules=Rules(least_reach=1.0))[0] <= TOLERATED


def test_within_the_margin_is_no_better() -> None:
    def slightly(generator: np.random.Generator) -> Floats:
        return coins(generator) * 0.2 + 0.05

    assert ended(slightly, rules=Rules(margin=0.05))[0] <= TOLERATED
    assert ended(slightly)[0] > TRIALS / 2


@pytest.mark.parametrize(("error", "within"), [(0.2, 6_000), (0.1, 12_000), (0.05, 40_000)])
def test_one_that_is_clearly_better_is_found_within_so_many_rows(error: float, within: int) -> None:
    """The champion's probabilities are off by `error` either way, the challenger's are right: 4, 1, 0.25 points of Brier."""
    generator = np.random.default_rng(3)
    for _ in range(50):
        truth = generator.uniform(0.2, 0.8, within)
        labels = torch.from_numpy((generator.random(within) < truth).astype(np.float64))
        off = torch.from_numpy((truth + generator.choice([-error, error], within)).astype(np.float32))
        right = torch.from_numpy(truth.astype(np.float32))
        found = Contest.begin("binary", Rules(max_rows=within)).add(off, right, labels)
        back = Contest.begin("binary", Rules(max_rows=within)).add(right, off, labels)
        assert (found.verdict, back.verdict) == ("better", "worse")
        assert found.rows == back.rows <= within
