import json
import math
import struct
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_trainer.prediction_blocks import MAX_COPIED, MAX_ROWS, is_block, records

_NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
BLOCK: dict[str, Any] = {
    "rows": 2,
    "requested_at": "2026-01-01T10:00:00Z",
    "model_version": 3,
    "role": "champion",
    "prediction_id": ["a", "b"],
    "output": [0.25, 0.5],
    "segments": {},
    "features": {"x": [1.50, None]},
}


def _packed(*numbers: float) -> str:
    return b64encode(struct.pack(f"<{len(numbers)}d", *numbers)).decode()


@given(st.lists(st.tuples(_NUMBERS | st.none(), _NUMBERS, _NUMBERS), min_size=1, max_size=8))
def test_packed_numbers_are_those_that_were_packed(rows: list[tuple[float | None, float, float]]) -> None:
    ones = [math.nan if one is None else one for one, *_ in rows]
    features = {
        "one": {"float64": _packed(*ones)},
        "word": ["w"] * len(rows),
        "pair": {"float64": _packed(*(number for _, *pair in rows for number in pair)), "size": 2},
    }
    names = [f"{i}" for i in range(len(rows))]
    block = BLOCK | {"rows": len(rows), "prediction_id": names, "output": names, "features": features}

    found = [json.loads(record)["features"] for record in records(json.dumps(block, separators=(",", ":")).encode())]

    assert found == [{"one": one, "word": "w", "pair": pair} for one, *pair in rows]
    assert [list(one) for one in found] == [["one", "word", "pair"]] * len(rows)


def test_a_record_of_one_row_is_itself() -> None:
    for value in (b'{"prediction_id": "a"}', b"not json", b""):
        assert not is_block(value)
        assert records(value) == (value,)


def test_numbers_are_copied_as_they_stand() -> None:
    text = json.dumps(BLOCK, separators=(",", ":")).replace("0.25", "0.250000000000000000001")
    assert b"0.250000000000000000001" in records(text.encode())[0]


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 0},
        {"rows": 3},
        {"rows": -1},
        {"rows": MAX_ROWS + 1},
        {"rows": 2**70},
        {"prediction_id": ["a"]},
        {"output": None},
        {"features": {"x": [1.0]}},
        {"features": {"x": [1.0, 2.0], "y": []}},
        {"segments": {"s": ["a", "b", "c"]}},
        {"key": ["k"]},
        {"event_time": []},
        {"features": [1, 2]},
        {"features": {"x": {"float64": _packed(1.0)}}},
        {"features": {"x": {"float64": _packed(1.0, math.inf)}}},
        {"features": {"x": {"float64": _packed(1.0, 2.0)[:-1]}}},
        {"features": {"x": {"float64": "no base64 at all!"}}},
        {"features": {"x": {"float64": _packed(1.0, 2.0), "size": 2}}},
        {"features": {"x": {"float64": "", "size": 0}}},
        {"features": {"x": {"float64": _packed(1.0, 2.0), "size": -1}}},
        {"features": {"x": {"float64": _packed(1.0, 2.0), "size": 2**62}}},
    ],
)
def test_what_is_not_a_block_is_refused_by_a_value_error(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        records(json.dumps(BLOCK | change, separators=(",", ":")).encode())


def test_a_torn_block_is_refused() -> None:
    whole = json.dumps(BLOCK, separators=(",", ":")).encode()
    for length in range(len(b'{"rows":'), len(whole)):
        with pytest.raises(ValueError, match=r".+"):
            records(whole[:length])


@pytest.mark.parametrize(
    "long",
    [
        {"role": "x" * 1_000},
        {"model_version": [0] * 1_000},
        {"requested_at": "2" * 1_000},
        {"segments": {"s" * 1_000: [None] * 100}},
        {"features": {"x" * 1_000: [1.0] * 100}},
    ],
)
def test_s18_rows_that_would_be_far_longer_than_their_block_are_not_made(long: dict[str, Any]) -> None:
    rows = {"rows": 100, "prediction_id": ["a"] * 100, "output": [0.5] * 100, "features": {}}
    with pytest.raises(ValueError, match=f"{MAX_COPIED} times as many are read"):
        records(json.dumps(BLOCK | rows | long, separators=(",", ":")).encode())
