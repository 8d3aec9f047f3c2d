"""What a worker makes of records: contents of windows that add up, and a reason for each record that cannot be read."""

import json
import subprocess
import sys
from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitors import content, sketches
from monitors.content import KEPT_VERSIONS, OLDER, Content
from monitors.summary import MAX_WINDOWS, PAYLOAD, Before, Summarise, Summary, add, total
from monitors.windows import Closed, Windows, close, extend
from stream_trainer.reference import LABEL, OUTPUT, moments, table_from_bytes, unpack

from .worlds import (
    CONTRACT,
    EXAMPLES,
    PREDICTIONS,
    START,
    WINDOW,
    WINDOW_ROWS,
    Rng,
    example,
    features,
    frozen,
    kafka,
    record,
    records,
)

REFERENCE = frozen(np.random.default_rng(1), rows=10)[0]
FIRST = int(START.timestamp() // WINDOW.total_seconds())
GOOD = {"distance": 1.0, "dep_hour": 1, "carrier": "AA", "place": [0, 0]}


def worker(sample_rows: int = 50, **changes: Any) -> Summarise:
    given = {
        "contract": CONTRACT,
        "topic": PREDICTIONS,
        "window": WINDOW,
        "reference": REFERENCE.without_samples(),
        "digest": "bins",
        "sample_rows": sample_rows,
    }
    return Summarise(**{**given, **changes})


def only(summary: Summary) -> Content:
    [found] = summary.predictions.windows.values()
    return found


def rng() -> Rng:
    return np.random.default_rng(1)


def test_a_block_counts_as_the_rows_that_it_holds() -> None:
    singles = records(features(rng(), 6))
    rows = [json.loads(value) for value in singles]
    shared = {"requested_at": rows[0]["requested_at"], "model_version": 1, "role": "champion"}
    block = {"rows": 6, **shared, "prediction_id": [r["prediction_id"] for r in rows], "output": [0.5] * 6}
    block["event_time"] = [r["event_time"] for r in rows]
    for part in ("segments", "features"):
        block[part] = {name: [row[part][name] for row in rows] for name in rows[0][part]}
    value = json.dumps(block, separators=(",", ":")).encode()
    apart, together = only(worker().of(kafka(singles))), only(worker().of(kafka([value])))
    assert msgspec.structs.replace(together, offsets=apart.offsets) == apart
    assert together.offsets == {PREDICTIONS: {0: (0, 1)}}
    assert worker().of(kafka([value[:-1], *singles])).skipped == {"invalid_json": 1}
    assert worker().of(kafka([value.replace(b'"rows":6', b'"rows":5')])).skipped == {"invalid_json": 1}


def test_every_good_record_is_counted_once_per_feature_and_segment() -> None:
    found = only(worker().of(kafka(records(features(rng(), 100)), offset=40, partition=3)))

    cells = found.cells(REFERENCE)
    counted = {f: int(cells[place].sum()) for (f, segment), place in REFERENCE.places.items() if not segment}
    assert counted.pop(LABEL) == 0
    assert set(counted.values()) == {100}
    assert {"distance", "place", OUTPUT, "_projection/0"} <= counted.keys()
    for value in ("EWR", "JFK"):
        assert cells[REFERENCE.places["distance", f"origin={value}"]].sum() == 50
    assert (found.rows, found.versions, found.span) == (100, {1: 100}, (1, 1))
    by_version = unpack(found.by_version[1], REFERENCE.coarse_cells)
    assert by_version[REFERENCE.coarse_places["carrier"]].sum() == 100
    assert found.offsets == {PREDICTIONS: {3: (40, 140)}}
    assert found.first == START
    assert found.last == START + timedelta(seconds=0.99)
    assert sketches.distinct(found.sketches["carrier"]) == pytest.approx(4, abs=0.1)
    assert sketches.distinct(found.sketches["distance"]) == pytest.approx(100, rel=0.1)
    assert moments(REFERENCE, cells, "dep_hour").known == 100


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
        (b"ARROW1\0\0" + b"\xff" * 64, "invalid_json"),
        (record(0, GOOD, requested_at="yesterday"), "wrong_type"),
        (record(0, GOOD, requested_at="2026-01-01T00:00:00"), "wrong_type"),
        (record(0, GOOD, requested_at=1e300), "out_of_range"),
        (record(0, GOOD, event_time="9999-12-31T23:59:59Z"), "out_of_range"),
        (record(0, GOOD, event_time=START + timedelta(days=3)), "out_of_range"),
        (record(0, GOOD, event_time="0001-01-01T00:00:00+23:00", role=7), "wrong_type"),
        (record(0, GOOD, event_time="0001-01-01T00:00:00Z"), "out_of_range"),
        (record(0, GOOD, event_time="1899-12-31T23:59:59Z"), "out_of_range"),
        (record(0, GOOD, model_version=2**53), "out_of_range"),
        (record(0, GOOD, model_version=2**63), "out_of_range"),
        (json.dumps(json.loads(record(0, GOOD)) | {"model_version": 10**30}).encode(), "out_of_range"),
        (record(0, GOOD, model_version=-1), "out_of_range"),
        (record(0, {"distance": "far", "place": [0, 0]}), "wrong_type"),
        (record(0, {"distance": 1.0, "place": [0]}), "out_of_range"),
        (record(0, {"distance": 1.0}), "missing_field"),
        (record(0, GOOD, role="challenger"), "shadow"),
    ],
)
def test_s18_a_bad_record_is_skipped_with_a_reason_and_hides_no_good_one(value: bytes | None, reason: str) -> None:
    summary = worker().of(kafka([value, *records(features(rng(), 3))]))

    assert summary.rows == 3
    assert summary.skipped == {reason: 1}


@given(st.binary(max_size=60) | st.sampled_from([b'{"rows":3', b'{"rows":2,"role":{}}', b"\x00" * 9]))
@settings(deadline=None, max_examples=60)
def test_s18_no_bytes_whatever_raise(value: bytes) -> None:
    good = records(features(rng(), 2))
    for topic in (PREDICTIONS, EXAMPLES):
        summary = worker().of(pa.concat_batches([kafka([value], topic=topic), kafka(good)]))
        assert summary.rows == 2


@pytest.mark.parametrize("output", [None, "no", [0.1, 0.2], 1e300, {}, True])
def test_an_answer_that_makes_no_sense_counts_as_none(output: Any) -> None:
    found = only(worker().of(kafka([record(0, GOOD, output=output)])))
    counts = found.cells(REFERENCE)[REFERENCE.places[OUTPUT, ""]]
    assert counts[-1] == (output is not True)
    assert counts.sum() == 1


def test_a_missing_or_out_of_range_value_is_seen_not_skipped() -> None:
    summary = worker().of(kafka([record(0, {"distance": -5.0, "place": [0, 0]}, model_version=None)]))

    found = only(summary)
    assert (found.rows, summary.skipped, found.versions, found.span) == (1, {}, {}, None)
    cells = found.cells(REFERENCE)
    for feature, end in (("distance", "below"), ("dep_hour", "missing"), ("carrier", "missing")):
        assert cells[REFERENCE.places[feature, ""]][REFERENCE.of(feature).place(end)] == 1


def test_without_a_reference_rows_are_told_apart_by_window_and_version_only() -> None:
    found = only(worker(5, reference=None, digest=None).of(kafka(records(features(rng(), 4)))))

    assert (found.rows, found.versions, found.counts, found.digest) == (4, {1: 4}, b"", None)


def test_rows_fall_into_windows_of_their_event_time_and_those_of_closed_ones_are_late() -> None:
    values = records(features(rng(), 3 * WINDOW_ROWS))
    summary = worker().of(kafka(values))
    assert {n: w.rows for n, w in summary.predictions.windows.items()} == {FIRST + i: WINDOW_ROWS for i in range(3)}

    later = worker(predictions=Before(closed=FIRST + 2)).of(kafka(values))
    assert (list(later.predictions.windows), later.predictions.late) == ([FIRST + 2], 2 * WINDOW_ROWS)
    assert later.rows == summary.rows


def test_s18_event_times_all_over_the_calendar_leave_the_newest_windows() -> None:
    values = [record(0, GOOD, event_time=START - i * WINDOW) for i in range(MAX_WINDOWS + 20)]
    whole = worker(2).of(kafka(values))
    assert (len(whole.predictions.windows), whole.predictions.late) == (MAX_WINDOWS, 20)
    assert min(whole.predictions.windows) == FIRST - MAX_WINDOWS + 1
    parts = [worker(2).of(kafka(values[i::3])) for i in range(3)]
    together = total(parts, sample_rows=2).predictions
    assert (together.windows.keys(), together.late) == (whole.predictions.windows.keys(), 20)


def test_without_an_event_time_it_is_the_time_of_the_request() -> None:
    at = START + 7 * WINDOW
    summary = worker().of(kafka([record(0, GOOD, event_time=None, requested_at=at)]))
    assert list(summary.predictions.windows) == [FIRST + 7]


def test_no_event_time_counts_for_more_than_the_moment_kafka_got_it() -> None:
    ahead = [record(i, GOOD, event_time=START + timedelta(hours=20)) for i in range(9)]
    summary = worker().of(kafka(ahead, after=60.0))
    assert set(summary.predictions.highest[f"{PREDICTIONS}/0"]) == {int((START.timestamp() + 60) * 1e6)}
    assert list(summary.predictions.windows) == [FIRST + 60 // WINDOW.seconds]
    assert (only(summary).first, only(summary).last) == (START + timedelta(minutes=1),) * 2


CAME = st.lists(st.tuples(st.floats(0, 20), st.floats(-1, 86_000)), min_size=1, max_size=30)


@given(CAME, st.data())
@settings(deadline=None, max_examples=50)
def test_s18_event_times_far_ahead_make_no_row_late_and_open_no_further_window(
    came: list[tuple[float, float]], data: Any
) -> None:
    """Each comes a little after the one before and says that it is of up to a day later; cut anywhere, windows are the same."""
    times = np.cumsum([step for step, _ in came]).tolist()
    said = [START + timedelta(seconds=at + ahead) for at, (_, ahead) in zip(times, came, strict=True)]
    values = [[record(i, GOOD, event_time=at)] for i, at in enumerate(said)]
    log = pa.concat_batches([kafka(values[i], offset=i, after=at) for i, at in enumerate(times)])
    cuts = sorted(data.draw(st.sets(st.integers(1, len(came)))) | {len(came)})

    def held(cuts: list[int]) -> tuple[dict[int, int], int]:
        windows, start = Windows(), 0
        found: list[Closed] = []
        for cut in cuts:
            work = worker(1, reference=None, digest=None, predictions=windows.before)
            windows = extend(windows, work.of(log.slice(start, cut - start)).predictions, sample_rows=1)
            windows, closed = close(windows, length=WINDOW, lateness=timedelta(seconds=1))
            found, start = [*found, *closed], cut
        rows = {one.number: one.content.rows for one in found} | {n: w.rows for n, w in windows.open.items()}
        return rows, windows.late + sum(one.late for one in found)

    rows, late = held(cuts)
    assert (rows, late) == held([len(came)]) == (rows, 0)
    assert max(rows) <= (START.timestamp() + times[-1]) // WINDOW.total_seconds()


def test_s18_an_example_of_the_first_year_counts_where_a_window_can_begin() -> None:
    first = example(1, GOOD, label=1, scheduled_at="0001-01-01T00:00:00Z")
    part = worker(window=timedelta(days=7)).of(kafka([first] * 5, topic=EXAMPLES)).examples
    windows = extend(Windows(), part, sample_rows=1)
    after = worker(window=timedelta(days=7)).of(kafka([example(1, GOOD, label=1)] * 5, topic=EXAMPLES, offset=5))
    _, closed = close(extend(windows, after.examples, sample_rows=1), length=timedelta(days=7), lateness=timedelta(0))
    assert (closed[0].start.year, closed[0].content.rows) == (1899, 5)


def test_examples_count_in_the_window_that_time_had_reached_when_they_came() -> None:
    """The label of the first flight comes when the others are two windows on; only the order in the log counts."""
    far = 2 * WINDOW_ROWS
    values = [example(far + i, GOOD, label=i % 2) for i in range(10)] + [example(0, GOOD, label=1)]
    whole = worker().of(kafka(values, topic=EXAMPLES))
    assert {n: w.rows for n, w in whole.examples.windows.items()} == {FIRST + 2: 11}
    [found] = whole.examples.windows.values()
    assert found.cells(REFERENCE)[REFERENCE.places[LABEL, ""]].tolist() == [5, 6, 0]
    assert found.cells(REFERENCE)[REFERENCE.places[LABEL, "origin=EWR"]].sum() == 5
    assert found.tally.losses.rows == 11
    assert found.first == START

    begun = worker().of(kafka(values[:6], topic=EXAMPLES))
    rest = worker(examples=Before(highest=begun.examples.highest)).of(kafka(values[6:], topic=EXAMPLES, offset=6))
    assert add(begun, rest, sample_rows=50).examples == whole.examples
    closed = worker(examples=Before(closed=FIRST + 4)).of(kafka(values, topic=EXAMPLES))
    assert list(closed.examples.windows) == [FIRST + 4]


MANY = st.lists(
    st.tuples(st.integers(0, 3 * WINDOW_ROWS), st.integers(1, 90), st.floats(1, 1e6), st.booleans()), max_size=12
)


def _values(rows: list[tuple[int, int, float, bool]]) -> list[bytes]:
    made = [{**GOOD, "distance": distance, "carrier": f"c{version}"} for _, version, distance, _ in rows]
    return [
        record(number, values, model_version=version if known else None)
        for values, (number, version, _, known) in zip(made, rows, strict=True)
    ]


def _plain(summary: Summary) -> list[Any]:
    """Everything, the sample as rows: Arrow may write the same rows in several ways."""
    windows = summary.predictions.windows
    samples = [table_from_bytes(window.sample or b"").to_pylist() for window in windows.values()]
    rest = {n: msgspec.structs.replace(window, sample=None) for n, window in windows.items()}
    return [msgspec.structs.replace(summary.predictions, windows=rest), summary.examples, summary.skipped, samples]


@given(MANY, MANY, MANY)
@settings(deadline=None, max_examples=25)
def test_summaries_add_up_in_any_order_and_grouping(a: Any, b: Any, c: Any) -> None:
    batches = [kafka(_values(rows), partition=i) for i, rows in enumerate((a, b, c))]
    x, y, z = (worker(4).of(batch) for batch in batches)
    forward = _plain(add(add(x, y, sample_rows=4), z, sample_rows=4))
    assert forward == _plain(add(z, add(y, x, sample_rows=4), sample_rows=4))
    assert forward == _plain(total([Summary(), y, x, z], sample_rows=4))
    assert forward == _plain(worker(4).of(pa.concat_batches(batches)))


def test_records_are_taken_some_bytes_at_a_time_and_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = kafka(_values([(i, 1 + i % 3, 1.0 + i % 5, True) for i in range(300)]))
    whole = next(iter(worker(4)(iter([batch]))))
    pieces: list[int] = []
    of = Summarise.of

    def counted(self: Summarise, piece: pa.RecordBatch, *known: Any) -> Summary:
        pieces.append(piece.num_rows)
        return of(self, piece, *known)

    monkeypatch.setattr(Summarise, "of", counted)
    monkeypatch.setattr("monitors.summary._AT_ONCE", 20_000)
    again = next(iter(worker(4)(iter([batch, batch.slice(0, 0)]))))
    assert len(pieces) > 5
    assert sum(pieces) == 300
    told = [msgspec.msgpack.decode(one.column(0)[0].as_py(), type=Summary) for one in (whole, again)]
    assert _plain(told[0]) == _plain(told[1])


@given(st.lists(st.integers(1, 200), max_size=150), st.lists(st.integers(1, 200), max_size=150))
@settings(deadline=None, max_examples=50)
def test_the_highest_versions_keep_a_name_however_they_come(first: list[int], second: list[int]) -> None:
    def kept(*groups: list[int]) -> dict[int, int]:
        parts = [Content(rows=1, versions=content.newest(dict.fromkeys(group, 1), sum)) for group in groups]
        return content.add(parts[0], parts[1], sample_rows=1).versions

    found = kept(first, second)
    assert found == kept(second, first)
    highest = sorted({*first, *second})[-KEPT_VERSIONS:]
    assert {version for version in found if version != OLDER} == set(highest)
    assert sum(found.values()) == len(set(first)) + len(set(second))


def test_rows_counted_with_different_bins_are_mixed_and_no_longer_compared() -> None:
    values = kafka(records(features(rng(), 3)))
    both = add(worker().of(values), worker(digest="others").of(values), sample_rows=5)
    assert (only(both).rows, only(both).digest, only(both).counts) == (6, content.MIXED, b"")
    again = add(both, worker().of(values), sample_rows=5)
    assert (only(again).rows, only(again).digest, only(again).counts) == (9, content.MIXED, b"")


def test_a_worker_yields_one_small_payload() -> None:
    batch = kafka(records(features(rng(), 1_200)))

    [found] = list(worker()(iter([batch, batch])))

    assert found.schema == PAYLOAD
    [payload] = found.column(0).to_pylist()
    assert len(payload) < 100_000
    assert msgspec.msgpack.decode(payload, type=Summary).rows == 2_400
    assert table_from_bytes(only(worker().of(batch.slice(0, 99))).sample or b"").num_rows == 50


def test_worker_code_imports_neither_torch_nor_spark() -> None:
    code = "import sys, monitors.summary; sys.exit(bool({'torch', 'pyspark', 'evidently'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
