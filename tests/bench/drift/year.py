"""The flights of a year, counted by the day of their scheduled departure, in their own order or in any other.

Pure: no Kafka, no Spark, no model. What a version would have learned when a day begins is the week before it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from examples.flights.data import WEATHER, Timeline
from examples.flights.pipeline import contract, pipeline
from monitors import life
from monitors.alerts import Alert
from monitors.baseline import Baseline, Frozen
from monitors.consequences import telling
from monitors.content import Content
from monitors.findings import Finding
from monitors.judging import Judge, Judgement
from monitors.life import Life, LifePolicy
from monitors.missing import both_missing, watched_columns
from monitors.performance.step import PerformanceState
from monitors.questions import Compared
from monitors.scales import Blocks
from monitors.usual import Usual
from monitors.windows import Closed
from stream_trainer.reference import LABEL, coded, freeze, pack
from stream_trainer.reference.counting import Cells

DAY = timedelta(days=1)
MONITORING = pipeline.monitoring  # windows of a day
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WEEK = pipeline.reference_hours // 24
Columns = Mapping[str, pa.Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """What one day of predictions, or of labels, has shown."""

    start: datetime
    findings: list[Finding]
    events: list[Alert]


def columns_of(timeline: Timeline) -> Columns:
    """The flights that arrived, as the contract has them, and `_label`."""
    day, minute = np.divmod(timeline.local_minute, 1440)
    known = timeline.weather_row >= 0
    weather = np.where(known[:, None], timeline.weather[timeline.weather_row], np.nan)
    numbers = {
        "dep_hour": minute / 60,
        "day_of_week": (day + 3) % 7,
        "distance": timeline.distance,
        "scheduled_minutes": timeline.scheduled_minutes,
        **{name: weather[:, i] for i, name in enumerate(WEATHER)},
        LABEL: timeline.late,
    }
    words = {
        "carrier": (timeline.carriers, timeline.carrier),
        "origin": (timeline.origins, timeline.origin),
        "dest": (timeline.dests, timeline.dest),
    }
    arrived = timeline.late >= 0
    return {name: pa.array(np.asarray(v, np.float64)[arrived], from_pandas=True) for name, v in numbers.items()} | {
        name: pa.array(names, pa.string()).take(pa.array(codes[arrived])) for name, (names, codes) in words.items()
    }


def days_of(timeline: Timeline) -> NDArray[np.int64]:
    """The window of each flight that arrived: days since 1970, UTC."""
    return timeline.scheduled_at[timeline.late >= 0] // 86_400


def watched(columns: Columns, days: NDArray[np.int64]) -> list[Day]:
    """A year from its second week on, day by day.

    Args:
        columns: flights, as `columns_of` gives them, in any order.
        days: the window of each, ascending.
    """
    numbers, groups = np.unique(days, return_inverse=True)
    first_week = int(np.searchsorted(days, numbers[0] + _WEEK))
    chooses = np.arange(first_week) % 2 == 0
    reference = freeze(contract, {name: column.slice(0, first_week) for name, column in columns.items()}, chooses)
    kept = np.concatenate([~chooses, np.ones(len(days) - first_week, bool)])
    columns, groups = {name: column.filter(pa.array(kept)) for name, column in columns.items()}, groups[kept]
    counted = coded(contract, reference, columns).count(groups.astype(np.int64), len(numbers))
    frozen = Frozen("year", reference)
    rows = np.bincount(groups)
    firsts = np.cumsum(rows) - rows
    state = _Watch()
    found = []
    for i in range(_WEEK, len(numbers)):
        served = Baseline(i, frozen, counted[i - _WEEK : i].sum(axis=0))
        here = {name: column.slice(firsts[i], rows[i]) for name, column in columns.items()}
        closed = _closed(int(numbers[i]), int(rows[i]), counted[i], both_missing(watched_columns(reference), here))
        found.append(state.take(closed, Compared(frozen=frozen, served=served)))
    return found


class _Watch:
    """The monitor's own steps, predictions before labels: judge, then open, continue and end alerts."""

    def __init__(self) -> None:
        self._judge = Judge(pipeline=pipeline.name, monitoring=MONITORING)
        self._policy = LifePolicy()
        self._life = Life()
        self._predictions: Blocks[Content] = Blocks()
        self._examples: Blocks[Content] = Blocks()
        self._usual = Usual(), Usual()

    def take(self, closed: Closed, compared: Compared) -> Day:
        of_rows, of_labels = self._usual
        predictions = self._judge.predictions(closed, compared, self._predictions, PerformanceState(), of_rows)
        examples = self._judge.examples(closed, compared, self._examples, PerformanceState(), of_labels)
        self._usual = predictions.usual, examples.usual
        self._predictions, self._examples = predictions.blocks, examples.blocks
        events = [*self._stepped(predictions), *self._stepped(examples)]
        return Day(start=closed.start, findings=[*predictions.findings, *examples.findings], events=events)

    def _stepped(self, found: Judgement) -> list[Alert]:
        events: list[Alert] = []
        for told in found.rounds:
            self._life, said = life.step(self._life, telling(told.findings, self._life.open), told.seen, self._policy)
            events += said
        return events


def _closed(number: int, rows: int, counts: Cells, missing: bytes) -> Closed:
    start = _EPOCH + number * DAY
    content = Content(rows=rows, first=start, last=start, digest="year", counts=pack(counts), missing=missing)
    return Closed(number=number, start=start, end=start + DAY, content=content)
