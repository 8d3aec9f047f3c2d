"""The report as a process of its own, and what it leaves out."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from monitors.columns import usable_columns
from monitors.content import PRIORITY
from monitors.evidence import Evidence, decoded, encoded, scores_for_report
from monitors.findings import Effect, Finding
from monitors.page.sources import is_report_name
from monitors.reports import MOST_WAITING, Job, Reports, prune, report_job
from stream_trainer.reference import table_to_bytes
from stream_trainer.settings import environment
from tests.security.test_webhook import ALERT

from .worlds import START, columns, features, frozen

FINDINGS = [
    Finding(
        kind="drift",
        feature="distance",
        against="learned",
        state="drift",
        p_value=1e-9,
        threshold=1e-4,
        effect=Effect(psi=0.25, jensen_shannon=0.125, wasserstein=0.5),
        rows=300,
    ),
    Finding(
        kind="drift", feature="carrier", against="baseline", state="quiet", p_value=0.5, effect=Effect(psi=float("inf"))
    ),
    Finding(kind="drift", feature="dep_hour", against="learned", state="not enough data"),
]


def _job(folder: Path) -> Job:
    rng = np.random.default_rng(3)
    reference, _ = frozen(rng)
    kept = {n: c for n, c in columns(features(rng, 300), rng).items() if n in ("distance", "carrier")}
    sample = pa.table({**kept, "dep_hour": pa.nulls(300, pa.float64()), PRIORITY: pa.array(range(300))})
    workspace = folder.parent / "workspace"
    return report_job(folder, [ALERT], sample, reference, 300, findings=FINDINGS, workspace=workspace)


def test_a_report_names_the_features_and_needs_no_network(tmp_path: Path) -> None:
    reports = Reports(tmp_path / "reports")
    reports.ask(_job(tmp_path / "reports"))
    outcome = reports.wait(120)

    assert outcome is not None
    assert outcome.detail == ""
    assert outcome.written
    html = outcome.job.out.read_text()
    assert "distance" in html
    assert "carrier" in html
    assert "dep_hour" not in html  # all its values are missing: left out, the others are there
    assert '<script src="http' not in html
    assert {path.name for path in outcome.job.out.parent.iterdir()} == {outcome.job.out.name, "waiting"}
    assert list((tmp_path / "reports" / "waiting").iterdir()) == []
    assert "What the monitor decided" in html
    [stored] = (tmp_path / "workspace").rglob("snapshots/*.json")
    assert our_scores(stored) == {
        ("distance", "learned", "p_value"): 1e-9,
        ("distance", "learned", "psi"): 0.25,
        ("distance", "learned", "jensen_shannon"): 0.125,
        ("distance", "learned", "wasserstein"): 0.5,
        ("distance", "learned", "alarm"): 1.0,
        ("carrier", "baseline", "p_value"): 0.5,
        ("carrier", "baseline", "alarm"): 0.0,
    }
    assert read_by_evidently(tmp_path / "workspace") == "flights 2026-01-01T00:20:00 7"


def our_scores(stored: Path) -> dict[tuple[str, str, str], float]:
    """What Evidently's UI reads: the labels of each value and the value."""
    results = json.loads(stored.read_text())["metric_results"].values()
    places = [(r["metric_value_location"]["metric"]["params"], r.get("value")) for r in results]
    return {(p["feature"], p["against"], p["score"]): v for p, v in places if p["type"].endswith(":MonitorScore")}


def read_by_evidently(folder: Path) -> str:
    """By a process that has no class of ours, as `evidently ui` is one."""
    code = """
import sys
from evidently.ui.service.storage.local.base import InMemoryDataStorage
from evidently.ui.workspace import Workspace
[project] = Workspace.create(sys.argv[1]).list_projects()
[[points]] = [p.values() for p in InMemoryDataStorage(sys.argv[1])._metrics_points.values()]
ours = [p for p in points if p.metric_type.endswith(":MonitorScore")]
print(project.name, points[0].timestamp.isoformat(), len(ours))
"""
    command = [sys.executable, "-W", "ignore", "-c", code, str(folder)]
    variables = {**environment(), "DO_NOT_TRACK": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables, cwd="/", timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def nothing(folder: Path, number: int = 0) -> Job:
    """A job of another window each, which fails."""
    empty, end = table_to_bytes(pa.table({})), START + timedelta(hours=number)
    evidence = Evidence(pipeline="flights", end=end)
    return Job((("drift/x", START),), folder / f"none-{number}.html", empty, empty, evidence)


def waiting(folder: Path) -> list[str]:
    return sorted(path.name.partition("-")[2] for path in (folder / "waiting").iterdir())


def test_a_report_that_takes_too_long_ends_and_the_next_one_runs(tmp_path: Path) -> None:
    reports = Reports(tmp_path, timeout_seconds=1)
    reports.ask(_job(tmp_path))
    reports.ask(nothing(tmp_path))

    slow, empty = reports.wait(60), reports.wait(60)

    assert slow is not None
    assert slow.written is False
    assert empty is not None
    assert empty.written is False
    assert reports.finished() is None
    assert waiting(tmp_path) == []


def test_what_runs_and_waits_at_the_end_is_written_by_the_next_one(tmp_path: Path) -> None:
    first = Reports(tmp_path)
    job, other = _job(tmp_path), nothing(tmp_path, number=9)
    first.ask(job)
    first.ask(other)
    first.ask(job)  # a micro-batch that comes back
    first.close()
    assert list(tmp_path.glob("*.html")) == []
    assert waiting(tmp_path) == [f"{job.out.stem}.job", "none-9.job"]

    (tmp_path / "waiting" / "0-torn.job").write_bytes(b"torn")
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    second = Reports(moved)
    assert second.finished() is None
    written, failed = second.wait(120), second.wait(120)
    assert written is not None
    assert written.written
    assert (written.job.alerts, written.job.out) == (job.alerts, moved / job.out.name)
    assert failed is not None
    assert (failed.job.out.name, failed.written) == ("none-9.html", False)
    assert waiting(moved) == []


def test_of_too_many_the_oldest_are_given_up_and_told(tmp_path: Path) -> None:
    reports = Reports(tmp_path)
    for number in range(MOST_WAITING + 3):
        reports.ask(nothing(tmp_path, number))
    reports.close()  # the first was running
    told = [reports.finished() for _ in range(2)]
    assert [one and (one.job.out.name, one.written, one.detail) for one in told] == [
        (f"none-{number}.html", False, "more than 20 wait") for number in (1, 2)
    ]
    assert len(waiting(tmp_path)) == MOST_WAITING + 1


def test_where_nothing_can_be_kept_a_report_is_given_up_and_told(tmp_path: Path) -> None:
    (tmp_path / "waiting").touch()
    reports = Reports(tmp_path)
    reports.ask(nothing(tmp_path))
    told = reports.finished()
    assert told is not None
    assert told.detail.startswith("it cannot wait: ")
    assert reports.finished() is None


def named(tmp_path: Path, key: str) -> str:
    reference, _ = frozen(np.random.default_rng(3))
    opened = msgspec.structs.replace(ALERT, alert_key=key)
    job = report_job(tmp_path, [opened], pa.table({"_priority": [1]}), reference, 10)
    assert job.out.parent == tmp_path
    return job.out.name


def test_a_file_name_cannot_leave_its_folder(tmp_path: Path) -> None:
    assert named(tmp_path, "drift/../../etc/x y").startswith("drift-etc-x-y-2026")


@pytest.mark.parametrize("segment", ["x" * 256, "a..b", "\U0001f600" * 256, ".", "", "-"])
def test_whatever_a_segment_is_called_its_report_can_be_written_and_is_shown(tmp_path: Path, segment: str) -> None:
    name = named(tmp_path, f"drift/learned/distance/origin={segment}")
    assert is_report_name(name)
    (tmp_path / name).with_suffix(".partial").touch()
    assert (tmp_path / name).with_suffix(".partial").name == name.removesuffix(".html") + ".partial"


def test_keys_that_are_written_alike_have_reports_of_their_own(tmp_path: Path) -> None:
    keys = ["quality/a b", "quality/a-b", "quality/a/b", "quality/" + "x" * 300, "quality/" + "x" * 301]
    assert len({named(tmp_path, key) for key in keys}) == len(keys)


def test_only_the_newest_reports_are_kept(tmp_path: Path) -> None:
    for number in range(5):
        path = tmp_path / f"{number}.html"
        path.touch()
        at = (START + timedelta(hours=number)).timestamp()
        os.utime(path, (at, at))
    prune(tmp_path, keep=2)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["3.html", "4.html"]


def test_what_a_report_is_told_survives_its_file_and_holds_no_number_that_json_has_not() -> None:
    scores = scores_for_report(FINDINGS)
    told = Evidence(pipeline="flights", end=START, version=3, alerts=["a"], scores=scores)
    assert decoded(encoded(told)) == told
    assert [(score.feature, score.alarm) for score in scores] == [("distance", True), ("carrier", False)]
    assert scores[1].scores == {"p_value": 0.5}


def test_columns_that_alarmed_come_first_when_not_all_fit() -> None:
    frame = pd.DataFrame({name: [1.0] for name in "abcd"} | {"e": ["x"]})
    assert usable_columns(frame, frame, first=["d", "e"], most=3) == (["d", "a"], ["e"])


@pytest.mark.parametrize(
    ("current", "reference", "expected"),
    [
        ({"a": [1.0]}, {"a": [2.0]}, (["a"], [])),
        ({"a": ["x"]}, {"a": ["y"]}, ([], ["a"])),
        ({"a": [np.nan]}, {"a": [2.0]}, ([], [])),
        ({"a": [1.0]}, {"a": [None]}, ([], [])),
        ({"a": [1.0]}, {"b": [1.0]}, ([], [])),
    ],
)
def test_only_columns_known_on_both_sides_are_compared(
    current: dict[str, list[object]], reference: dict[str, list[object]], expected: tuple[list[str], list[str]]
) -> None:
    assert usable_columns(pd.DataFrame(current), pd.DataFrame(reference)) == expected
