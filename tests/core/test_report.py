"""`models report`: what it reads, and what it draws, prints and writes."""

import json
import re
import socket
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stream_trainer import cli
from stream_trainer.contract import Task
from stream_trainer.errors import NoVersion, StoreDamaged, UsageError
from stream_trainer.evaluation.calibration import calibration_error, reliability
from stream_trainer.evaluation.table import EVALUATION, TABLE
from stream_trainer.reporting import curves
from stream_trainer.reporting.page import page
from stream_trainer.reporting.plots import curves as drawn
from stream_trainer.reporting.plots import diagrams, label, number, segment_rows, summary
from stream_trainer.reporting.png import images
from stream_trainer.store import ModelStore
from tests.core.scored import FAILED, HOSTILE, PINNED, ROWS, scored_store
from tests.core.test_cli import RUNNER
from tests.core.test_microbatch import World, fill
from tests.core.worlds import NOW

PNGS = {
    "binary": {"log_loss.png", "accuracy.png", "roc_auc.png", "ece.png", "calibration.png", "segments.png"},
    "multiclass": {"log_loss.png", "accuracy.png", "ece.png", "calibration.png", "segments.png"},
    "regression": {"rmse.png", "mae.png", "segments.png"},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    return scored_store(tmp_path_factory.mktemp("models"))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("a report needs no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def run(store: ModelStore, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    monkeypatch.setenv("STREAM_TRAINER_STORE__URL", store.storage.url)
    monkeypatch.setenv("COLUMNS", "200")
    return RUNNER.invoke(cli.app, ["models", "report", *arguments])


def test_a_point_a_version_says_what_its_manifest_says(store: ModelStore) -> None:
    found = curves.read(store)
    assert [(p.version, p.events, p.passed) for p in found.points] == [(n, ROWS * n, n != FAILED) for n in range(1, 6)]
    for point in found.points:
        metrics = store.read(point.version).manifest.metrics
        assert point.score("trained", "model", "log_loss") == metrics["log_loss"]
        assert point.score("trained", "majority", "accuracy") == metrics["majority"]["accuracy"]
        served = metrics.get("served", {"no_change": {}})
        assert point.score("served", "no_change", "log_loss") == served["no_change"].get("log_loss")
        assert point.score("trained", "majority", "ece") == metrics["majority"]["ece"]
        assert point.score("trained", "majority", "rmse") is None
    assert found.forecasts == ("trained", "served")
    (mark,) = found.marks
    assert (mark.version, mark.events) == (PINNED, 4 * ROWS)


def test_what_was_served_worse_is_told_so_beside_what_was_trained(store: ModelStore) -> None:
    rows = {(row["forecast"], row["forecaster"]): row for row in summary(curves.read(store))}
    assert rows["trained", "model"]["rows"] == 5 * ROWS
    assert rows["served", "model"]["rows"] == 4 * ROWS / 2
    assert rows["trained", "model"]["log_loss"] < rows["served", "model"]["log_loss"]
    assert rows["served", "model"]["log_loss"] < rows["served", "majority"]["log_loss"]


@pytest.mark.parametrize("most", [2, 3])
def test_many_versions_are_thinned_and_the_first_and_the_newest_stay(store: ModelStore, most: int) -> None:
    numbers = [point.version for point in curves.read(store, most=most).points]
    assert (len(numbers), numbers[0], numbers[-1]) == (most, 1, 5)


def test_segments_are_those_of_the_newest_version_the_most_frequent_first(store: ModelStore) -> None:
    rows = segment_rows(curves.read(store))
    trained = [row for row in rows if row.forecast == "trained"]
    assert {row.value for row in trained} == {"JFK", "LGA", "$x$<b>"}
    assert [row.rows for row in trained] == sorted((row.rows for row in trained), reverse=True)
    for row in rows:
        assert row.scores.keys() == {"model", "no_change", "majority"}


def test_a_diagrams_error_is_the_one_in_the_manifest(store: ModelStore) -> None:
    trained, served = diagrams(curves.read(store))
    metrics = store.read(5).manifest.metrics
    assert trained.ece == pytest.approx(metrics["ece"])
    assert served.ece == pytest.approx(metrics["served"]["ece"])
    assert sum(b.rows for b in trained.bins) == 5 * ROWS


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_the_bins_hold_every_row_and_add_up_to_the_calibration_error(rows: list[tuple[float, bool]]) -> None:
    forecast, outcome = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    bins = reliability(forecast, outcome)
    assert sum(b.rows for b in bins) == len(rows)
    assert all(b.low - 1e-9 <= b.forecast <= b.high + 1e-9 for b in bins)
    gaps = sum(abs(b.forecast - b.frequency) * b.rows for b in bins) / len(rows)
    assert gaps == pytest.approx(calibration_error(forecast, outcome), abs=1e-9)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("served", [True, False])
def test_every_plot_is_a_png_that_is_not_empty(tmp_path: Path, task: Task, served: bool) -> None:
    found = curves.read(scored_store(tmp_path, task, served=served))
    made = images(found)
    assert made.keys() == PNGS[task]
    for name, data in made.items():
        image = Image.open(BytesIO(data))
        assert image.size[0] >= 1_000, name
        assert len(image.convert("RGB").getcolors(2**24) or ()) > 10, name
    text = page(found, NOW)
    assert ("curve-0-1" in text) is served
    assert ('id="diagram-0"' in text) is (task != "regression")


def test_one_version_is_enough(tmp_path: Path) -> None:
    found = curves.read(scored_store(tmp_path, versions=1))
    assert "log_loss.png" in images(found)
    assert "version 1" in page(found, NOW)


def test_the_page_holds_all_it_needs_and_its_text_is_only_text(tmp_path: Path) -> None:
    store = scored_store(tmp_path)
    found = curves.read(store)
    hostile = {**found.scores[0], "segment": HOSTILE, "value": HOSTILE}
    text = page(curves.Evaluation(**{f: getattr(found, f) for f in SLOTS} | {"scores": (*found.scores, hostile)}), NOW)
    assert HOSTILE not in text
    assert "&lt;/script&gt;&lt;script&gt;" in text
    assert text.count("<script") - text.count('"<script') == text.count("</script>") == 3
    outside = re.findall(r'(?:src|href)="?(?:https?:)?//', text[: text.index('id="data"')])
    assert outside == []
    assert "default-src 'none'" in text


SLOTS = ("pipeline", "task", "points", "marks", "scores", "calibration")


def test_the_command_writes_page_and_plots_and_prints_the_summary(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a" / "report"
    found = run(store, monkeypatch, "flights", "--out", str(out))
    assert found.exit_code == 0, found.output
    assert {path.name for path in out.iterdir()} == PNGS["binary"] | {"report.html"}
    lines = [line.split() for line in found.stdout.splitlines()]
    metrics = store.read(5).manifest.metrics
    assert ["served", "model", "400", *(f"{metrics['served'][m]:.4f}" for m in curves.METRICS["binary"])] in lines
    assert "origin" in found.stdout


def test_the_command_takes_a_pipelines_address_too_and_prints_json(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_name = run(store, monkeypatch, "flights", "--json")
    by_address = run(store, monkeypatch, "tests.core.test_microbatch:PIPELINE", "--json")
    assert by_name.exit_code == by_address.exit_code == 0
    said = json.loads(by_name.stdout)
    assert said == json.loads(by_address.stdout)
    assert (said["version"], said["task"], len(said["points"]), said["files"]) == (5, "binary", 5, [])
    assert {row["forecaster"] for row in said["summary"]} == {"model", "no_change", "majority"}


@pytest.mark.parametrize(
    ("name", "kind"), [("../flights", UsageError), ("nobody", NoVersion), ("tests.core.nowhere:X", UsageError)]
)
def test_a_name_that_is_none_is_refused(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch, name: str, kind: type[Exception]
) -> None:
    assert isinstance(run(store, monkeypatch, name).exception, kind)


def test_damaged_scores_of_the_newest_version_fall_back_to_the_one_before(tmp_path: Path) -> None:
    store = scored_store(tmp_path)
    attempt = store.read(5).manifest.attempt
    store.storage.put(f"flights/versions/{5:020d}/{attempt}/{EVALUATION}", b"")
    assert curves.read(store).newest.version == 4


def test_a_table_of_other_columns_is_a_damaged_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = scored_store(tmp_path)
    monkeypatch.setattr(curves, "TABLE", TABLE.remove(0))
    found = run(store, monkeypatch, "flights")
    assert isinstance(found.exception, StoreDamaged)
    assert EVALUATION in str(found.exception)


def test_versions_of_an_older_release_have_curves_and_no_segments(tmp_path: Path) -> None:
    world = World(tmp_path)
    fill(world)
    world.learn()
    found = curves.read(world.store)
    monkey = {f: getattr(found, f) for f in SLOTS} | {"scores": (), "calibration": {}}
    old = curves.Evaluation(**monkey)
    assert images(old).keys() == PNGS["binary"] - {"calibration.png", "segments.png"}
    assert "Per segment" not in page(old, NOW)


def test_each_panel_has_the_model_and_both_baselines(store: ModelStore) -> None:
    loss, accuracy, *_ = drawn(curves.read(store))
    for curve in (loss, accuracy):
        trained, served = curve.panels
        assert [line.role for line in trained.lines] == ["majority", "no_change", "model"]
        assert [line.role for line in served.lines] == ["majority", "no_change", "trained", "model"]
        assert curve.failed == [FAILED * ROWS]


def test_labels_are_of_one_line_and_not_too_long() -> None:
    assert label("a\nb\x1b[31m") == "a�b�[31m"
    assert len(label("x" * 500)) < 50
    assert (number(None), number(float("nan")), number(0.12345), number(1e9)) == ("–", "–", "0.1235", "1e+09")  # noqa: RUF001
