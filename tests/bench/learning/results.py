"""The filled cells as a table to ask: means and spreads over seeds, paired differences, ranks."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tests.bench.learning import intervals, worker
from tests.bench.learning.intervals import Interval
from tests.bench.learning.plan import Slot
from tests.bench.learning.protocol import Cell
from tests.bench.learning.ranks import ranked
from tests.bench.learning.scores import CHUNK
from tests.bench.learning.stream import Floats, Stream

Measure = Literal["first", "second"]
LEAST_CHUNKS = 4  # of a drawn stretch of time


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What the tables need of a stream."""

    real: bool
    numeric: bool
    rows: int
    features: int
    classes: int
    rarest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Cells by stream, learner, block size, then seed; learners and streams in the order of the tables."""

    heads: Mapping[str, Head]
    learners: Sequence[str]
    sizes: Sequence[int]
    cells: Mapping[tuple[str, str, int], Mapping[int, Cell]]

    def values(self, stream: str, learner: str, size: int, measure: Measure) -> list[float] | None:
        """One for each seed; None when one did not finish or none is there. Errors of numbers: MAE and RMSE."""
        cells = self.cells.get((stream, learner, size), {}).values()
        if not cells or not all(cell.finished for cell in cells):
            return None
        root = self.heads[stream].numeric and measure == "second"
        means = [sum(getattr(cell, measure)) / cell.rows for cell in cells]
        return [math.sqrt(mean) if root else mean for mean in means]

    def streams(self, size: int) -> Iterator[str]:
        """Those that were measured with it."""
        yield from (name for name in self.heads if any((name, who, size) in self.cells for who in self.learners))

    def difference(self, stream: str, one: str, other: str, size: int, measure: Measure) -> Interval | None:
        """`one` less `other` a row, of rows that both have forecast. Squared errors, not their root."""
        if self.values(stream, one, size, measure) is None or self.values(stream, other, size, measure) is None:
            return None
        ours, theirs = (self._sums(stream, who, size, measure) for who in (one, other))
        if self.heads[stream].real:  # the same rows for all seeds
            sums = (np.mean([*ours.values()], axis=0) - np.mean([*theirs.values()], axis=0))[None]
        else:
            both = sorted(ours.keys() & theirs.keys())
            sums = np.array([ours[seed] - theirs[seed] for seed in both])
        rows = next(iter(self.cells[stream, one, size].values())).rows
        counts = np.full(sums.shape[1], float(CHUNK))
        counts[-1] = rows - CHUNK * (len(counts) - 1)
        return intervals.paired(sums, counts, max(-(-size // CHUNK), LEAST_CHUNKS))

    def _sums(self, stream: str, learner: str, size: int, measure: Measure) -> dict[int, Floats]:
        return {seed: np.array(getattr(cell, measure)) for seed, cell in self.cells[stream, learner, size].items()}

    def mean_ranks(self, size: int, measure: Measure, streams: Sequence[str]) -> dict[str, float]:
        """Over streams that every learner can learn from; who did not finish is last there."""
        found: dict[str, list[float]] = {name: [] for name in self.learners}
        for stream in streams:
            means = {
                name: None if (v := self.values(stream, name, size, measure)) is None else float(np.mean(v))
                for name in self.learners
                if (stream, name, size) in self.cells
            }
            higher = measure == "first" and not self.heads[stream].numeric
            for name, rank in ranked(means, higher_is_better=higher).items():
                found[name].append(rank)
        return {name: float(np.mean(ranks)) for name, ranks in found.items() if ranks}


def head_of(stream: Stream) -> Head:
    """What the tables need of it."""
    numeric = stream.task == "regression"
    rarest = 0.0 if numeric else float(np.bincount(stream.y.astype(np.int64)).min() / stream.rows)
    return Head(
        real=stream.origin == "real",
        numeric=numeric,
        rows=stream.rows,
        features=len(stream.columns),
        classes=len(stream.classes),
        rarest=rarest,
    )


def collect(slots: Sequence[Slot], heads: Mapping[str, Head]) -> Results:
    """What is filled."""
    cells: dict[tuple[str, str, int], dict[int, Cell]] = {}
    for slot in slots:
        if slot.path.exists():
            cells.setdefault((slot.stream, slot.contestant.name, slot.size), {})[slot.seed] = worker.read(slot.path)
    learners = list(dict.fromkeys(slot.contestant.name for slot in slots))
    sizes = sorted({slot.size for slot in slots})
    return Results(heads=heads, learners=learners, sizes=sizes, cells=cells)
