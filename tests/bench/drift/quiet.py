"""A stream in which nothing ever changes: rows drawn with return from one pool, so windows are exchangeable by construction.

Features share a hidden factor, some are missing together, some are mostly one value, some words are rare; the model's answers
are too sure, and labels come true as the pool says. Counts are those of the monitor's workers, of the drawn rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from monitors.baseline import Frozen
from monitors.performance.counting import figures
from monitors.performance.tally import Tally
from stream_trainer.contract import BinaryLabel, Categorical, Contract, Numeric
from stream_trainer.reference import LABEL, OUTPUT, Coded, coded, freeze
from stream_trainer.reference.counting import Cells

POOL, FROZEN_ROWS = 100_000, 20_000
RHO = 0.8
NUMBERS, SEGMENTS = 9, ("shop", "region", "plan")
_TOGETHER = 64
Floats = NDArray[np.float64]

contract = Contract(
    features=[
        *(Numeric(f"number_{i}", optional=True) for i in range(NUMBERS)),
        *(Categorical(name, buckets=64) for name in (*SEGMENTS, "device", "word")),
    ],
    label=BinaryLabel("hit"),
    key="id",
    event_time="at",
    segments=SEGMENTS,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The rows of one window: its cells, and how the answers turned out."""

    rows: int
    cells: Cells
    tally: Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """What is drawn from: columns as the decoder hands them on, answers and labels `[rows]`, segments as texts."""

    columns: Mapping[str, pa.Array]
    answers: Floats
    labels: Floats
    segments: Mapping[str, NDArray[np.str_]]


def pool(rng: np.random.Generator, rows: int = POOL) -> Pool:
    """So many rows whose hidden values correlate by `RHO`."""
    factor = rng.normal(size=rows)
    hidden = np.sqrt(RHO) * factor + np.sqrt(1 - RHO) * rng.normal(size=(NUMBERS + 4, rows))
    numbers = [*hidden[:3], np.exp(hidden[3]), *np.floor(2 * np.maximum(hidden[4:6], 0.0))]
    numbers += [np.where(hidden[6] > 1.0, hidden[6], 0.0), *hidden[7:9]]
    absent = rng.random(rows) < 0.05
    for i in (2, 7):  # two go missing together, a third seldom
        numbers[i] = np.where(absent, np.nan, numbers[i])
    numbers[8] = np.where(rng.random(rows) < 0.003, np.nan, numbers[8])
    shares = 1 / np.arange(1, 31) ** 2.0
    words = {
        "shop": np.searchsorted([-0.3, 1.0], hidden[9]),
        "region": np.searchsorted([0.3], hidden[10]),
        "plan": np.searchsorted([1.6], hidden[11]),
        "device": np.searchsorted(np.linspace(-2.5, 2.5, 11), hidden[12]),
        "word": rng.choice(30, rows, p=shares / shares.sum()),
    }
    texts = {name: np.char.add(name[0], codes.astype(str)) for name, codes in words.items()}
    score = 0.8 * factor - 1.0 + 0.4 * rng.normal(size=rows)
    labels = (rng.random(rows) < 1 / (1 + np.exp(-score))).astype(np.float64)
    answers = 1 / (1 + np.exp(-1.3 * score))
    columns = {f"number_{i}": pa.array(values, from_pandas=True) for i, values in enumerate(numbers)}
    columns |= {name: pa.array(values) for name, values in texts.items()}
    columns |= {LABEL: pa.array(labels), OUTPUT: pa.array(answers[:, None].tolist())}
    return Pool(columns=columns, answers=answers, labels=labels, segments={name: texts[name] for name in SEGMENTS})


class Stream:
    """Bins frozen over rows drawn from the pool, and windows of such rows, the same for the same seed."""

    def __init__(self, drawn: Pool, seed: Sequence[int]) -> None:
        self._rng = np.random.default_rng(seed)
        self._pool = drawn
        first = pa.array(self._rng.integers(0, len(drawn.labels), FROZEN_ROWS))
        reference = freeze(contract, {name: column.take(first) for name, column in drawn.columns.items()})
        self.frozen = Frozen("quiet", reference)
        self._coded = coded(contract, reference, drawn.columns)

    def windows(self, many: int, rows: int) -> Iterator[Window]:
        """So many windows, of about so many rows (Poisson)."""
        for start in range(0, many, _TOGETHER):
            sizes = self._rng.poisson(rows, min(_TOGETHER, many - start))
            drawn = self._rng.integers(0, len(self._pool.labels), sizes.sum())
            counted = taken(self._coded, drawn).count(np.repeat(np.arange(len(sizes)), sizes), len(sizes))
            for cells, chosen in zip(counted, np.split(drawn, np.cumsum(sizes)[:-1]), strict=True):
                yield Window(rows=len(chosen), cells=cells, tally=self._tally(chosen))

    def _tally(self, drawn: Cells) -> Tally:
        segments = {name: values[drawn].tolist() for name, values in self._pool.segments.items()}
        versions = np.ones(len(drawn), np.int64)
        return figures("binary", self._pool.answers[drawn, None], self._pool.labels[drawn], versions, segments)


def taken(every: Coded, drawn: Cells) -> Coded:
    """The rows with these numbers, each as often as it is drawn."""
    return replace(
        every,
        rows=len(drawn),
        places=every.places[:, drawn],
        steps=every.steps[:, drawn],
        segments=tuple(codes[drawn] for codes in every.segments),
    )
