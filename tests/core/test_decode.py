import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_trainer.contract import FLOAT32_MAX, Contract
from stream_trainer.decode import KEPT_BYTES, MAX_ARROW_ROWS, decode, decoded_schema
from stream_trainer.schema import TIMESTAMP
from tests.core.worlds import (
    CLASSES,
    CONTRACT,
    GOOD,
    NOW,
    NUMBERS,
    TOPIC,
    arrow_bytes,
    by_offset,
    changed,
    code,
    decoded,
    json_bytes,
    kafka_batch,
    without,
)


def spelled(field: str, text: bytes) -> bytes:
    """A good record whose field holds exactly this text."""
    marker = json_bytes(changed(**{field: "@@"}))
    return marker.replace(b'"@@"', text)


def and_also(text: bytes) -> bytes:
    """A good record with one more member."""
    return json_bytes(GOOD)[:-1] + b"," + text + b"}"


NESTED = b"[" * 100_000 + b"]" * 100_000

POISON: dict[str, tuple[bytes | None, str]] = {
    "no value": (None, "null_value"),
    "no bytes": (b"", "invalid_json"),
    "cut short": (json_bytes(GOOD)[:-5], "invalid_json"),
    "not JSON": (b"late,distance\n1,2", "invalid_json"),
    "trailing data": (json_bytes(GOOD) * 2, "invalid_json"),
    "byte order mark": (b"\xef\xbb\xbf" + json_bytes(GOOD), "invalid_json"),
    "UTF-16": (json_bytes(GOOD).decode().encode("utf-16"), "invalid_json"),
    "bad UTF-8 in a value": (spelled("origin", b'"\xff\xfe"'), "bad_utf8"),
    "bad UTF-8 in a name": (and_also(b'"\xff":1'), "bad_utf8"),
    "lone surrogate": (spelled("origin", b'"\\ud800"'), "invalid_json"),
    "raw control character": (spelled("origin", b'"J\x01K"'), "invalid_json"),
    "NaN literal": (spelled("distance", b"NaN"), "invalid_json"),
    "Infinity literal": (spelled("distance", b"Infinity"), "invalid_json"),
    "-Infinity literal": (spelled("pressure", b"-Infinity"), "invalid_json"),
    "1e400": (spelled("distance", b"1e400"), "out_of_range"),
    "1e400 without bounds": (spelled("pressure", b"1e400"), "out_of_range"),
    "beyond float32": (json_bytes(changed(pressure=1e39)), "out_of_range"),
    "integer of 5000 digits": (spelled("distance", b"9" * 5000), "out_of_range"),
    "key of 5000 digits": (spelled("flight_id", b"9" * 5000), "out_of_range"),
    "below the low bound": (json_bytes(changed(distance=-0.1)), "out_of_range"),
    "above the high bound": (json_bytes(changed(distance=10_000.1)), "out_of_range"),
    "10 MB of text": (json_bytes(changed(carrier="x" * 10_000_000)), "too_large"),
    "10 MB in an unknown field": (json_bytes(changed(note="x" * 10_000_000)), "too_large"),
    "text of 257 characters": (json_bytes(changed(carrier="x" * 257)), "out_of_range"),
    "key of 1025 characters": (json_bytes(changed(flight_id="x" * 1025)), "out_of_range"),
    "empty key": (json_bytes(changed(flight_id="")), "out_of_range"),
    "huge nesting": (b"[" * 500_000, "wrong_type"),
    "huge nesting in an unknown field": (and_also(b'"u":' + NESTED), "too_deep"),
    "huge nesting in a reserved field": (and_also(b'"_output":' + NESTED), "too_deep"),
    "huge nesting in a feature": (spelled("place", NESTED), "wrong_type"),
    "null": (b"null", "null_field"),
    "a number": (b"7", "wrong_type"),
    "an array of records": (json_bytes([GOOD]), "wrong_type"),
    "missing feature": (json_bytes(without("distance")), "missing_field"),
    "missing label": (json_bytes(without("late")), "missing_field"),
    "missing key": (json_bytes(without("flight_id")), "missing_field"),
    "missing event time": (json_bytes(without("scheduled_at")), "missing_field"),
    "missing segment": (json_bytes(without("origin")), "missing_field"),
    "null feature": (json_bytes(changed(distance=None)), "null_field"),
    "null label": (json_bytes(changed(late=None)), "null_field"),
    "text for a number": (json_bytes(changed(distance="250")), "wrong_type"),
    "truth for a number": (json_bytes(changed(distance=True)), "wrong_type"),
    "number for a text": (json_bytes(changed(carrier=7)), "wrong_type"),
    "label 2": (json_bytes(changed(late=2)), "wrong_type"),
    "label as text": (json_bytes(changed(late="true")), "wrong_type"),
    "short vector": (json_bytes(changed(place=[1.0])), "out_of_range"),
    "long vector": (json_bytes(changed(place=[1.0, 2.0, 3.0])), "out_of_range"),
    "null in a vector": (json_bytes(changed(place=[1.0, None])), "null_field"),
    "naive datetime": (json_bytes(changed(scheduled_at="2026-01-01T10:00:00")), "wrong_type"),
    "a date": (json_bytes(changed(scheduled_at="2026-01-01")), "wrong_type"),
    "not a day": (json_bytes(changed(scheduled_at="2026-02-30T10:00:00Z")), "wrong_type"),
    "negative epoch": (json_bytes(changed(scheduled_at=-1)), "out_of_range"),
    "epoch in milliseconds": (json_bytes(changed(scheduled_at=1_767_225_600_000)), "out_of_range"),
    "unknown field beside a mistyped one": (json_bytes(changed(more=1, distance="x")), "wrong_type"),
}


@pytest.mark.parametrize("name", POISON)
def test_a_bad_record_costs_itself_only_and_says_why(name: str) -> None:
    value, reason = POISON[name]
    before, after = changed(flight_id="before"), changed(flight_id="after")
    rows = by_offset(decoded(before, value, after))
    assert code(rows[1]) == reason
    assert [code(rows[0]), code(rows[2])] == [None, None]
    assert [rows[0]["flight_id"], rows[2]["flight_id"]] == ["before", "after"]
    assert len(rows) == 3


def test_all_bad_records_at_once_hide_no_good_one() -> None:
    values: list[Any] = []
    for value, _ in POISON.values():
        values += [value, GOOD]
    rows = by_offset(decoded(*values))
    assert [code(rows[2 * i]) for i in range(len(POISON))] == [reason for _, reason in POISON.values()]
    assert all(code(rows[2 * i + 1]) is None for i in range(len(POISON)))


def test_a_rejected_row_has_its_first_bytes_length_and_digest_and_no_values() -> None:
    value = b"x" * (KEPT_BYTES + 1)
    (row,) = decoded(value)
    assert row["_bytes"] == value[:KEPT_BYTES]
    assert row["_length"] == KEPT_BYTES + 1
    assert row["_sha256"] == hashlib.sha256(value).hexdigest()
    assert all(row[field.name] is None for field in decoded_schema(CONTRACT) if not field.name.startswith("_"))


def test_a_good_row_has_its_place_in_the_log_and_its_values() -> None:
    (row,) = decode(CONTRACT, kafka_batch([json_bytes(GOOD)], first=7, partition=2)).to_pylist()
    assert (row["_topic"], row["_partition"], row["_offset"], row["_row"]) == (TOPIC, 2, 7, 0)
    assert row["_bytes"] is row["_reason"] is row["_sha256"] is row["_length"] is None
    assert row["scheduled_at"] == datetime(2026, 1, 1, 10, tzinfo=UTC)
    assert {k: row[k] for k in GOOD if k not in ("scheduled_at", "late")} == {
        k: v for k, v in GOOD.items() if k not in ("scheduled_at", "late")
    }
    assert row["late"] == 1.0


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"late": 1}, {"late": 1.0}),
        ({"late": False}, {"late": 0.0}),
        ({"flight_id": 12}, {"flight_id": "12"}),
        ({"flight_id": 10**30}, {"flight_id": "1" + "0" * 30}),
        ({"distance": 5}, {"distance": 5.0}),
        ({"pressure": None}, {"pressure": None}),
        ({"tail": None}, {"tail": None}),
        ({"origin": "a\0b"}, {"origin": "a\0b"}),
        ({"carrier": "\U0001f6eb" * 256}, {"carrier": "\U0001f6eb" * 256}),
        ({"carrier": ""}, {"carrier": ""}),
        ({"scheduled_at": 1_767_261_600}, {"scheduled_at": datetime(2026, 1, 1, 10, tzinfo=UTC)}),
        ({"scheduled_at": 0.25}, {"scheduled_at": datetime(1970, 1, 1, 0, 0, 0, 250_000, tzinfo=UTC)}),
        ({"scheduled_at": "2026-01-01T12:00:00+02:00"}, {"scheduled_at": datetime(2026, 1, 1, 10, tzinfo=UTC)}),
    ],
)
def test_what_is_unusual_but_allowed_is_read(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    (row,) = decoded(changed(**fields))
    assert code(row) is None
    assert {name: row[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("0001-01-01T00:00:00+23:59", None), ("9999-12-31T23:59:59-23:59", "out_of_range")]
)
def test_an_instant_at_the_edge_of_the_calendar_fails_nothing_else(text: str, expected: str | None) -> None:
    (row,) = decoded(changed(scheduled_at=text))
    assert code(row) == expected


def test_optional_fields_may_be_absent() -> None:
    (row,) = decoded(without("pressure", "tail"))
    assert (code(row), row["pressure"], row["tail"]) == (None, None, None)


def test_the_last_of_two_equal_names_counts() -> None:
    (row,) = decoded(and_also(b'"distance":1'))
    assert (code(row), row["distance"]) == (None, 1.0)


def test_unknown_fields_are_ignored_and_counted_reserved_ones_are_not_unknown() -> None:
    (row,) = decoded(changed(a=1, b={"c": [None]}, _example_id="x", _output=[0.1], _weight=2))
    assert (code(row), row["_unknown_fields"]) == (None, 2)


def test_no_records_give_no_rows_of_the_same_schema() -> None:
    empty = decode(CONTRACT, kafka_batch([]))
    assert empty.num_rows == 0
    assert empty.schema == decoded_schema(CONTRACT)


@pytest.mark.parametrize(
    ("contract", "record", "reason"),
    [
        (CLASSES, {"x": 1, "kind": "b"}, None),
        (CLASSES, {"x": 1, "kind": "d"}, "wrong_type"),
        (CLASSES, {"x": 1, "kind": 1}, "wrong_type"),
        (NUMBERS, {"x": 1, "y": -3}, None),
        (NUMBERS, {"x": 1, "y": 1e39}, "out_of_range"),
        (NUMBERS, {"x": 1, "y": True}, "wrong_type"),
    ],
)
def test_labels_of_other_kinds(contract: Contract, record: dict[str, Any], reason: str | None) -> None:
    (row,) = decoded({"flight_id": 1, "scheduled_at": 0} | record, contract=contract)
    assert code(row) == reason


def test_a_class_is_its_index() -> None:
    rows = decoded(
        *({"x": 1, "kind": k, "flight_id": 1, "scheduled_at": 0} for k in "cab"),
        contract=CLASSES,
    )
    assert [row["kind"] for row in rows] == [2.0, 0.0, 1.0]


# --- Arrow messages ---


def table(n: int = 1, **columns: Any) -> pa.Table:
    """An Arrow message's rows: good ones, but for the given columns."""
    given = {name: pa.array([value] * n) for name, value in GOOD.items()}
    given["scheduled_at"] = pa.array([NOW] * n, TIMESTAMP)
    return pa.table(given | columns)


def arrow_rows(*values: bytes | None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = decode(CONTRACT, kafka_batch(values, arrow=True)).to_pylist()
    return sorted(rows, key=lambda row: (row["_offset"], row["_row"]))


def far(kind: pa.DataType, value: int = 2**60) -> pa.Array:
    return pa.array([value], pa.int64()).cast(kind)


def test_each_row_of_an_arrow_message_counts_for_itself() -> None:
    distances = pa.array([1.0, -1.0, float("nan"), None, 5.0])
    rows = arrow_rows(arrow_bytes(table(5, distance=distances)), arrow_bytes(table(2)))
    assert [(row["_offset"], row["_row"], code(row)) for row in rows] == [
        (0, 0, None),
        (0, 1, "out_of_range"),
        (0, 2, "out_of_range"),
        (0, 3, "null_field"),
        (0, 4, None),
        (1, 0, None),
        (1, 1, None),
    ]
    kept = json.loads(rows[1]["_bytes"])
    assert (kept["distance"], kept["flight_id"]) == (-1.0, "f1")


def test_an_arrow_row_reads_as_the_same_record_in_json_does() -> None:
    (from_arrow,) = arrow_rows(arrow_bytes(table()))
    (from_json,) = decoded(changed(scheduled_at=NOW.isoformat()))
    assert from_arrow == from_json


@pytest.mark.parametrize("value", [b"", b"garbage", b"\xff" * 100, arrow_bytes(table())[:-40], json_bytes(GOOD)])
def test_garbage_in_place_of_arrow_costs_its_record_only(value: bytes) -> None:
    rows = arrow_rows(arrow_bytes(table()), value, None, arrow_bytes(table()))
    assert [code(row) for row in rows] == [None, "invalid_arrow", "null_value", None]
    assert rows[1]["_bytes"] == value


@pytest.mark.parametrize(
    "columns",
    [
        {"distance": pa.array([250], pa.int16())},
        {"distance": pa.array([250.5], pa.float32())},
        {"carrier": pa.array(["AA"]).dictionary_encode()},
        {"place": pa.array([[1.0, -2.0]], pa.list_(pa.float64(), 2))},
        {"late": pa.array([1], pa.int8())},
        {"flight_id": pa.array([2**64 - 1], pa.uint64())},
        {"scheduled_at": pa.array(["2026-01-01T10:00:00Z"])},
        {"scheduled_at": far(pa.timestamp("ns", tz="UTC"), 1_767_261_600_000_000_001)},
        {"scheduled_at": far(pa.timestamp("ms", tz="Europe/Berlin"), 1_767_261_600_000)},
        {"note": pa.array([float("nan")])},
        {"note": far(pa.timestamp("s"))},
        {"note": far(pa.duration("s"))},
        {"note": pa.array([2**31 - 1], pa.int32()).cast(pa.date32())},
        {"note": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))},
        {"note": pa.array([b"\xff"])},
    ],
)
def test_an_arrow_type_that_says_the_same_is_read(columns: dict[str, pa.Array]) -> None:
    (row,) = arrow_rows(arrow_bytes(table(**columns)))
    assert code(row) is None
    assert row["_unknown_fields"] == int("note" in columns)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"scheduled_at": far(TIMESTAMP, 2**62)}, "wrong_type"),
        ({"scheduled_at": far(pa.timestamp("s", tz="UTC"))}, "wrong_type"),
        ({"scheduled_at": far(pa.timestamp("us", tz="Mars/Base"), 0)}, "wrong_type"),
        ({"scheduled_at": far(pa.timestamp("us"), 0)}, "wrong_type"),
        ({"carrier": pa.array([b"\xff"])}, "wrong_type"),
        ({"late": pa.array([2])}, "wrong_type"),
        ({"late": pa.nulls(1)}, "null_field"),
        ({"late": pa.array([{"a": {"b": b"\xff"}}])}, "wrong_type"),
        ({"distance": far(pa.duration("s"))}, "wrong_type"),
        ({"place": pa.array([[1.0, float("inf")]])}, "out_of_range"),
    ],
)
def test_an_arrow_value_that_cannot_be_used_is_rejected_never_raised(columns: dict[str, pa.Array], reason: str) -> None:
    rows = arrow_rows(arrow_bytes(table(**columns)), arrow_bytes(table()))
    assert [code(row) for row in rows] == [reason, None]


def test_one_unreadable_instant_leaves_the_other_rows_of_its_message() -> None:
    micros = int(NOW.timestamp() * 1e6)
    times = pa.array([micros, 2**62, micros], pa.int64()).cast(TIMESTAMP)
    rows = arrow_rows(arrow_bytes(table(3, scheduled_at=times)))
    assert [code(row) for row in rows] == [None, "wrong_type", None]
    assert rows[2]["scheduled_at"] == NOW


def test_text_that_is_not_utf8_in_an_arrow_message_is_rejected() -> None:
    offsets = pa.py_buffer(b"\0\0\0\0\2\0\0\0")
    broken = pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"\xff\xfe")])
    (row,) = arrow_rows(arrow_bytes(table(carrier=broken)))
    assert code(row) == "invalid_arrow"


def test_an_arrow_message_of_too_many_rows_is_rejected_as_one() -> None:
    rows = arrow_rows(arrow_bytes(pa.table({"a": pa.nulls(MAX_ARROW_ROWS + 1, pa.int8())})))
    assert [code(row) for row in rows] == ["too_large"]


def test_an_arrow_message_without_rows_gives_none() -> None:
    assert arrow_rows(arrow_bytes(table(1).slice(0, 0)), arrow_bytes(pa.table({}))) == []


def test_only_the_header_makes_a_message_arrow() -> None:
    (row,) = decode(CONTRACT, kafka_batch([arrow_bytes(table())])).to_pylist()
    assert code(row) == "invalid_json"


# --- properties ---

BYTES = st.one_of(
    st.none(),
    st.binary(max_size=200),
    st.text(max_size=50).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5).map(
        lambda value: json.dumps(value).encode()
    ),
    st.dictionaries(
        st.sampled_from([*GOOD, "other"]), st.none() | st.booleans() | st.floats() | st.integers() | st.text()
    ).map(lambda fields: json.dumps(changed(**fields)).encode()),
)


@given(st.lists(BYTES, max_size=8), st.booleans())
@settings(max_examples=150)
def test_whatever_the_bytes_each_record_is_one_row_good_or_rejected(values: list[bytes | None], arrow: bool) -> None:
    found = decode(CONTRACT, kafka_batch(values, arrow=arrow)).to_pylist()
    assert sorted(row["_offset"] for row in found) == list(range(len(values)))
    for row in found:
        assert (row["_reason"] is None) == (row["_sha256"] is None) == (row["late"] is not None)


WHOLE = arrow_bytes(table(3))


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=150)
def test_a_damaged_arrow_message_never_raises(damage: list[tuple[int, int]]) -> None:
    broken = bytearray(WHOLE)
    for place, byte in damage:
        broken[place] = byte
    rows = arrow_rows(bytes(broken), WHOLE)
    assert [code(row) for row in rows if row["_offset"] == 1] == [None] * 3


RECORDS = st.fixed_dictionaries(
    {
        "distance": st.floats(0, 10_000),
        "pressure": st.none() | st.floats(-FLOAT32_MAX, FLOAT32_MAX),
        "carrier": st.text(max_size=256),
        "tail": st.none() | st.text(max_size=20),
        "place": st.lists(st.floats(-FLOAT32_MAX, FLOAT32_MAX), min_size=2, max_size=2),
        "origin": st.text(max_size=20),
        "flight_id": st.text(min_size=1, max_size=30),
        "scheduled_at": st.datetimes(datetime(1, 1, 2), datetime(2026, 1, 2), timezones=st.just(UTC)),  # noqa: DTZ001
        "late": st.booleans(),
    }
)


@given(st.lists(RECORDS, min_size=1, max_size=5))
def test_a_record_of_the_contract_reads_as_what_was_written(records: list[dict[str, Any]]) -> None:
    rows = decoded(*records)
    for record, row in zip(records, rows, strict=True):
        assert code(row) is None
        assert {name: row[name] for name in record} == record


@pytest.mark.parametrize("arrow", [False, True])
def test_an_event_time_far_after_its_append_time_is_out_of_range(arrow: bool) -> None:
    soon = {**GOOD, "scheduled_at": NOW + timedelta(hours=23)}
    never = {**GOOD, "scheduled_at": datetime(9999, 1, 1, tzinfo=UTC)}
    if arrow:
        batch = kafka_batch([arrow_bytes(pa.Table.from_pylist([soon, never]))], arrow=True)
    else:
        batch = kafka_batch([json_bytes(soon), json_bytes(never)])
    assert [code(row) for row in decode(CONTRACT, batch).to_pylist()] == [None, "out_of_range"]
