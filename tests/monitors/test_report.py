"""The report as a process of its own, and what it leaves out."""

import os
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from monitors.report import usable_columns
from monitors.reports import Job, Reports, prune, report_job
from monitors.summary import Summarise
from stream_trainer.reference import table_from_bytes, table_to_bytes

from .test_drift_life import DRIFT, walk
from .worlds import CONTRACT, START, features, frozen, records


def _job(folder: Path) -> Job:
    rng = np.random.default_rng(3)
    reference, _ = frozen(rng)
    summary = Summarise(contract=CONTRACT, reference=reference, sample_rows=300).of(records(features(rng, 300)))
    sample = table_from_bytes(summary.sample or b"")
    sample = sample.set_column(1, "dep_hour", pa.nulls(sample.num_rows, pa.float64()))
    [(_, opened)] = walk([DRIFT, DRIFT])
    return report_job(folder, [opened], sample, reference, 300)


def test_a_report_names_the_features_and_needs_no_network(tmp_path: Path) -> None:
    reports = Reports()
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
    assert [path.name for path in outcome.job.out.parent.iterdir()] == [outcome.job.out.name]


def test_a_report_that_takes_too_long_ends_and_the_next_one_runs(tmp_path: Path) -> None:
    reports = Reports(timeout_seconds=1)
    reports.ask(_job(tmp_path))
    reports.ask(Job((("drift/x", START),), tmp_path / "none.html", *[table_to_bytes(pa.table({}))] * 2))

    slow, empty = reports.wait(60), reports.wait(60)

    assert slow is not None
    assert slow.written is False
    assert empty is not None
    assert empty.written is False
    assert reports.finished() is None


def test_closing_ends_the_process(tmp_path: Path) -> None:
    reports = Reports()
    reports.ask(_job(tmp_path))
    reports.close()

    assert reports.finished() is None
    assert list(tmp_path.glob("*.html")) == []


def test_a_file_name_cannot_leave_its_folder(tmp_path: Path) -> None:
    [(_, opened)] = walk([DRIFT, DRIFT])
    import msgspec

    opened = msgspec.structs.replace(opened, alert_key="drift/../../etc/x y")
    reference, _ = frozen(np.random.default_rng(3))
    job = report_job(tmp_path, [opened], pa.table({"_priority": [1]}), reference, 10)

    assert job.out.parent == tmp_path
    assert job.out.name.startswith("drift-..-..-etc-x-y-2026")


def test_only_the_newest_reports_are_kept(tmp_path: Path) -> None:
    for number in range(5):
        path = tmp_path / f"{number}.html"
        path.touch()
        at = (START + timedelta(hours=number)).timestamp()
        os.utime(path, (at, at))
    prune(tmp_path, keep=2)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["3.html", "4.html"]


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
