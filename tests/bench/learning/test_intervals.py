import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.learning import intervals
from tests.bench.learning.intervals import Interval
from tests.bench.learning.ranks import ranked
from tests.bench.learning.scores import CHUNK
from tests.bench.learning.stream import Floats

TRUTH = 0.03


def differences(rng: np.random.Generator, series: int, chunks: int, stale: int) -> Floats:
    """Sums of chunks whose differences stay alike for `stale` chunks, as those of one stale version do."""
    level = np.repeat(rng.normal(scale=0.05, size=(series, -(-chunks // stale))), stale, axis=1)[:, :chunks]
    return np.asarray((TRUTH + level + rng.normal(scale=0.03, size=(series, chunks))) * CHUNK)


@pytest.mark.parametrize(("series", "chunks", "stale"), [(1, 80, 2), (3, 80, 4), (1, 80, 16), (3, 80, 16)])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(series: int, chunks: int, stale: int) -> None:
    rng = np.random.default_rng(7)
    rows = np.full(chunks, float(CHUNK))
    found = [intervals.paired(differences(rng, series, chunks, stale), rows, stale) for _ in range(120)]
    covered = sum(one.low <= TRUTH <= one.high for one in found) / len(found)
    assert 0.86 <= covered <= 0.995


def test_rows_drawn_one_by_one_would_cover_too_seldom() -> None:
    rng = np.random.default_rng(7)
    rows = np.full(80, float(CHUNK))
    found = [intervals.paired(differences(rng, 1, 80, 16), rows, 1) for _ in range(120)]
    assert sum(one.low <= TRUTH <= one.high for one in found) / len(found) < 0.7


def test_too_few_stretches_give_no_interval() -> None:
    one = intervals.paired(np.full((1, 6), 5.0), np.full(6, 10.0), 2)
    assert (one.mean, one.low, one.high) == (0.5, -math.inf, math.inf)
    assert one.verdict(higher_is_better=True) == "tie"


def test_the_last_chunk_weighs_as_many_rows_as_it_has() -> None:
    one = intervals.paired(np.array([[10.0, 10.0, 10.0, 1.0]]), np.array([10.0, 10.0, 10.0, 1.0]), 1)
    assert [one.mean, one.low, one.high] == pytest.approx([1.0, 1.0, 1.0])


def test_verdicts_follow_the_direction() -> None:
    above, below = Interval(mean=0.2, low=0.1, high=0.3), Interval(mean=-0.2, low=-0.3, high=-0.1)
    assert [above.verdict(higher_is_better=flag) for flag in (True, False)] == ["win", "loss"]
    assert [below.verdict(higher_is_better=flag) for flag in (True, False)] == ["loss", "win"]


def test_those_that_are_equal_share_their_places_and_who_did_not_finish_is_last() -> None:
    values = {"a": 0.9, "b": 0.9, "c": 0.5, "d": None}
    assert ranked(values, higher_is_better=True) == {"a": 1.5, "b": 1.5, "c": 3.0, "d": 4.0}
    assert ranked(values, higher_is_better=False) == {"a": 2.5, "b": 2.5, "c": 1.0, "d": 4.0}


@given(st.lists(st.one_of(st.none(), st.integers(0, 3).map(float)), min_size=1, max_size=9))
def test_ranks_always_sum_to_the_same(values: list[float | None]) -> None:
    found = ranked({str(at): value for at, value in enumerate(values)}, higher_is_better=True)
    assert sum(found.values()) == pytest.approx(len(values) * (len(values) + 1) / 2)
