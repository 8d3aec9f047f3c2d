"""Tables are never further out than they are, by sums of big integers."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtri
from scipy.stats import hypergeom

from monitors.tables import ERROR, SMALL_CELL, deviates, p_values, peizer_pratt, summed

SIZES = st.integers(1, 60)


def one_sided(a: int, n: int, c: int, m: int) -> float:
    """The exact tail on the side where the table is."""
    total, least, most = a + c, max(0, a + c - m), min(n, a + c)
    inner = range(least, a + 1) if a * m < c * n else range(a, most + 1)
    return float(Fraction(sum(comb(n, x) * comb(m, total - x) for x in inner), comb(n + m, total)))


def table(a: int, n: int, c: int, m: int) -> float:
    return float(p_values(deviates(*(np.array([v]) for v in (a, n, c, m))))[0])


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, int, int, int]:
    n, m = draw(SIZES), draw(SIZES)
    return draw(st.integers(0, n)), n, draw(st.integers(0, m)), m


@given(tables())
def test_a_p_value_is_twice_the_exact_tail_or_a_little_more(given_table: tuple[int, int, int, int]) -> None:
    exact = min(1.0, 2 * one_sided(*given_table))

    assert exact * (1 - 1e-9) <= table(*given_table) <= exact * 1.15 + 1e-12


@given(tables())
def test_window_and_reference_and_the_property_and_its_opposite_may_change_places(t: tuple[int, int, int, int]) -> None:
    a, n, c, m = t

    assert table(c, m, a, n) == pytest.approx(table(a, n, c, m), rel=1e-6)
    assert table(n - a, n, m - c, m) == pytest.approx(table(a, n, c, m), rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(50, 500), (50, 100_000), (5_000, 2_000), (50_000, 100_000)])
@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_large_tables_are_within_the_error_that_is_taken_off(n: int, m: int, share: float) -> None:
    pooled = int((n + m) * share)
    deviation = (n * share * (1 - share) * m / (n + m)) ** 0.5
    a = np.unique(np.round(n * share + deviation * np.linspace(0.2, 7, 60)).astype(int))
    cells = np.minimum.reduce([a, n - a, pooled - a, m - pooled + a])
    a = a[cells >= SMALL_CELL]
    exact = -ndtri(hypergeom.sf(a - 1, n + m, pooled, n))
    found = peizer_pratt(*(v.astype(float) for v in (a, n - a, pooled - a, m - pooled + a)))

    assert np.all(found - exact < ERROR)
    assert np.all(found - exact > -0.03)


def test_rare_things_are_summed_exactly() -> None:
    a, n, c, m = 4, 50_000, 1, 100_000
    found = float(summed(*(np.array([float(v)]) for v in (a, n - a, c, m - c)))[0])

    assert found == pytest.approx(one_sided(a, n, c, m), rel=1e-4)
    assert found >= one_sided(a, n, c, m)


def test_a_margin_of_nothing_says_nothing() -> None:
    for empty in ((0, 0, 3, 9), (3, 9, 0, 0), (0, 9, 0, 9), (9, 9, 9, 9)):
        assert table(*empty) == 1.0
