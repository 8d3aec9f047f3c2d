"""Quality against the sync interval: Algorithm 1 of Monolith (arXiv 2209.07663), with our default learner.

The first 5/7 of a stream are learned, as one pass of micro-batches. The rest is cut into shards: each is forecast with
the weights that serve, then learned, then the weights that serve are replaced. `FROZEN`: they never are.
"""

import itertools
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.bench.learning import ours, scores, worker
from tests.bench.learning.protocol import Cell, Clock, Forecaster
from tests.bench.learning.scores import Scores
from tests.bench.learning.stream import Floats, Stream

FROZEN = 0
SHARDS = (FROZEN, 10, 50, 100)
MICRO_BATCH = 256
STREAMS = ("flights", "sea-gradual", "agrawal-gradual", "hyperplane", "rbf-drift", "imbalanced")


def tail(rows: int) -> int:
    """The first row that is forecast."""
    return rows * 5 // 7


def run(forecaster: Forecaster[ours.Columns], stream: Stream, shards: int, *, clock: Clock) -> Cell:
    """Forecast the tail of a stream in so many shards; `Cell.size` is their number."""
    started, first = clock(), tail(stream.rows)
    _learn(forecaster, stream, 0, first)
    bounds = np.linspace(first, stream.rows, max(shards, 1) + 1).astype(int).tolist()
    found: list[Scores] = []
    for start, stop in itertools.pairwise(bounds):
        forecast = forecaster.predict(forecaster.take(stream.x[start:stop]))
        found.append(scores.score(stream.task, forecast, stream.y[start:stop]))
        if shards != FROZEN:
            _learn(forecaster, stream, start, stop)
    parts: Mapping[str, Floats] = {
        name: np.concatenate([getattr(part, name) for part in found]) for name in ("first", "second", "positive")
    }
    return Cell(
        task=stream.task,
        size=shards,
        rows=stream.rows - first,
        scored=len(parts["first"]),
        first=tuple(scores.chunk_sums(parts["first"])),
        second=tuple(scores.chunk_sums(parts["second"])),
        auc=scores.roc_auc(parts["positive"], stream.y[first:]) if stream.task == "binary" else None,
        seconds=(0.0, clock() - started),
        broken=sum(part.broken for part in found),
        limit=float("inf"),
    )


def _learn(forecaster: Forecaster[ours.Columns], stream: Stream, start: int, stop: int) -> None:
    for at in range(start, stop, MICRO_BATCH):
        end = min(at + MICRO_BATCH, stop)
        forecaster.learn(forecaster.take(stream.x[at:end]), stream.y[at:end])


def main(path: str) -> None:
    """Do the job in the file `path`; its sizes are numbers of shards."""
    job = worker.Job.load(Path(path))
    stream = Stream.load(job.stream)
    for shards, cell in job.cells.items():
        worker.write(cell, run(ours.Ours(stream, job.seed), stream, shards, clock=time.process_time))


if __name__ == "__main__":
    main(sys.argv[1])
