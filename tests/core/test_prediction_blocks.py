import json
from typing import Any

import pytest

from stream_trainer.prediction_blocks import MAX_ROWS, is_block, records

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
