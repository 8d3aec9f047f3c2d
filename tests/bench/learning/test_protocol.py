import itertools
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.learning import baselines, ours, protocol, scores, synthetic
from tests.bench.learning.protocol import Cell
from tests.bench.learning.scores import CHUNK, Forecast
from tests.bench.learning.stream import Column, Floats, Stream


def numbered(rows: int) -> Stream:
    """Row i has the feature i and the label i: what was shown tells when."""
    at = np.arange(rows, dtype=np.float64)
    return Stream(
        name="numbered", origin="generator", task="regression", columns=(Column(name="x"),), classes=(),
        x=at[:, None], y=at,
    )  # fmt: skip


class Recorder:
    """Notes what it was shown, in order; forecasts the number of rows that it has learned."""

    def __init__(self) -> None:
        self.learned: list[float] = []
        self.asked: list[tuple[int, list[float]]] = []

    def take(self, x: Floats) -> list[float]:
        return [float(v) for v in x[:, 0]]

    def predict(self, rows: list[float]) -> Forecast:
        self.asked.append((len(self.learned), rows))
        return Forecast(values=np.full(len(rows), float(len(self.learned))))

    def learn(self, rows: list[float], y: Floats) -> None:
        assert rows == y.tolist()
        self.learned += rows


def run(recorder: Recorder, rows: int, lengths: Mapping[int, int]) -> list[Cell]:
    return protocol.run(recorder, numbered(rows), lengths, clock=itertools.count().__next__, limit=1e9)


@given(rows=st.integers(2, 300), size=st.integers(1, 100))
def test_a_block_is_forecast_before_any_of_its_rows_is_learned(rows: int, size: int) -> None:
    recorder = Recorder()
    run(recorder, rows, {size: rows})
    assert recorder.learned == list(range(rows))
    for learned, asked in recorder.asked:
        assert asked == list(range(learned, min(learned + size, rows)))
    assert [learned for learned, _ in recorder.asked] == list(range(size, rows, size))


@given(rows=st.integers(2, 200), sizes=st.lists(st.integers(1, 64), min_size=1, max_size=4, unique=True))
def test_sizes_that_share_a_pass_score_as_if_alone(rows: int, sizes: list[int]) -> None:
    lengths = {size: max(rows // (1 + at), 1) for at, size in enumerate(sizes)}
    together = run(Recorder(), rows, lengths)
    for cell, (size, length) in zip(together, lengths.items(), strict=True):
        (alone,) = run(Recorder(), rows, {size: length})
        assert (cell.first, cell.second, cell.rows) == (alone.first, alone.second, alone.rows)


def test_errors_are_those_of_stale_forecasts() -> None:
    (cell,) = run(Recorder(), 6, {2: 6})
    # Blocks (0, 1), (2, 3), (4, 5), forecast by 0, 2 and 4.
    assert list(cell.first) == [0 + 1 + 0 + 1 + 0 + 1]
    assert cell.finished


def test_a_pass_that_takes_too_long_says_how_far_it_came() -> None:
    (cell,) = protocol.run(Recorder(), numbered(100), {10: 100}, clock=itertools.count().__next__, limit=6)
    assert (cell.scored, cell.rows) == (20, 100)
    assert not cell.finished


def test_probabilities_are_floored_alike_and_broken_ones_count_as_uniform() -> None:
    forecast = Forecast(values=np.array([[0.0, 1.0], [np.nan, 1.0], [0.0, 0.0]]))
    found = scores.score("binary", forecast, np.array([0.0, 1.0, 1.0]))
    np.testing.assert_allclose(found.second, [-np.log(1e-3 / 1.001), np.log(2), np.log(2)])
    assert found.broken == 1


def test_sums_of_time_hold_every_row_once() -> None:
    values = np.arange(2 * CHUNK + 3, dtype=np.float64)
    sums = scores.chunk_sums(values)
    assert len(sums) == 3
    assert sum(sums) == values.sum()


def test_baselines_know_labels_only_from_before_the_block() -> None:
    y = np.array([0, 0, 1, 1, 1, 0], dtype=np.float64)
    stream = Stream(
        name="s", origin="real", task="binary", columns=(Column(name="x"),), classes=("0", "1"), x=y[:, None], y=y
    )
    (cell,) = protocol.run(baselines.NoChange(stream), stream, {2: 6}, clock=lambda: 0.0, limit=1.0)
    # Uniform forecasts class 0 twice (right), then 0 against 1, 1 (wrong), then 1 against 1, 0.
    assert cell.first == (3.0,)
    (cell,) = protocol.run(baselines.Majority(stream), stream, {3: 6}, clock=lambda: 0.0, limit=1.0)
    assert cell.first == (3.0,)
    second = [np.log(2)] * 3 + [-np.log(2 / 5)] * 2 + [-np.log(3 / 5)]
    assert cell.second == pytest.approx((sum(second),))


@pytest.mark.parametrize("name", ["imbalanced", "moving-classes", "heavy-tail"])
def test_the_default_learner_runs_on_the_real_path_and_repeats(name: str) -> None:
    stream = synthetic.make(name, 512, 3)
    cells = [protocol.run(ours.Ours(stream, 1), stream, {64: 512}, clock=lambda: 0.0, limit=1.0)[0] for _ in range(2)]
    assert cells[0] == cells[1]
    assert (cells[0].scored, cells[0].broken) == (512, 0)


def test_categories_and_missing_values_reach_the_contract() -> None:
    x = np.array([[0.5, 1.0], [np.nan, 0.0], [2.0, np.nan]])
    columns = (Column(name="a"), Column(name="b", words=("p", "q")))
    stream = Stream(
        name="s", origin="real", task="binary", columns=columns, classes=("n", "y"), x=x, y=np.array([0.0, 1.0, 1.0])
    )
    one = ours.Ours(stream, 0)
    assert one.pipeline.spec.columns == ("a", "a?", "b=p", "b=q", "b=*")
    rows = one.take(x)
    assert rows["a"].to_pylist() == [0.5, None, 2.0]
    assert rows["b"].to_pylist() == ["q", "p", None]
    one.learn(rows, stream.y)
    assert one.predict(rows).values.shape == (3, 2)
