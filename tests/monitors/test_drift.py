"""The judgement of one window: a shift is found, quiet data is left alone, and too little is never drift."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from monitors.drift import DriftPolicy, chi_squared, critical_value, jensen_shannon, judge, psi
from stream_trainer.contract import BinaryLabel, Categorical, Contract, Numeric
from stream_trainer.reference import HISTOGRAM, Reference, freeze, histogram
from stream_trainer.schema import TIMESTAMP

CONTRACT = Contract(
    features=[Numeric("x", optional=True), Categorical("word", buckets=8, optional=True)],
    label=BinaryLabel("y"),
    key="k",
    event_time="t",
    segments=["place"],
)
POLICY = DriftPolicy()


def _columns(x: NDArray[np.float64], words: list[str | None], places: list[str]) -> dict[str, pa.Array]:
    return {"x": pa.array(x, from_pandas=True), "word": pa.array(words, pa.string()), "place": pa.array(places)}


def _rows(rng: np.random.Generator, rows: int, *, shift: float = 0.0, only: str | None = None) -> dict[str, pa.Array]:
    places = rng.choice(["north", "south"], rows)
    moved = np.where(places == only, shift, 0.0) if only else np.full(rows, shift)
    words = [str(w) for w in rng.choice(["a", "b", "c"], rows, p=[0.6, 0.3, 0.1])]
    return _columns(rng.normal(size=rows) + moved, [*words], [str(p) for p in places])


def _count(reference: Reference, columns: dict[str, pa.Array]) -> pa.Table:
    return histogram(CONTRACT, reference, columns, pa.nulls(len(columns["x"]), TIMESTAMP))


def _learned(rng: np.random.Generator, rows: int = 4_000) -> tuple[Reference, pa.Table]:
    reference = freeze(CONTRACT, _rows(rng, 2_000))
    return reference, _count(reference, _rows(rng, rows))


def test_a_shift_of_one_feature_is_found_and_the_other_is_quiet() -> None:
    rng = np.random.default_rng(1)
    reference, learned = _learned(rng)
    x, word = judge(reference, learned, _count(reference, _rows(rng, 2_000, shift=1.0)), POLICY)

    assert (x.verdict, word.verdict) == ("drift", "quiet")
    assert x.critical
    assert x.statistic > x.threshold > 0
    assert "inf)" in x.detail
    assert "->" in x.detail


def test_the_segments_that_moved_most_are_named() -> None:
    rng = np.random.default_rng(1)
    reference, learned = _learned(rng)
    x, _ = judge(reference, learned, _count(reference, _rows(rng, 2_000, shift=2.0, only="south")), POLICY)

    assert x.verdict == "drift"
    assert "; most in place=south, place=north" in x.detail


def test_a_new_word_is_found() -> None:
    rng = np.random.default_rng(1)
    reference, learned = _learned(rng)
    now = _rows(rng, 1_000)
    now["word"] = pa.array(["z"] * 500 + ["a"] * 500)
    _, word = judge(reference, learned, _count(reference, now), POLICY)

    assert word.verdict == "drift"
    assert word.detail.startswith("*: 0.0% -> 50.0%")


def test_a_column_stuck_at_one_value_is_drift() -> None:
    rng = np.random.default_rng(1)
    reference, learned = _learned(rng)
    now = _rows(rng, 1_000) | {"x": pa.array(np.full(1_000, 0.1))}

    assert judge(reference, learned, _count(reference, now), POLICY)[0].verdict == "drift"


@pytest.mark.parametrize("rows", [200, 500, 2_000])
def test_quiet_windows_hardly_ever_alarm(rows: int) -> None:
    rng = np.random.default_rng(rows)
    reference, learned = _learned(rng)
    found = [v for _ in range(150) for v in judge(reference, learned, _count(reference, _rows(rng, rows)), POLICY)]

    assert sum(v.verdict == "drift" for v in found) <= 1
    assert all(v.verdict != "insufficient data" for v in found)


def test_without_the_least_effect_the_test_alone_keeps_its_level() -> None:
    rng = np.random.default_rng(7)
    reference = freeze(CONTRACT, _rows(rng, 2_000))
    policy = DriftPolicy(alpha=0.05, min_psi=0.0)
    verdicts = []
    for _ in range(300):
        learned, window = _count(reference, _rows(rng, 4_000)), _count(reference, _rows(rng, 500))
        verdicts.append(any(v.verdict == "drift" for v in judge(reference, learned, window, policy)))

    assert 0.01 < np.mean(verdicts) < 0.10


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"x": pa.nulls(1_000, pa.float64())}, "every value in the window is missing"),
        ({"x": pa.array([1.0] * 100 + [None] * 900)}, "100 values in the window, at least 200 are needed"),
    ],
)
def test_too_little_in_the_window_is_insufficient(change: dict[str, pa.Array], detail: str) -> None:
    rng = np.random.default_rng(1)
    reference, learned = _learned(rng)
    x, word = judge(reference, learned, _count(reference, _rows(rng, 1_000) | change), POLICY)

    assert (x.verdict, x.detail) == ("insufficient data", detail)
    assert word.verdict == "quiet"


def test_too_few_rows_a_missing_feature_and_empty_histograms_are_insufficient() -> None:
    rng = np.random.default_rng(1)
    reference, learned = _learned(rng)
    few = _count(reference, _rows(rng, 199))
    without_x = learned.filter(pa.compute.not_equal(learned.column("feature"), "x"))
    empty = HISTOGRAM.empty_table()

    assert {v.verdict for v in judge(reference, learned, few, POLICY)} == {"insufficient data"}
    assert {v.verdict for v in judge(reference, empty, empty, POLICY)} == {"insufficient data"}
    x, word = judge(reference, without_x, _count(reference, _rows(rng, 1_000)), POLICY)
    assert (x.verdict, word.verdict) == ("insufficient data", "quiet")


@pytest.mark.parametrize("value", [5.0, 6.0])
def test_what_was_constant_when_learned_cannot_drift(value: float) -> None:
    rng = np.random.default_rng(1)
    constant = {"x": pa.array(np.full(2_000, 5.0)), "word": pa.array(["a"] * 2_000)}
    reference = freeze(CONTRACT, _rows(rng, 2_000) | constant)
    learned = _count(reference, _rows(rng, 2_000) | constant)
    window = _count(reference, _rows(rng, 2_000) | {"x": pa.array(np.full(2_000, value))})

    assert {v.verdict for v in judge(reference, learned, window, POLICY)} == {"insufficient data"}


def test_bins_that_do_not_exist_are_ignored() -> None:
    rng = np.random.default_rng(1)
    reference, learned = _learned(rng)
    fewer = Reference(tuple(replace(b, edges=b.edges[:3]) if b.edges else b for b in reference.bins))

    assert judge(fewer, learned, _count(reference, _rows(rng, 500)), POLICY)


def test_the_measures_at_their_ends() -> None:
    some, other = np.array([500.0, 0.0]), np.array([0.0, 500.0])
    assert psi(some, some) == 0
    assert jensen_shannon(some, some) == 0
    assert jensen_shannon(some, other) == pytest.approx(1, abs=0.02)
    assert chi_squared(some, some, 5.0) == (0.0, 0)
    statistic, freedom = chi_squared(np.array([30.0, 70.0]), np.array([50.0, 50.0]), 5.0)
    assert (round(statistic, 3), freedom) == (8.333, 1)


@pytest.mark.parametrize(
    ("freedom", "alpha", "exact"),
    [(1, 0.05, 3.841), (3, 0.001, 16.266), (10, 0.001, 29.588), (31, 0.0001, 69.90)],
)
def test_the_critical_value_is_within_a_few_per_cent_of_the_tables(freedom: int, alpha: float, exact: float) -> None:
    assert critical_value(freedom, alpha) == pytest.approx(exact, rel=0.05)
