from datetime import UTC, datetime
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from stream_trainer.schema import (
    arrow_fields,
    as_datetime,
    field_names,
    label_numbers,
    struct_type,
    to_columns,
)
from tests.core.worlds import CLASSES, CONTRACT, GOOD, NUMBERS


def parse(record: dict[str, Any], kind: Any = "request", *, strict: bool = False) -> msgspec.Struct:
    return msgspec.json.decode(msgspec.json.encode(record), type=struct_type(CONTRACT, kind, strict=strict))


def test_an_example_holds_the_label_and_a_request_does_not() -> None:
    assert field_names(CONTRACT, "example") == (*field_names(CONTRACT, "request"), "late")
    assert [f.name for f in arrow_fields(CONTRACT, "example")] == list(field_names(CONTRACT, "example"))


def test_a_request_may_lack_key_time_and_segments_but_no_required_feature() -> None:
    features = {k: GOOD[k] for k in ("distance", "carrier", "place")}
    columns = to_columns(CONTRACT, "request", [parse(features)])
    assert [columns[name].to_pylist() for name in ("flight_id", "scheduled_at", "origin")] == [[None]] * 3
    with pytest.raises(msgspec.ValidationError, match="distance"):
        parse({k: v for k, v in features.items() if k != "distance"})


def test_only_the_strict_struct_refuses_unknown_fields() -> None:
    parse(GOOD | {"more": 1}, "example")
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        parse(GOOD | {"more": 1}, "example", strict=True)


def test_columns_have_the_types_that_were_announced() -> None:
    columns = to_columns(CONTRACT, "example", [parse(GOOD, "example")] * 3)
    assert {name: column.type for name, column in columns.items()} == {
        field.name: field.type for field in arrow_fields(CONTRACT, "example")
    }
    assert {len(column) for column in columns.values()} == {3}


def test_no_rows_give_empty_columns() -> None:
    columns = to_columns(CONTRACT, "example", [])
    assert pa.table(columns).num_rows == 0


def test_equal_contracts_share_one_struct() -> None:
    assert struct_type(CONTRACT, "example") is struct_type(CONTRACT, "example")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (253_402_300_799, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (datetime.fromisoformat("2026-01-01T12:00:00+02:00"), datetime(2026, 1, 1, 10, tzinfo=UTC)),
        (datetime.fromisoformat("0001-01-01T00:00:00+10:00"), datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_an_event_time_is_an_aware_instant_in_utc(value: Any, expected: datetime) -> None:
    found = as_datetime(value)
    assert found == expected
    assert found.tzinfo is UTC


def test_labels_are_learned_as_numbers() -> None:
    assert label_numbers(CLASSES.label, "abc") == [0.0, 1.0, 2.0]
    assert label_numbers(CONTRACT.label, [True, 0]) == [1.0, 0.0]
    assert label_numbers(NUMBERS.label, [-2]) == [-2.0]
