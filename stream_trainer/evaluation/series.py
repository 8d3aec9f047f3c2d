"""Scores as the labelled numbers of a metric: what trainer and service tell Prometheus. Bounded, and never NaN."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from stream_trainer.evaluation.scores import FORECASTERS
from stream_trainer.evaluation.table import SERVED, TRAINED

MOST_SEGMENT_VALUES = 50
# What a window is judged by; `since_start` and the squared error beside its root say nothing more.
METRICS = ("log_loss", "accuracy", "roc_auc", "ece", "rmse", "mae")


class Score(NamedTuple):
    """One series: its labels and its value."""

    forecast: str
    forecaster: str
    metric: str
    value: float


class SegmentScore(NamedTuple):
    """One series of one value of one segment."""

    forecast: str
    segment: str
    value: str
    forecaster: str
    metric: str
    score: float


def scores_of(metrics: Mapping[str, Any]) -> Iterator[Score]:
    """From a manifest's metrics: of each forecast, forecaster and metric, where there is one."""
    for forecast in (TRAINED, SERVED):
        found = metrics if forecast == TRAINED else metrics.get(forecast)
        if not isinstance(found, Mapping) or not found.get("rows"):
            continue
        for forecaster in FORECASTERS:
            own = found if forecaster == FORECASTERS[0] else found.get(forecaster)
            if isinstance(own, Mapping):
                for metric in METRICS:
                    if isinstance(value := own.get(metric), int | float):
                        yield Score(forecast, forecaster, metric, float(value))


def segment_scores(rows: Iterable[Mapping[str, Any]]) -> list[SegmentScore]:
    """From rows of `table.TABLE`: of the segments' most frequent values, 50 in all, however many segments there are."""
    of_segments = [row for row in rows if row["segment"]]
    most: dict[tuple[str, str], int] = {}
    for row in of_segments:
        key = (row["segment"], row["value"])
        most[key] = max(most.get(key, 0), row["rows"])
    told = set(sorted(most, key=lambda key: (-most[key], key))[:MOST_SEGMENT_VALUES])
    return [
        SegmentScore(row["forecast"], row["segment"], row["value"], row["forecaster"], row["metric"], row["score"])
        for row in of_segments
        if (row["segment"], row["value"]) in told and row["metric"] in METRICS and row["score"] is not None
    ]
