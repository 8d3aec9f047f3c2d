"""What is drawn, without how: panels of lines, reliability diagrams and segments, from an `Evaluation`. Pure values."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from stream_trainer.evaluation.calibration import Bin
from stream_trainer.evaluation.scores import FORECASTERS
from stream_trainer.evaluation.table import SERVED, TRAINED
from stream_trainer.reporting.curves import Evaluation, Mark

TITLES = {
    "log_loss": "Log loss",
    "accuracy": "Accuracy",
    "roc_auc": "Area under the ROC curve",
    "ece": "Expected calibration error",
    "rmse": "Root mean squared error",
    "mae": "Mean absolute error",
}
SHORT = {"log_loss": "log loss", "roc_auc": "ROC AUC", "ece": "ECE", "rmse": "RMSE", "mae": "MAE"}
HIGHER_IS_BETTER = ("accuracy", "roc_auc")
PANELS = {
    TRAINED: "Trained: by the version before, in training",
    SERVED: "Served: by the version that answered the request",
}
NAMES = {"model": "model", "no_change": "no change", "majority": "majority"}
MOST_TEXT = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """`role` says how it looks: a forecaster's name, or `trained` for the trained forecasts beside the served ones."""

    name: str
    role: str
    x: list[int]
    y: list[float | None]
    versions: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One pair of axes."""

    title: str
    lines: list[Line]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """A score over events, a panel for each forecast; all panels share the ranges."""

    name: str
    title: str
    better: str
    panels: list[Panel]
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    ticks: list[int]
    failed: list[int]
    marks: list[Mark]


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagram:
    """A reliability diagram of one forecast."""

    title: str
    ece: float
    bins: list[Bin]


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRow:
    """One value of one segment: `scores` by forecaster and metric."""

    forecast: str
    segment: str
    value: str
    rows: int
    scores: dict[str, dict[str, float | None]]


def curves(found: Evaluation) -> list[Curves]:
    """One a score of the task; a score that no version has is left out."""
    made = [_curve(found, metric) for metric in found.metrics]
    return [curve for curve in made if curve is not None]


def _curve(found: Evaluation, metric: str) -> Curves | None:
    panels = [
        Panel(title=PANELS[forecast], lines=list(_lines(found, forecast, metric))) for forecast in found.forecasts
    ]
    values = [y for panel in panels for line in panel.lines for y in line.y if y is not None]
    if not values:
        return None
    return Curves(
        name=metric,
        title=TITLES[metric],
        better="higher is better" if metric in HIGHER_IS_BETTER else "lower is better",
        panels=panels,
        x_range=_padded([point.events for point in found.points]),
        y_range=_padded(values),
        ticks=[point.events for point in found.points],
        failed=[point.events for point in found.points if not point.passed],
        marks=list(found.marks),
    )


def _lines(found: Evaluation, forecast: str, metric: str) -> Iterable[Line]:
    said = [(forecast, forecaster, NAMES[forecaster], forecaster) for forecaster in reversed(FORECASTERS)]
    if forecast == SERVED:
        said.insert(-1, (TRAINED, FORECASTERS[0], "model, trained", TRAINED))
    for of, forecaster, name, role in said:
        points = [p for p in found.points if p.metrics.get("rows")]
        y = [p.score(of, forecaster, metric) for p in points]
        if any(value is not None for value in y):
            yield Line(name=name, role=role, x=[p.events for p in points], y=y, versions=[p.version for p in points])


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    return low - pad, high + pad


def diagrams(found: Evaluation) -> list[Diagram]:
    """One a forecast that was scored."""
    made = []
    for forecast, bins in found.calibration.items():
        ece = sum(abs(b.forecast - b.frequency) * b.weight for b in bins) / sum(b.weight for b in bins)
        made.append(Diagram(title=PANELS[forecast], ece=ece, bins=bins))
    return made


def segment_rows(found: Evaluation) -> list[SegmentRow]:
    """Every segment's values, the most frequent first; all rows together are not among them."""
    rows: dict[tuple[str, str, str], SegmentRow] = {}
    for row in found.scores:
        if not row["segment"]:
            continue
        key = (row["segment"], row["value"], row["forecast"])
        if key not in rows:
            rows[key] = SegmentRow(
                forecast=row["forecast"], segment=row["segment"], value=row["value"], rows=row["rows"], scores={}
            )
        rows[key].scores.setdefault(row["forecaster"], {})[row["metric"]] = row["score"]
    order = {forecast: i for i, forecast in enumerate(PANELS)}
    most = {key[:2]: 0 for key in rows}
    for key, made in rows.items():
        most[key[:2]] = max(most[key[:2]], made.rows)
    return sorted(rows.values(), key=lambda r: (r.segment, -most[r.segment, r.value], r.value, order[r.forecast]))


def summary(found: Evaluation) -> list[dict[str, Any]]:
    """The newest window in numbers: one row a forecast and forecaster, with its rows and each score of the task."""
    return [
        {"forecast": forecast, "forecaster": forecaster, "rows": found.rows(forecast)}
        | {metric: found.newest.score(forecast, forecaster, metric) for metric in found.metrics}
        for forecast in found.forecasts
        for forecaster in FORECASTERS
    ]


def label(text: str) -> str:
    """A value of the data as a label: of one line, and not too long."""
    plain = "".join(c if c.isprintable() else "�" for c in text)
    return plain if len(plain) <= MOST_TEXT else f"{plain[: MOST_TEXT - 1]}…"


def number(value: float | None) -> str:
    """A score as it is shown; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"  # noqa: RUF001 - the dash that stands for no number
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.4g}"
