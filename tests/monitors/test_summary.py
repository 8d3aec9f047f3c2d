"""What a worker makes of records: totals that add up, and a reason for each one that cannot be read."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from monitors.summary import PAYLOAD, PRIORITY, Summarise, Summary, add, without_samples
from stream_trainer.reference import table_from_bytes

from .worlds import CONTRACT, features, frozen, record, records


def _worker(rng: np.random.Generator, sample_rows: int = 50) -> Summarise:
    return Summarise(contract=CONTRACT, reference=without_samples(frozen(rng)[0]), sample_rows=sample_rows)


def test_a_block_counts_as_the_rows_that_it_holds() -> None:
    rng = np.random.default_rng(1)
    singles = records(features(rng, 6))
    rows = [json.loads(value) for value in singles]
    shared = {name: rows[0][name] for name in ("requested_at", "model_version", "role") if name in rows[0]}
    block = {"rows": 6, **shared, "prediction_id": [r["prediction_id"] for r in rows], "output": [0.5] * 6}
    for part in ("segments", "features"):
        block[part] = {name: [row[part][name] for row in rows] for name in rows[0][part]}
    same_time = [json.dumps({**row, **shared}).encode() for row in rows]
    value = json.dumps({"role": "champion", "model_version": 1} | block).encode()
    value = json.dumps({"rows": 6, **json.loads(value)}, separators=(",", ":")).encode()
    worker = _worker(rng)
    assert worker.of([value]) == worker.of(same_time)
    assert worker.of([value[:-1], *singles]).skipped == {"invalid_json": 1}
    assert worker.of([value.replace(b'"rows":6', b'"rows":5')]).skipped == {"invalid_json": 1}


def test_every_good_record_is_counted_once_per_feature_and_segment() -> None:
    rng = np.random.default_rng(1)
    summary = _worker(rng).of(records(features(rng, 100)))

    counted = table_from_bytes(summary.histogram or b"").to_pandas()
    totals = counted[counted.segment == ""].groupby("feature")["count"].sum()
    assert totals.to_dict() == {"distance": 100, "dep_hour": 100, "carrier": 100, "place": 100}
    by_origin = counted[(counted.feature == "distance") & counted.segment.str.startswith("origin=")]
    assert by_origin.groupby("segment")["count"].sum().to_dict() == {"origin=EWR": 50, "origin=JFK": 50}
    assert (summary.rows, summary.version) == (100, 1)
    assert summary.start is not None
    assert summary.end is not None
    assert (summary.end - summary.start).total_seconds() == pytest.approx(0.99)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "null_value"),
        (b"", "invalid_json"),
        (b"not json", "invalid_json"),
        (b'{"prediction_id": "\xff"}', "bad_utf8"),
        (b'{"a":' * 100_000, "too_deep"),
        (b"[]", "wrong_type"),
        (b"{}", "missing_field"),
        (b" " * (2**20 + 1), "too_large"),
        (record(0, {}, requested_at="yesterday"), "wrong_type"),
        (record(0, {}, requested_at="2026-01-01T00:00:00"), "wrong_type"),
        (record(0, {}, requested_at=1e300), "out_of_range"),
        (record(0, {"distance": "far", "place": [0, 0]}), "wrong_type"),
        (record(0, {"distance": 1.0, "place": [0]}), "out_of_range"),
        (record(0, {"distance": 1.0}), "missing_field"),
        (record(0, {"distance": 1.0, "dep_hour": 1, "carrier": "A", "place": [0, 0]}, role="challenger"), "shadow"),
    ],
)
def test_a_bad_record_is_skipped_with_a_reason_and_hides_no_good_one(value: bytes | None, reason: str) -> None:
    rng = np.random.default_rng(1)
    summary = _worker(rng).of([value, *records(features(rng, 3))])

    assert summary.rows == 3
    assert summary.skipped == {reason: 1}


def test_a_missing_or_out_of_range_value_is_seen_not_skipped() -> None:
    rng = np.random.default_rng(1)
    worker = _worker(rng)
    summary = worker.of([record(0, {"distance": -5.0, "place": [0, 0]}, model_version=None)])

    assert (summary.rows, summary.skipped, summary.version) == (1, {}, None)
    assert worker.reference is not None
    sizes = {b.feature: b.size for b in worker.reference.bins}
    counted = table_from_bytes(summary.histogram or b"").to_pandas()
    bins = counted[counted.segment == ""].set_index("feature")["bin"].to_dict()
    assert (bins["dep_hour"], bins["carrier"]) == (sizes["dep_hour"] - 1, sizes["carrier"] - 1)


def test_without_a_reference_rows_are_only_counted() -> None:
    rng = np.random.default_rng(1)
    summary = Summarise(contract=CONTRACT, reference=None, sample_rows=5).of(records(features(rng, 4)))

    assert (summary.rows, summary.histogram, summary.sample) == (4, None, None)


def test_summaries_add_up_in_any_order_and_grouping() -> None:
    rng = np.random.default_rng(1)
    worker, values = _worker(rng, sample_rows=20), records(features(rng, 90))
    parts = [worker.of(values[i : i + 30]) for i in (0, 30, 60)]

    forward = add(add(parts[0], parts[1], sample_rows=20), parts[2], sample_rows=20)
    backward = add(parts[2], add(parts[1], parts[0], sample_rows=20), sample_rows=20)
    whole = add(worker.of(values), Summary(), sample_rows=20)

    assert _content(forward) == _content(backward)
    assert forward.rows == whole.rows == 90
    for one in (forward, whole):
        sample = table_from_bytes(one.sample or b"")
        assert sample.num_rows == 20
        assert sample.column_names == ["distance", "dep_hour", "carrier", PRIORITY]
    assert table_from_bytes(forward.sample or b"").equals(table_from_bytes(whole.sample or b""))


def _content(summary: Summary) -> tuple[object, ...]:
    tables = [table_from_bytes(data or b"").to_pydict() for data in (summary.histogram, summary.sample)]
    for table in tables:
        table.pop("sum", None), table.pop("sum_of_squares", None)
    return summary.rows, summary.start, summary.end, summary.version, tables


def test_a_worker_yields_one_small_payload_a_batch() -> None:
    rng = np.random.default_rng(1)
    batch = pa.record_batch([pa.array(records(features(rng, 500)), pa.binary())], names=["value"])

    found = list(_worker(rng)(iter([batch, batch])))

    assert [b.schema for b in found] == [PAYLOAD, PAYLOAD]
    assert all(len(b.column(0)[0].as_py()) < 60_000 for b in found)


def test_worker_code_imports_neither_torch_nor_spark() -> None:
    code = "import sys, monitors.summary; sys.exit(bool({'torch', 'pyspark', 'evidently'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
