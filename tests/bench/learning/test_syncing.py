import numpy as np
import pytest

from tests.bench.learning import syncing
from tests.bench.learning.scores import Forecast
from tests.bench.learning.stream import Column, Floats, Stream
from tests.bench.learning.syncing import FROZEN, MICRO_BATCH, tail

ROWS = 1_400


def numbered() -> Stream:
    """Row i has the feature i and the label i: what was shown tells when."""
    at = np.arange(ROWS, dtype=np.float64)
    columns = (Column(name="x"),)
    return Stream(
        name="numbered", origin="generator", task="regression", columns=columns, classes=(), x=at[:, None], y=at
    )


class Recorder:
    """Notes what it was shown, in order; forecasts the number of rows that it has learned."""

    def __init__(self) -> None:
        self.learned: list[float] = []
        self.blocks: list[int] = []
        self.asked: list[tuple[int, list[float]]] = []

    def take(self, x: Floats) -> list[float]:
        return [float(v) for v in x[:, 0]]

    def predict(self, rows: list[float]) -> Forecast:
        self.asked.append((len(self.learned), rows))
        return Forecast(values=np.full(len(rows), float(len(self.learned))))

    def learn(self, rows: list[float], y: Floats) -> None:
        assert rows == y.tolist()
        self.learned += rows
        self.blocks.append(len(rows))


@pytest.mark.parametrize("shards", [FROZEN, 1, 3, 10])
def test_a_shard_is_forecast_before_it_is_learned_and_frozen_weights_learn_nothing_of_the_tail(shards: int) -> None:
    recorder, first = Recorder(), tail(ROWS)
    cell = syncing.run(recorder, numbered(), shards, clock=iter([0.0, 7.0]).__next__)  # type: ignore[arg-type]
    assert [row for _, rows in recorder.asked for row in rows] == list(range(first, ROWS))
    assert len(recorder.asked) == max(shards, 1)
    for known, rows in recorder.asked:
        assert known == rows[0]
    assert recorder.learned == list(range(first if shards == FROZEN else ROWS))
    assert max(recorder.blocks) == MICRO_BATCH
    assert (cell.size, cell.rows, cell.scored, cell.seconds, cell.auc) == (shards, 400, 400, (0.0, 7.0), None)
    errors = [abs(row - known) for known, rows in recorder.asked for row in rows]
    assert sum(cell.first) == pytest.approx(sum(errors))
