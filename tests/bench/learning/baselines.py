"""What knows only the labels: no-change (the last one known before the block) and majority (or the running mean)."""

import sys

import numpy as np

from tests.bench.learning import worker
from tests.bench.learning.protocol import Forecaster
from tests.bench.learning.scores import Forecast
from tests.bench.learning.stream import Floats, Stream


class Majority:
    """Running frequencies with Laplace's correction; the running mean of numbers."""

    def __init__(self, stream: Stream) -> None:
        self.numeric = stream.task == "regression"
        self.counts = np.zeros(stream.outputs)
        self.total = 0.0

    def take(self, x: Floats) -> int:
        return len(x)

    def predict(self, rows: int) -> Forecast:
        if self.numeric:
            return Forecast(values=np.full(rows, self.total / self.counts[0]))
        return Forecast(values=np.tile((self.counts + 1.0) / (self.counts.sum() + len(self.counts)), (rows, 1)))

    def learn(self, rows: int, y: Floats) -> None:
        if self.numeric:
            self.counts += rows
            self.total += float(y.sum())
        else:
            self.counts += np.bincount(y.astype(np.int64), minlength=len(self.counts))


class NoChange:
    """The last label, with the running frequency (Laplace) with which one has stayed as it was before its block."""

    def __init__(self, stream: Stream) -> None:
        self.numeric = stream.task == "regression"
        self.outputs = stream.outputs
        self.last = float("nan")
        self.agreed = self.seen = 0

    def take(self, x: Floats) -> int:
        return len(x)

    def predict(self, rows: int) -> Forecast:
        if self.numeric:
            return Forecast(values=np.full(rows, self.last))
        stay = (self.agreed + 1) / (self.seen + 2)
        values = np.full((rows, self.outputs), (1.0 - stay) / (self.outputs - 1))
        values[:, int(self.last)] = stay
        return Forecast(values=values, classes=np.full(rows, int(self.last), dtype=np.int64))

    def learn(self, rows: int, y: Floats) -> None:
        if not np.isnan(self.last):
            self.agreed += int((y == self.last).sum())
            self.seen += rows
        self.last = float(y[-1])


def build(name: str, stream: Stream, seed: int) -> Forecaster[int]:
    return NoChange(stream) if name == "no-change" else Majority(stream)


if __name__ == "__main__":
    worker.main(sys.argv[1], build)
