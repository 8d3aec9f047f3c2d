"""The gauges of the monitor: what they say, that they are bounded, and that names from data cannot break the text."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from monitors.content import Content
from monitors.findings import Effect, Finding
from monitors.gauges import MOST_ALERTS, MOST_CHARACTERS, MOST_SEGMENTS, OpenAlert, Round, Standing, label
from monitors.status import Metrics
from monitors.summary import Part, Summary

END = datetime(2026, 1, 1, tzinfo=UTC)


def finding(feature: str = "distance", segment: str = "", **changes: Any) -> Finding:
    fields: dict[str, Any] = {
        "kind": "drift",
        "against": "learned",
        "state": "drift",
        "p_value": 1e-6,
        "threshold": 1e-4,
        "effect": Effect(psi=0.25, jensen_shannon=0.125, wasserstein=0.5),
        "rows": 500,
        "reference_rows": 4_000,
    }
    return Finding(feature=feature, segment=segment, **{**fields, **changes})


ORDER = ("alert_key", "kind", "severity", "feature", "segment", "against", "score", "name", "verdict")


def scraped(registry: CollectorRegistry) -> dict[str, dict[tuple[str, ...], float]]:
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        family.name.removeprefix("stream_trainer_monitor_"): {
            tuple(s.labels[name] for name in ORDER if name in s.labels): s.value
            for s in family.samples
            if not s.name.endswith("_created")
        }
        for family in families
    }


def told(*rounds: Sequence[Finding]) -> dict[str, dict[tuple[str, ...], float]]:
    times = iter([100.0, 200.0, 300.0])
    metrics = Metrics(clock=lambda: next(times))
    for findings in rounds:
        metrics.evaluated(findings, window_end=END, figures={"log_loss": 0.5})
    return scraped(metrics.registry)


def test_a_test_tells_its_scores_threshold_sizes_and_time() -> None:
    found = told([finding(weight=0.75)])
    test = ("drift", "distance", "", "learned")
    assert found["score"] == {
        (*test, "p_value"): 1e-6,
        (*test, "psi"): 0.25,
        (*test, "jensen_shannon"): 0.125,
        (*test, "wasserstein"): 0.5,
    }
    for name, value in (
        ("threshold", 1e-4),
        ("sample_rows", 500),
        ("reference_rows", 4_000),
        ("drift", 1),
        ("weight", 0.75),
    ):
        assert found[name] == {test: value}, name
    assert found["evaluated_timestamp_seconds"] == {test: 100}
    assert found["window_end_timestamp_seconds"] == {(): END.timestamp()}
    assert found["figure"] == {("log_loss",): 0.5}
    assert found["verdicts"] == {("drift",): 1}


def test_a_round_without_enough_data_tells_no_score_and_keeps_the_time_of_the_last_verdict() -> None:
    found = told([finding()], [finding(state="not enough data", rows=3)])
    test = ("drift", "distance", "", "learned")
    assert (found["score"], found["drift"], found["threshold"]) == ({}, {}, {})
    assert found["sample_rows"] == {test: 3}
    assert found["evaluated_timestamp_seconds"] == {test: 100}
    assert told([finding(state="not enough data")])["evaluated_timestamp_seconds"] == {}


def test_a_round_replaces_the_one_before_it() -> None:
    found = told([finding("a"), finding("b")], [finding("b", state="quiet")])
    assert found["drift"] == {("drift", "b", "", "learned"): 0}
    assert found["evaluated_timestamp_seconds"] == {("drift", "b", "", "learned"): 200}


def test_each_half_is_told_by_itself_and_neither_renews_the_other() -> None:
    times = iter([100.0, 200.0, 300.0])
    metrics = Metrics(clock=lambda: next(times))
    label_ = finding("_label", kind="label", state="quiet")
    metrics.evaluated([finding()], window_end=END, figures={"estimated_log_loss": 0.5})
    for loss in (0.25, 0.125):
        metrics.evaluated([label_], window_end=END - timedelta(hours=1), figures={"log_loss": loss}, half="labels")
    found = scraped(metrics.registry)
    assert found["evaluated_timestamp_seconds"] == {
        ("drift", "distance", "", "learned"): 100,
        ("label", "_label", "", "learned"): 300,
    }
    assert found["verdicts"] == {("drift",): 1, ("quiet",): 2}
    assert found["figure"] == {("estimated_log_loss",): 0.5, ("log_loss",): 0.125}
    assert found["window_end_timestamp_seconds"] == {(): END.timestamp()}


def test_both_references_have_series_and_of_several_scales_the_surest_is_told() -> None:
    scales = [finding(p_value=p, windows=w) for p, w in ((0.2, 1), (1e-9, 16), (0.1, 4))]
    found = told([*scales, finding(against="baseline", p_value=0.5)])
    assert found["score"]["drift", "distance", "", "learned", "p_value"] == 1e-9
    assert found["score"]["drift", "distance", "", "baseline", "p_value"] == 0.5


def test_segments_are_bounded_the_least_likely_are_told_and_the_rest_is_counted() -> None:
    many = [finding(segment=f"origin={i:04d}", p_value=(i + 1) / 1_000) for i in range(300)]
    found = told([*reversed(many), finding()])
    assert len(found["drift"]) == MOST_SEGMENTS + 1
    assert ("drift", "distance", f"origin={MOST_SEGMENTS - 1:04d}", "learned") in found["drift"]
    assert ("drift", "distance", "", "learned") in found["drift"]
    assert found["tests_left_out"] == {(): 300 - MOST_SEGMENTS}


def test_alerts_are_counted_in_full_and_the_worst_are_named() -> None:
    standing = Standing()
    alerts = [OpenAlert(f"drift/learned/{i:04d}", "drift", "warning", f"{i:04d}") for i in range(MOST_ALERTS + 50)]
    standing.standing([*alerts, OpenAlert("silence", "silence", "critical")])
    registry = CollectorRegistry()
    registry.register(standing)
    found = scraped(registry)
    assert found["open_alerts"] == {("drift", "warning"): MOST_ALERTS + 50, ("silence", "critical"): 1}
    assert len(found["open_alert"]) == MOST_ALERTS
    assert ("silence", "silence", "critical", "", "", "") in found["open_alert"]


HOSTILE = ["a\r\nforged 1", "\x1b[2J", '"} 1\n# x', "\\", "\ud800", "\u2028", "x" * 10_000, ""]


@pytest.mark.parametrize("name", HOSTILE)
def test_s15_a_name_from_data_stays_one_label_of_one_line(name: str) -> None:
    found = told([finding(name, segment=name)])
    assert list(found["drift"]) == [("drift", label(name), label(name), "learned")]
    assert len(found["score"]) == 4


@given(st.text())
def test_a_label_is_printable_short_and_can_be_encoded(text: str) -> None:
    found = label(text)
    assert found.isprintable()
    assert len(found) <= MOST_CHARACTERS
    assert found.encode().decode() == found


@given(st.lists(st.tuples(st.text(), st.text(), st.floats(0, 1)), max_size=20))
def test_no_name_breaks_the_text_that_is_scraped(names: list[tuple[str, str, float]]) -> None:
    standing = Standing()
    standing.evaluated(
        "predictions", Round([finding(f, s, p_value=p) for f, s, p in names], 1.0, None, {f: p for f, _, p in names})
    )
    standing.standing([OpenAlert(f, "drift", "warning", f, s) for f, s, _ in names])
    registry = CollectorRegistry()
    registry.register(standing)
    assert scraped(registry)["tests_left_out"] == {(): 0}


def test_reading_tells_when_and_how_far() -> None:
    metrics = Metrics(clock=lambda: 50.0)
    assert metrics.value("read_timestamp_seconds") == 0
    metrics.read(Summary(skipped={"invalid_json": 2}))
    assert metrics.value("read_timestamp_seconds") == 0
    metrics.read(Summary(predictions=Part(windows={0: Content(rows=7, last=END)})))
    metrics.late(3)
    metrics.closed("elapsed", 2)
    metrics.behind_by(lambda: 12.0)
    metrics.batch(0.1)
    told = {
        name: metrics.value(name)
        for name in ("rows_total", "skipped_rows_total", "late_rows_total", "windows_total", "behind_records")
    }
    assert told == {
        "rows_total": 7,
        "skipped_rows_total": 2,
        "late_rows_total": 3,
        "windows_total": 2,
        "behind_records": 12,
    }
    assert metrics.value("newest_prediction_timestamp_seconds") == END.timestamp()
    assert (metrics.value("read_timestamp_seconds"), metrics.value("batch_timestamp_seconds")) == (50, 50)
