"""What goes into Evidently's files: whatever one column does, the report is written; the workspace stays bounded."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from monitors.evidence import Evidence, Score
from monitors.report import write_report

from .worlds import START

snapshots: Any = pytest.importorskip("monitors.snapshots")
pytestmark = pytest.mark.filterwarnings("ignore")  # of Evidently and what it imports

SCORE = Score(
    kind="drift", feature="a", segment="", against="learned", alarm=True, scores={"p_value": 1e-6, "psi": 0.5}
)
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=2>\n\x1b[31m{{x}}"

HOSTILE_SCORE = Score(
    kind="drift", feature=HOSTILE, segment=f"a={HOSTILE}", against="learned", alarm=True, scores={"psi": 0.5}
)


def table(**columns: list[Any]) -> pa.Table:
    return pa.table(columns)


def evidence(hours: int = 0, *scores: Score) -> Evidence:
    return Evidence(
        pipeline="flights", end=START + timedelta(hours=hours), version=7, alerts=["drift/a"], scores=[*scores]
    )


def written(current: pa.Table, reference: pa.Table, told: Evidence, folder: Path) -> str:
    write_report(current, reference, told, folder / "r.html", folder / "workspace")
    return (folder / "r.html").read_text()


def test_a_column_that_evidently_cannot_digest_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = snapshots.DataDriftPreset

    def choking(*, columns: list[str]) -> Any:
        if "bad" in columns:
            raise ZeroDivisionError("choked")
        return real(columns=columns)

    monkeypatch.setattr(snapshots, "DataDriftPreset", choking)
    rows = table(a=[1.0, 2.0, 3.0] * 20, bad=[1.0, 2.0, 3.0] * 20, word=["x", "y", None] * 20)
    html = written(rows, rows, evidence(0, SCORE), tmp_path)
    assert "What the monitor decided" in html
    assert "left out ['bad']: ZeroDivisionError: choked" in capsys.readouterr().err
    assert len(list((tmp_path / "workspace").rglob("snapshots/*.json"))) == 1


def test_without_a_column_that_can_be_compared_our_scores_are_the_report(tmp_path: Path) -> None:
    html = written(table(a=[None, None]), table(b=[1.0]), evidence(0, SCORE), tmp_path)
    assert "What the monitor decided" in html
    with pytest.raises(ValueError, match="no column has known values"):
        written(table(a=[None, None]), table(b=[1.0]), evidence(), tmp_path)


@pytest.mark.parametrize(
    "values", [[float("inf"), 1.0] * 20, [1e300, -1e300] * 20, [5.0] * 40, [HOSTILE, "x"] * 20, [True, False] * 20]
)
def test_s15_columns_of_every_kind_are_reported_and_names_from_data_are_no_markup(
    values: list[Any], tmp_path: Path
) -> None:
    html = written(
        table(**{"a": values, HOSTILE: [1.0, 2.0] * 20}),
        table(**{"a": values, HOSTILE: [1.0, 2.0] * 20}),
        evidence(0, SCORE),
        tmp_path,
    )
    assert "What the monitor decided" in html
    stored = "".join(path.read_text() for path in (tmp_path / "workspace").rglob("*.json"))
    for text in ("alert(1)", "onerror=2"):
        assert text in html, "it is told"
    for markup in ("<script>alert", "</script>\\n", "<img"):
        assert markup not in html, "it is text"
        assert markup not in stored


def test_a_workspace_that_cannot_be_written_costs_no_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "workspace").write_text("a file in its place")
    assert "What the monitor decided" in written(table(a=[1.0, 2.0]), table(a=[1.0, 2.0]), evidence(0, SCORE), tmp_path)
    assert "not in the workspace" in capsys.readouterr().err


def test_a_window_has_one_snapshot_however_often_it_is_judged(tmp_path: Path) -> None:
    for hours in (0, 1, 0):
        written(table(a=[1.0, 2.0]), table(a=[1.0, 2.0]), evidence(hours, SCORE), tmp_path)
    assert len(list((tmp_path / "workspace").rglob("snapshots/*"))) == 2


def test_old_snapshots_are_removed_by_number_and_by_size(tmp_path: Path) -> None:
    def fill() -> None:
        for number in range(6):
            path = tmp_path / f"{number}.json"
            path.write_bytes(bytes(100))
            os.utime(path, (number, number))

    fill()
    snapshots.prune_snapshots(tmp_path, keep=4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2.json", "3.json", "4.json", "5.json"]
    fill()
    snapshots.prune_snapshots(tmp_path, most_bytes=250)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4.json", "5.json"]
    snapshots.prune_snapshots(tmp_path, most_bytes=10)
    assert [path.name for path in tmp_path.iterdir()] == ["5.json"]
