"""How a pipeline's scores went, read from its store: a point a version, and the newest version's segments and calibration.

Reads manifests, and the data of one version; needs no pipeline file and no Kafka. Never writes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from stream_trainer.contract import Task
from stream_trainer.errors import Corrupt, NoVersion
from stream_trainer.evaluation.calibration import Bin
from stream_trainer.evaluation.scores import FORECASTERS, SCORING, Scores
from stream_trainer.evaluation.table import EVALUATION, SERVED, TABLE, TRAINED
from stream_trainer.store import ModelStore, Version, tensors
from stream_trainer.store.aliases import CHAMPION
from stream_trainer.store.store import TRAINER

METRICS: dict[Task, tuple[str, ...]] = {
    "binary": ("log_loss", "accuracy", "roc_auc", "ece"),
    "multiclass": ("log_loss", "accuracy", "ece"),
    "regression": ("rmse", "mae"),
}
FORECASTS = (TRAINED, SERVED)
MOST_MARKS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What one version's manifest says; `events` are the rows learned since the first version."""

    version: int
    events: int
    created_at: datetime
    passed: bool
    metrics: Mapping[str, Any]

    def score(self, forecast: str, forecaster: str, metric: str) -> float | None:
        """A score over the version's window; None where it has none."""
        found: Any = self.metrics if forecast == TRAINED else self.metrics.get(forecast)
        if forecaster != FORECASTERS[0] and isinstance(found, Mapping):
            found = found.get(forecaster)
        value = found.get(metric) if isinstance(found, Mapping) else None
        return float(value) if isinstance(value, int | float) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A decision about the champion: the events learned when it was made, and what it names."""

    events: int
    version: int | None
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A pure value.

    Attributes:
        pipeline: its name.
        task: what kind of label.
        points: oldest first; the last one is the newest version that verifies.
        marks: decisions about the champion, oldest first.
        scores: rows of `evaluation.table.TABLE` of the newest version; empty if an older release wrote it.
        calibration: the bins of each forecast that was scored; empty for numbers.
    """

    pipeline: str
    task: Task
    points: tuple[Point, ...]
    marks: tuple[Mark, ...]
    scores: tuple[dict[str, Any], ...]
    calibration: Mapping[str, list[Bin]]

    @property
    def newest(self) -> Point:
        """The last point."""
        return self.points[-1]

    @property
    def metrics(self) -> tuple[str, ...]:
        """The scores of this task; the first is the loss."""
        return METRICS[self.task]

    @property
    def forecasts(self) -> tuple[str, ...]:
        """`trained`, and `served` when any answer was scored."""
        return tuple(f for f in FORECASTS if f == TRAINED or any(p.metrics.get(f) for p in self.points))

    def rows(self, forecast: str) -> int:
        """How many rows the newest window of a forecast holds."""
        found = self.newest.metrics if forecast == TRAINED else self.newest.metrics.get(forecast, {})
        return int(found.get("rows", 0))


def read(store: ModelStore, *, most: int = 500) -> Evaluation:
    """The evaluation of the newest version that verifies, with at most so many points, evenly spread.

    Raises:
        NoVersion: there is no version yet.
        StoreDamaged: there are versions, and none verifies.
        Corrupt: the newest version's scores are not what they must be.
    """
    head = store.head()
    if head is None:
        raise NoVersion(f"{store.describe()} has no versions yet: `stream-trainer train` makes them")
    points = tuple(_points(store, head, most))
    task = _task(head.manifest.metrics)
    return Evaluation(
        pipeline=head.manifest.pipeline,
        task=task,
        points=points,
        marks=tuple(_marks(store, points))[-MOST_MARKS:],
        scores=tuple(_scores(store, head)),
        calibration=_calibration(store, head, task),
    )


def _points(store: ModelStore, head: Version, most: int) -> Iterator[Point]:
    numbers = [number for number in store.numbers() if number <= head.number]
    if len(numbers) > most:
        numbers = [numbers[i] for i in np.linspace(0, len(numbers) - 1, most).round().astype(int).tolist()]
    for number in numbers:
        try:
            manifest = store.read(number).manifest
        except (Corrupt, NoVersion):  # a gap in a curve; `models verify` says what is wrong
            continue
        yield Point(
            version=number,
            events=manifest.total.trained,
            created_at=manifest.created_at,
            passed=manifest.passed,
            metrics=manifest.metrics,
        )


def _task(metrics: Mapping[str, Any]) -> Task:
    if "mse" in metrics:
        return "regression"
    return "binary" if "roc_auc" in metrics else "multiclass"


def _marks(store: ModelStore, points: tuple[Point, ...]) -> Iterator[Mark]:
    for number in range(1, store.aliases.newest_number(CHAMPION) + 1):
        try:
            alias = store.aliases.read(CHAMPION, number)
        except Corrupt:
            continue
        if alias.follows and alias.version is None:
            continue
        before = [point.events for point in points if point.created_at <= alias.at]
        says = "every good version" if alias.follows else "none" if alias.version is None else f"v{alias.version}"
        held = ", held" if alias.hold else ""
        why = f": {alias.reason}" if alias.reason else ""
        yield Mark(events=before[-1] if before else 0, version=alias.version, text=f"champion {says}{held}{why}")


def _scores(store: ModelStore, head: Version) -> list[dict[str, Any]]:
    from stream_trainer.reference import table_from_bytes  # noqa: PLC0415 - it needs torch

    if EVALUATION not in head.manifest.files:
        return []
    table = table_from_bytes(store.file(head, EVALUATION))
    if table.schema != TABLE:
        raise Corrupt(f"version {head.number} of {store.describe()}: {EVALUATION} has other columns than it must")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _calibration(store: ModelStore, head: Version, task: Task) -> dict[str, list[Bin]]:
    """From the rows of the window, which lie beside what training needs."""
    if task == "regression" or EVALUATION not in head.manifest.files or head.manifest.scoring != SCORING:
        return {}
    where = f"version {head.number} of {store.describe()}: {TRAINER}"
    stored = tensors.from_bytes(store.file(head, TRAINER), where)
    found = {}
    for forecast in FORECASTS:
        prefix = f"prequential.{forecast}."
        named = {name.removeprefix(prefix): t for name, t in stored.items() if name.startswith(prefix)}
        try:
            bins = Scores.from_tensors(task, named).reliability()
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise Corrupt(f"{where} is incomplete: {error}") from error
        if bins:
            found[forecast] = bins
    return found
