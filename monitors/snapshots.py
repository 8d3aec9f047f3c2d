"""Evidently's report over two samples, with the monitor's own scores in it: as one HTML file, and in a workspace.

The only file that imports Evidently, which takes seconds and hundreds of megabytes: it is for `monitors.report`, a short
process of its own. Columns that Evidently cannot digest are left out. Its own verdicts decide nothing; ours are stored as
metrics of type `MonitorScore`, so that its UI shows the numbers that the alerts, the gauges and the page show.
"""

import sys
from collections.abc import Sequence
from datetime import UTC
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import pandas as pd
import pyarrow as pa
from evidently import DataDefinition, Dataset, Report
from evidently.core.metric_types import SingleValueCalculation, SingleValueMetric
from evidently.legacy.renderers.html_widgets import table_data
from evidently.presets import DataDriftPreset
from evidently.sdk.models import DashboardPanelPlot, PanelMetric, ProjectModel
from evidently.ui.workspace import Workspace
from pydantic.v1 import PrivateAttr

from monitors.columns import cleaned, harmless, usable_columns
from monitors.evidence import Evidence, Score

MOST_COLUMNS = 50
KEPT_SNAPSHOTS = 50
KEPT_BYTES = 200 * 2**20
ALARM = "alarm"
SCORES = ("p_value", "psi", "jensen_shannon", "wasserstein")
_PROJECTS = UUID("5e2f2d0c-4a6f-4a55-9b0e-6f1c1b8f6a31")
_METRIC = "MonitorScore"


class MonitorScore(SingleValueMetric):  # type: ignore[misc]
    """One number that the monitor has computed; its labels are the fields."""

    class Config:
        """The name of the type in a snapshot; reading one back needs no class of ours."""

        type_alias = f"evidently:metric_v2:{_METRIC}"

    kind: str
    feature: str
    segment: str
    against: str
    score: str
    _value: float = PrivateAttr(default=0.0)
    _widgets: list[Any] = PrivateAttr(default_factory=list)


class _Stored(SingleValueCalculation[MonitorScore]):  # type: ignore[misc]
    def calculate(self, _context: Any, _current: Any, _reference: Any) -> Any:
        found = self.result(self.metric._value)  # noqa: SLF001 - a private attribute is no label
        found.widget = self.metric._widgets  # noqa: SLF001
        return found

    def display_name(self) -> str:
        metric = self.metric
        return f"{metric.score} of {metric.feature} in {metric.segment} against {metric.against}"


def snapshot_of(current: pa.Table, reference: pa.Table, evidence: Evidence) -> Any:
    """Evidently's snapshot of both samples: its comparison of at most `MOST_COLUMNS`, alarmed ones first, and our scores.

    Raises:
        ValueError: no column can be compared, and there is no score either.
    """
    frames = current.to_pandas(), reference.to_pandas()
    alarmed = list(dict.fromkeys(score.feature for score in evidence.scores if score.alarm))
    numeric, texts = usable_columns(*frames, first=alarmed, most=MOST_COLUMNS)
    now, before = (cleaned(frame, numeric, texts).rename(columns=harmless) for frame in frames)
    numeric, texts = list(map(harmless, numeric)), list(map(harmless, texts))
    if not (numeric or texts or evidence.scores):
        raise ValueError("no column has known values on both sides")
    try:
        return _run(now, before, numeric, texts, evidence)
    except Exception:  # noqa: BLE001 - whatever one column does to Evidently must not cost the others
        numeric = [n for n in numeric if _works(now, before, [n], [])]
        texts = [n for n in texts if _works(now, before, [], [n])]
        return _run(now, before, numeric, texts, evidence)


def _run(now: pd.DataFrame, before: pd.DataFrame, numeric: list[str], texts: list[str], evidence: Evidence) -> Any:
    definition = DataDefinition(numerical_columns=numeric, categorical_columns=texts)
    columns = [*numeric, *texts]
    sides = [Dataset.from_pandas(frame[columns], data_definition=definition) for frame in (now, before)]
    items = [*_metrics(evidence.scores), *([DataDriftPreset(columns=columns)] if columns else [])]
    return Report(items, include_tests=True).run(
        *sides,
        timestamp=evidence.end.astimezone(UTC).replace(tzinfo=None),
        name=harmless(", ".join(evidence.alerts)) or "window",
        metadata={"pipeline": evidence.pipeline, "version": str(evidence.version)},
        tags=["alarm"] if any(score.alarm for score in evidence.scores) else [],
    )


def _works(now: pd.DataFrame, before: pd.DataFrame, numeric: list[str], texts: list[str]) -> bool:
    try:
        _run(now, before, numeric, texts, Evidence(pipeline="", end=pd.Timestamp(0, tz=UTC).to_pydatetime()))
    except Exception as error:  # noqa: BLE001 - see above
        sys.stderr.write(f"left out {[*numeric, *texts]}: {type(error).__name__}: {error}\n")
        return False
    return True


def _metrics(scores: Sequence[Score]) -> list[MonitorScore]:
    """A metric for each number; the first carries a table of all for people."""
    found = []
    for score in scores:
        names = {"feature": harmless(score.feature) or "all", "segment": harmless(score.segment) or "all rows"}
        labels = {**names, "kind": score.kind, "against": score.against}
        for name, value in {**score.scores, ALARM: float(score.alarm)}.items():
            metric = MonitorScore(**labels, score=name)
            metric._value = value  # noqa: SLF001
            found.append(metric)
    if found:
        found[0]._widgets = [_table(scores)]  # noqa: SLF001
    return found


def _table(scores: Sequence[Score]) -> Any:
    ordered = sorted(scores, key=lambda score: (not score.alarm, score.scores.get("p_value", 1.0)))
    return table_data(
        title="What the monitor decided",
        column_names=["feature", "segment", "kind", "against", ALARM, *SCORES],
        data=[
            [harmless(s.feature), harmless(s.segment), s.kind, s.against, "yes" if s.alarm else "no"]
            + [f"{s.scores[name]:.4g}" if name in s.scores else "" for name in SCORES]
            for s in ordered
        ],
    )


def add_to_workspace(snapshot: Any, evidence: Evidence, folder: Path) -> Path:
    """Put a snapshot into the pipeline's project of a local workspace, in the place of one of the same window.

    Older ones than the newest `KEPT_SNAPSHOTS`, or beyond `KEPT_BYTES`, are removed.
    """
    workspace = Workspace.create(str(folder))
    project = ProjectModel(id=uuid5(_PROJECTS, evidence.pipeline), name=evidence.pipeline)
    if workspace.get_project(project.id) is None:
        _arrange(workspace.add_project(project))
    snapshots = folder / str(project.id) / "snapshots"
    snapshots.mkdir(parents=True, exist_ok=True)
    path = snapshots / f"{uuid5(project.id, evidence.end.isoformat())}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(snapshot.dumps())
    partial.replace(path)
    prune_snapshots(snapshots)
    return path


def _arrange(project: Any) -> None:
    """A panel for each score, a line for each feature; whoever arranges it otherwise keeps it so."""
    for against in ("learned", "baseline"):
        for score in (*SCORES, ALARM):
            values = [
                PanelMetric(
                    legend="{{feature}}, {{segment}}",
                    metric=_METRIC,
                    metric_labels={"against": against, "score": score},
                )
            ]
            panel = DashboardPanelPlot(
                title=score,
                subtitle=f"against {against}",
                size="half",
                values=values,
                plot_params={"plot_type": "line"},
            )
            project.dashboard.add_panel(panel, tab=f"Against {against}")


def prune_snapshots(folder: Path, *, keep: int = KEPT_SNAPSHOTS, most_bytes: int = KEPT_BYTES) -> None:
    """Remove what is oldest by when it was written; the newest always stays."""
    files = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    kept = 0
    for place, path in enumerate(files):
        kept += path.stat().st_size
        if place >= keep or (place and kept > most_bytes):
            path.unlink(missing_ok=True)
