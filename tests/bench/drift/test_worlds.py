"""Rows and bin counts of a world are drawn from the same law."""

import numpy as np
import pytest

from tests.bench.drift import vocabularies
from tests.bench.drift.worlds import (
    CHANGES,
    QUIET,
    VOCABULARIES,
    WORDS,
    Change,
    Family,
    bin_shares,
    draw,
    families,
    frame,
    words,
)

NUMBERS: tuple[Family, ...] = ("normal", "lognormal", "ties")
MANY = 200_000


@pytest.mark.parametrize("change", [QUIET, *CHANGES], ids=lambda c: c.name)
@pytest.mark.parametrize("family", NUMBERS)
def test_rows_fall_into_bins_as_often_as_the_shares_say(family: Family, change: Change) -> None:
    rng = np.random.default_rng(1)
    cuts = np.unique(np.quantile(draw(family, rng, 2_000), np.arange(1, 16) / 16))
    found = np.bincount(np.searchsorted(cuts, draw(family, rng, MANY, change), side="right"), minlength=len(cuts) + 1)

    assert found / MANY == pytest.approx(bin_shares(family, cuts, change), abs=0.005)


@pytest.mark.parametrize("change", [QUIET, CHANGES[-1]], ids=lambda c: c.name)
def test_words_come_as_often_as_the_shares_say(change: Change) -> None:
    drawn = draw("rare", np.random.default_rng(1), MANY, change)
    found = np.array([np.mean(drawn == word) for word in words()])

    assert found == pytest.approx(bin_shares("rare", np.zeros(0), change), abs=0.004)
    assert bin_shares("rare", np.zeros(0), change).sum() == pytest.approx(1)
    assert len(found) == WORDS


def test_two_humps_keep_mean_and_variance() -> None:
    [humps] = [c for c in CHANGES if c.gap]
    values = draw("normal", np.random.default_rng(1), MANY, humps)

    assert (values.mean(), values.std()) == pytest.approx((0, 1), abs=0.01)


def test_only_the_named_features_change() -> None:
    shift = CHANGES[2]
    window = frame(np.random.default_rng(1), 5_000, 5, shift, changed=[4])

    assert [name.split("_")[0] for name in window] == families(5) == ["normal", "lognormal", "ties", "rare", "normal"]
    assert window["normal_0"].mean() == pytest.approx(0, abs=0.06)
    assert window["normal_4"].mean() == pytest.approx(0.5, abs=0.06)
    assert [change.applies("rare") for change in CHANGES] == [False] * 5 + [True]


def test_vocabularies_are_laws() -> None:
    assert [shares.sum() for shares in VOCABULARIES.values()] == pytest.approx([1.0] * len(VOCABULARIES))


def test_quiet_words_alarm_no_more_often_than_stated() -> None:
    assert vocabularies.rate("100 words alike", 2_000, 100) <= 0.1
