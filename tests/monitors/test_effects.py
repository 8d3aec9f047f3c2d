"""Sizes of differences: at their ends, and on average nothing while nothing has changed."""

import numpy as np
import pytest

from monitors.effects import GROUPS, effects, groups, jensen_shannon, kolmogorov_smirnov, psi, wasserstein


def test_the_measures_at_their_ends() -> None:
    some, other = np.array([[500, 0]]), np.array([[0, 500]])

    for measure in (psi, jensen_shannon, kolmogorov_smirnov, wasserstein):
        assert measure(some, some)[0] == 0
    assert jensen_shannon(some, other)[0] == pytest.approx(1, abs=0.02)
    assert kolmogorov_smirnov(some, other)[0] == 1


def test_wasserstein_is_the_shift_in_deviations_of_the_reference() -> None:
    reference, window = np.array([[0, 10, 20, 10, 0, 0]]), np.array([[0, 0, 10, 20, 10, 0]])
    places = np.array([[0.0, 10.0, 20.0, 30.0, 40.0, 50.0]])

    assert wasserstein(window, reference)[0] == pytest.approx(1 / 0.5**0.5)
    assert wasserstein(window, reference, places)[0] == pytest.approx(1 / 0.5**0.5)


@pytest.mark.parametrize("rows", [50, 1_000])
@pytest.mark.parametrize("ordered", [True, False])
def test_chance_adds_little_to_an_effect(rows: int, ordered: bool) -> None:
    rng = np.random.default_rng(1)
    shares = np.full(128, 1 / 128)
    found = effects(rng.multinomial(rows, shares, 500), rng.multinomial(20_000, shares, 500), ordered=ordered)

    assert found.psi.mean() < 4 / rows
    assert found.jensen_shannon.mean() < 1 / rows
    assert np.all(found.psi >= 0)


def test_at_most_sixteen_groups_hold_all_rows() -> None:
    rng = np.random.default_rng(1)
    window, reference = rng.integers(0, 9, (5, 130)), rng.integers(0, 9, (5, 130))

    for ordered in (True, False):
        now, before = groups(window, reference, ordered=ordered)
        assert now.shape == before.shape == (5, GROUPS)
        assert np.array_equal(now.sum(axis=1), window.sum(axis=1))
        assert np.array_equal(before.sum(axis=1), reference.sum(axis=1))


def test_nothing_counted_is_no_effect() -> None:
    nothing = np.zeros((1, 4), dtype=np.int64)
    found = effects(nothing, nothing, ordered=True)

    assert [found.psi[0], found.jensen_shannon[0]] == [0, 0]
