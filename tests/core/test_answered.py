"""What serving had answered, from the example's reserved fields to the scores of a version."""

import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from stream_trainer.contract import BinaryLabel, ClassLabel, Contract, Numeric, NumericLabel
from stream_trainer.decode import decode, decoded_schema


def contract(label: Any) -> Contract:
    return Contract(features=[Numeric("x")], label=label, key="id", event_time="at")


def decoded(of: Contract, fields: dict[str, Any], label: Any) -> dict[str, Any]:
    value = json.dumps({"x": 1.0, "id": "a", "at": "2026-01-01T00:00:00Z", of.label.name: label, **fields}).encode()
    batch = pa.record_batch(
        {
            "topic": ["t"],
            "partition": pa.array([0], pa.int32()),
            "offset": [0],
            "timestamp": pa.array([datetime(2026, 1, 1, tzinfo=UTC)], pa.timestamp("us", tz="UTC")),
            "value": [value],
        }
    )
    found = decode(of, batch)
    assert found.schema == decoded_schema(of)
    (row,) = found.to_pylist()
    assert row["_reason"] is None
    return dict(row)


@pytest.mark.parametrize(
    ("label", "value", "output", "expected"),
    [
        (BinaryLabel("y"), True, 0.25, [0.25]),
        (BinaryLabel("y"), True, 1, [1.0]),
        (ClassLabel("y", classes=["a", "b", "c"]), "a", [0.5, 0.25, 0.25], [0.5, 0.25, 0.25]),
        (NumericLabel("y"), 2.0, -17.5, [-17.5]),
    ],
)
def test_an_answer_comes_with_its_version(label: Any, value: Any, output: Any, expected: list[float]) -> None:
    row = decoded(contract(label), {"_model_version": 7, "_output": output}, value)
    assert (row["_model_version"], row["_output"]) == (7, expected)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"_model_version": 7},
        {"_output": 0.5},
        {"_model_version": None, "_output": 0.5},
        {"_model_version": 0, "_output": 0.5},
        {"_model_version": -1, "_output": 0.5},
        {"_model_version": True, "_output": 0.5},
        {"_model_version": 2**80, "_output": 0.5},
        {"_model_version": "7", "_output": 0.5},
        {"_model_version": 7, "_output": 1.5},
        {"_model_version": 7, "_output": -0.1},
        {"_model_version": 7, "_output": "high"},
        {"_model_version": 7, "_output": [0.5, 0.5]},
        {"_model_version": 7, "_output": []},
        {"_model_version": 7, "_output": {"p": 1}},
    ],
)
def test_what_makes_no_sense_is_no_answer_and_costs_no_example(fields: dict[str, Any]) -> None:
    row = decoded(contract(BinaryLabel("y")), fields, True)
    assert (row["_model_version"], row["_output"]) == (None, None)
    assert row["y"] == 1.0
