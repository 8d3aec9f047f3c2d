"""Training, `/predict` and the Open Inference Protocol read the same record as the same features, bit for bit."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from serving.body import RowParser
from serving.oip.fields import inputs
from serving.oip.request import RequestParser
from serving.problems import Problem
from serving.rows import Rows
from stream_trainer.contract import Contract, Numeric
from stream_trainer.decode import decode
from stream_trainer.features import encode
from stream_trainer.schema import feature_columns, struct_type, to_columns
from tests.core.worlds import CONTRACT, NOW, kafka_batch
from tests.serving.oip.world import as_binary, binary_body, tensor

PREDICT = RowParser(CONTRACT, 100)
INFER = RequestParser(CONTRACT, 100)
DATATYPES = {field.name: field.datatype for field in inputs(CONTRACT)}

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
RECORD = st.fixed_dictionaries(
    {
        "distance": st.floats(0, 10_000),
        "pressure": st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False),
        "carrier": st.sampled_from(["AA", "UA"]) | TEXT,
        "tail": st.none() | TEXT,
        "place": st.lists(st.floats(-1e30, 1e30), min_size=2, max_size=2),
        "origin": TEXT,
        "flight_id": st.text("abc", min_size=1, max_size=4),
        "scheduled_at": st.datetimes(max_value=NOW.replace(tzinfo=None)).map(lambda t: t.isoformat() + "Z"),
    }
)


def tensors_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [tensor(name, [row[name] for row in rows], DATATYPES[name]) for name in rows[0]]


def json_body(rows: list[dict[str, Any]]) -> bytes:
    return msgspec.json.encode({"inputs": [t | {"shape": shape_of(t, len(rows))} for t in tensors_of(rows)]})


def shape_of(one: dict[str, Any], rows: int) -> list[int]:
    return [rows, 2] if one["name"] == "place" else [rows]


def accepted(parse: Callable[[], Rows]) -> list[Any] | None:
    try:
        return list(parse().tuples())
    except Problem:
        return None


@given(st.lists(RECORD, min_size=1, max_size=6))
def test_all_three_paths_give_the_same_bits(rows: list[dict[str, Any]]) -> None:
    predicted = PREDICT.parse(msgspec.json.encode({"instances": rows}))
    inferred = INFER.parse(json_body(rows), None).rows
    nullable = ("tail",)  # null has no bytes
    parts = [as_binary(t) if t["name"] not in nullable else t for t in tensors_of(rows)]
    content, headers = binary_body([t | {"shape": shape_of(t, len(rows))} for t in parts])
    binary = INFER.parse(content, next(iter(headers.values()))).rows
    assert list(inferred.tuples()) == list(binary.tuples()) == list(predicted.tuples())

    learned = decode(CONTRACT, kafka_batch([msgspec.json.encode(row | {"late": True}) for row in rows]))
    assert learned.column("_reason").null_count == len(rows)
    trained = {name: learned.column(name) for name in DATATYPES}
    whole = struct_type(CONTRACT, "request")
    names = [f"f{i}" for i in range(len(DATATYPES))]
    structs = [whole(**dict(zip(names, values, strict=True))) for values in inferred.tuples()]
    assert to_columns(CONTRACT, "request", structs) == trained
    joined = Rows.joined([inferred, predicted, binary])
    served = encode(CONTRACT, feature_columns(CONTRACT, joined.columns))
    assert torch.equal(served.view(torch.int64), encode(CONTRACT, trained).view(torch.int64).repeat(3, 1))


ANY_NUMBER = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**20), 10**20)


@given(
    st.dictionaries(st.sampled_from(["x", "y"]), ANY_NUMBER | TEXT | st.booleans() | st.none(), min_size=1),
    st.floats(-1e6, 0),
    st.floats(1, 1e6),
)
def test_both_accept_the_same_values(row: dict[str, Any], low: float, high: float) -> None:
    features = [Numeric("x", low=low, high=high), Numeric("y", optional=True)]
    contract = Contract(features=features, label=CONTRACT.label, key="k", event_time="t")

    body = {"inputs": [tensor(name, [value], "FP64", [1]) for name, value in row.items()]}
    inferred = accepted(lambda: RequestParser(contract, 1).parse(msgspec.json.encode(body), None).rows)
    predicted = accepted(lambda: RowParser(contract, 1).parse(msgspec.json.encode({"instances": [row]})))
    assert inferred == predicted


@pytest.mark.parametrize(
    ("name", "value", "refused"),
    [
        ("distance", 10_000.0, False),
        ("distance", -0.0, False),
        ("carrier", "A" * 256, False),
        ("carrier", "", False),
        ("flight_id", "k" * 1024, False),
        ("scheduled_at", "0001-01-01T00:00:00+14:00", False),
        ("scheduled_at", "9999-12-31T23:59:59.999999Z", False),
        ("scheduled_at", "9999-12-31T23:59:59.999999999Z", True),
        ("distance", 10_000.1, True),
        ("carrier", "A" * 257, True),
        ("flight_id", "k" * 1025, True),
        ("scheduled_at", "10000-01-01T00:00:00Z", True),
        ("place", [1.0], True),
    ],
)
def test_edges_are_the_same(name: str, value: Any, refused: bool) -> None:
    row = {"distance": 1.0, "carrier": "AA", "place": [1.0, 2.0], name: value}
    predicted = accepted(lambda: PREDICT.parse(msgspec.json.encode({"instances": [row]})))
    assert accepted(lambda: INFER.parse(json_body([row]), None).rows) == predicted
    assert (predicted is None) == refused
