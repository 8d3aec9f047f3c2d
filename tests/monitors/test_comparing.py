"""Comparing counts: valid at every size and level, the same from both sides, and not blind."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from monitors.comparing import compare, compare_shares

UNIFORM = np.full(128, 1 / 128)
TIES = np.array([0.7, *[0.3 / 9] * 9])
RARE = 1 / np.arange(1, 31) ** 2.0 / np.sum(1 / np.arange(1, 31) ** 2.0)
LAWS = {"uniform": (UNIFORM, True), "ties": (TIES, True), "rare": (RARE, False)}
DRAWS = 4_000
COUNTS = arrays(np.int64, st.tuples(st.just(3), st.integers(2, 20)), elements=st.integers(0, 300))


def one(window: list[int], reference: list[int], *, ordered: bool = True) -> float:
    return float(compare(np.array([window]), np.array([reference]), ordered=ordered).p_value[0])


@pytest.mark.parametrize("reference_rows", [500, 2_000, 100_000])
@pytest.mark.parametrize("rows", [50, 200, 1_000, 50_000])
@pytest.mark.parametrize("law", LAWS)
def test_chance_alone_seldom_shows_less_than_the_level(law: str, rows: int, reference_rows: int) -> None:
    shares, ordered = LAWS[law]
    rng = np.random.default_rng(rows + reference_rows)
    found = compare(
        rng.multinomial(rows, shares, DRAWS), rng.multinomial(reference_rows, shares, DRAWS), ordered=ordered
    ).p_value

    for level in (0.1, 0.01, 0.001):
        # Four deviations of the number that would be found at exactly this level.
        assert np.sum(found <= level) <= level * DRAWS + 4 * (level * DRAWS) ** 0.5


@pytest.mark.parametrize("rows", [50, 1_000])
def test_bins_that_are_the_references_own_quantiles_are_valid_too(rows: int) -> None:
    rng, draws = np.random.default_rng(rows), 3_000
    windows, references = [], []
    for _ in range(draws):
        learned = rng.normal(size=500)
        cuts = np.quantile(learned, np.arange(1, 64) / 64)
        references.append(np.bincount(np.searchsorted(cuts, learned), minlength=64))
        windows.append(np.bincount(np.searchsorted(cuts, rng.normal(size=rows)), minlength=64))
    found = compare(np.stack(windows), np.stack(references), ordered=True).p_value

    for level in (0.1, 0.01):
        assert np.sum(found <= level) <= level * draws + 4 * (level * draws) ** 0.5


@given(COUNTS, st.booleans(), st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_a_p_value_is_the_same_from_both_sides(window: NDArray[np.int64], ordered: bool, random: object) -> None:
    reference = window[::-1]
    there, back = (compare(a, b, ordered=ordered) for a, b in ((window, reference), (reference, window)))

    assert there.p_value == pytest.approx(back.p_value, rel=1e-4)
    assert np.array_equal(there.freedom, back.freedom)
    assert np.all((there.p_value >= 0) & (there.p_value <= 1))


@given(COUNTS)
@settings(max_examples=50)
def test_equal_counts_are_no_difference(window: NDArray[np.int64]) -> None:
    for ordered in (True, False):
        assert np.all(compare(window, window, ordered=ordered).p_value == 1.0)


@given(st.permutations(range(6)))
def test_categories_have_no_order(order: list[int]) -> None:
    window, reference = [50, 40, 31, 20, 10, 5], [900, 400, 340, 210, 160, 60]

    assert one([window[i] for i in order], [reference[i] for i in order], ordered=False) == pytest.approx(
        one(window, reference, ordered=False)
    )


def test_rows_are_answered_alone_whatever_is_asked_beside_them() -> None:
    rng = np.random.default_rng(1)
    window, reference = rng.multinomial(300, UNIFORM, 9_000), rng.multinomial(3_000, UNIFORM, 9_000)
    together = compare(window, reference, ordered=True).p_value

    assert together[4_095:4_098] == pytest.approx(
        compare(window[4_095:4_098], reference[4_095:4_098], ordered=True).p_value
    )


def test_what_changed_is_found() -> None:
    reference = [1_000] * 16
    shifted = [40, 45, 50, 55, 60, 60, 60, 60, 65, 65, 65, 65, 70, 75, 80, 85]
    stuck = [55] * 15 + [175]

    assert one(shifted, reference) < 1e-3
    assert one(stuck, reference) < 1e-12
    assert one(stuck, reference, ordered=False) < 1e-12
    assert one([55] * 16, reference) == 1.0


def test_too_few_rows_or_one_bin_compare_nothing() -> None:
    found = compare(
        np.array([[3, 2, 0], [90, 0, 0], [0, 0, 0]]), np.array([[4, 4, 1], [500, 0, 0], [9, 9, 9]]), ordered=True
    )

    assert list(found.p_value) == [1.0, 1.0, 1.0]
    assert list(found.freedom) == [0, 0, 0]


def test_one_row_anywhere_changes_little() -> None:
    window, reference = [30, 30, 30, 30], [1_000, 1_000, 1_000, 1_000]

    assert one([*window, 0, 0], [*reference, 0, 0]) > 0.9
    assert one([*window, 0, 1], [*reference, 0, 0]) > 0.9


def test_shares_are_compared_at_any_rarity() -> None:
    found = compare_shares(np.array([0, 9, 3]), np.array([500] * 3), np.array([0, 0, 300]), np.array([50_000] * 3))

    assert list(found.freedom) == [0, 1, 1]
    assert found.p_value[0] == found.p_value[2] == 1.0
    assert found.p_value[1] < 1e-15
