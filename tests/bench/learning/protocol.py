"""Test-then-train in blocks, and what was scored. A learner is shown a block's labels only after it has forecast it.

Several block sizes share one pass where learning goes row by row: then the weights before a row do not depend on how
the rows were cut, and each size only asks at other moments.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np

from tests.bench.learning import scores
from tests.bench.learning.scores import Forecast, Scores
from tests.bench.learning.stream import Floats, Stream

R = TypeVar("R")
Clock = Callable[[], float]


class Forecaster(Protocol[R]):
    """What takes part."""

    def take(self, x: Floats) -> R:
        """Rows out of the file's format; not timed."""
        ...

    def predict(self, rows: R) -> Forecast:
        """With the weights as they are. Not called before something was learned."""
        ...

    def learn(self, rows: R, y: Floats) -> None:
        """Rows in time order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One learner, stream, block size and seed.

    Attributes:
        rows: how many were to be forecast.
        scored: how many were; fewer when the time limit ended it.
        first: sums over `CHUNK` rows of hits, or absolute errors.
        second: the same of log loss, or squared errors.
        auc: of a binary stream that has both classes.
        seconds: of forecasts and of learning.
        broken: forecasts that were not finite.
        limit: seconds that it had.
    """

    task: str
    size: int
    rows: int
    scored: int
    first: tuple[float, ...]
    second: tuple[float, ...]
    auc: float | None
    seconds: tuple[float, float]
    broken: int
    limit: float

    @property
    def finished(self) -> bool:
        """Whether the time limit was kept."""
        return self.scored == self.rows


@dataclass(slots=True)
class _Tally:
    """A cell that is being filled."""

    size: int
    rows: int
    found: list[Scores] = field(default_factory=list)
    predicting: float = 0.0
    learning: float = 0.0

    def closed(self, stream: Stream, limit: float) -> Cell:
        parts = {name: _joined(self.found, name) for name in ("first", "second", "positive")}
        scored = len(parts["first"])
        return Cell(
            task=stream.task,
            size=self.size,
            rows=self.rows,
            scored=scored,
            first=tuple(scores.chunk_sums(parts["first"])),
            second=tuple(scores.chunk_sums(parts["second"])),
            auc=scores.roc_auc(parts["positive"], stream.y[:scored]) if stream.task == "binary" else None,
            seconds=(self.predicting, self.learning),
            broken=sum(part.broken for part in self.found),
            limit=limit,
        )


def run(
    forecaster: Forecaster[Any], stream: Stream, lengths: Mapping[int, int], *, clock: Clock, limit: float
) -> list[Cell]:
    """Forecast and learn a stream from its first row on.

    Args:
        forecaster: fresh.
        stream: what there is.
        lengths: from each block size to how many rows are forecast; several only for who learns row by row.
        clock: CPU seconds.
        limit: it is stopped between two blocks after so many seconds.
    """
    tallies = [_Tally(size=size, rows=rows) for size, rows in lengths.items()]
    started = clock()
    for start, stop in itertools.pairwise(_boundaries(lengths)):
        for tally in tallies:
            if start < tally.rows and start % tally.size == 0:
                _forecast(forecaster, stream, tally, start, clock)
        rows, y = forecaster.take(stream.x[start:stop]), stream.y[start:stop]
        before = clock()
        forecaster.learn(rows, y)
        spent = clock() - before
        for tally in tallies:
            tally.learning += spent if start < tally.rows else 0.0
        if clock() - started > limit:
            break
    return [tally.closed(stream, limit) for tally in tallies]


def _boundaries(lengths: Mapping[int, int]) -> list[int]:
    """Where a block of any size begins or the rows of one end."""
    starts = {start for size, rows in lengths.items() for start in range(0, rows, size)}
    return sorted(starts | set(lengths.values()))


def _forecast(forecaster: Forecaster[Any], stream: Stream, tally: _Tally, start: int, clock: Clock) -> None:
    stop = min(start + tally.size, tally.rows)
    if start:
        rows = forecaster.take(stream.x[start:stop])
        before = clock()
        forecast = forecaster.predict(rows)
        tally.predicting += clock() - before
    else:
        forecast = scores.uniform(stream.task, stream.outputs, stop)
    tally.found.append(scores.score(stream.task, forecast, stream.y[start:stop]))


def _joined(found: list[Scores], name: str) -> Floats:
    return np.concatenate([getattr(part, name) for part in found]) if found else np.zeros(0)
