"""The binary tensor data extension: the bytes that are read and written, and the sizes that must fit."""

import math
import struct
import tracemalloc
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.oip.request import HEADER_LENGTH
from serving.oip.tensors import Unusable, from_binary, from_json, to_binary
from tests.core.worlds import CLASSES
from tests.serving.oip import protocol
from tests.serving.oip.world import INFER, ROWS, World, as_binary, binary_body, binary_bytes, replaced, tensor, tensors

BOUNDS = {f"{sign}INT{bits}": bits for sign in ("", "U") for bits in (8, 16, 32, 64)}
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "BOOL": st.booleans(),
    "FP16": st.floats(width=16, allow_nan=False),
    "FP32": st.floats(width=32, allow_nan=False),
    "FP64": st.floats(allow_nan=False),
    "BYTES": st.text(st.characters(codec="utf-8"), max_size=20),
    **{
        name: st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        if name.startswith("I")
        else st.integers(0, 2**bits - 1)
        for name, bits in BOUNDS.items()
    },
}


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@given(st.data(), st.sampled_from(sorted(VALUES)))
def test_what_is_written_is_read(data: st.DataObject, datatype: str) -> None:
    values = data.draw(st.lists(VALUES[datatype], max_size=20))
    raw = binary_bytes(datatype, values)
    assert from_binary(datatype, memoryview(raw), len(values), nullable=False) == values
    if datatype in ("FP64", "BYTES"):
        assert to_binary(datatype, values) == raw


@given(st.data(), st.sampled_from(sorted(VALUES.keys() - {"FP16"})), st.booleans())
def test_json_and_binary_hold_the_same(data: st.DataObject, datatype: str, nullable: bool) -> None:
    values = VALUES[datatype]
    if datatype.startswith("FP"):
        values = values.filter(math.isfinite)
    drawn = data.draw(st.lists(values, min_size=2, max_size=20).filter(lambda v: len(v) % 2 == 0))
    rows = len(drawn) // 2
    expected = from_binary(datatype, memoryview(binary_bytes(datatype, drawn)), len(drawn), nullable=nullable)
    nested = [drawn[i : i + 2] for i in range(0, len(drawn), 2)]
    for form in (drawn, nested):
        found = list(from_json(datatype, msgspec.json.encode(form), rows, 2, nullable=nullable))
        assert found == expected
        assert [math.copysign(1, v) for v in found if datatype != "BYTES"] == [
            math.copysign(1, v) for v in expected if datatype != "BYTES"
        ]


@given(st.floats(width=32, allow_nan=False, allow_subnormal=True))
def test_bf16_is_the_upper_half_of_a_float32(value: float) -> None:
    upper = struct.pack("<f", value)[2:]
    found = from_binary("BF16", memoryview(upper), 1, nullable=False)
    assert found == list(struct.unpack("<f", b"\0\0" + upper)) or math.isnan(found[0])


@given(st.binary(max_size=60), st.sampled_from([*sorted(VALUES), "BF16"]), st.integers(0, 8), st.booleans())
def test_no_bytes_make_it_fail_otherwise(raw: bytes, datatype: str, count: int, nullable: bool) -> None:
    try:
        values = from_binary(datatype, memoryview(raw), count, nullable=nullable)
    except Unusable:
        return
    assert len(values) == count


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "BF16"])
def test_nan_is_a_missing_number_where_one_may_be_missing(datatype: str) -> None:
    quiet = {"FP16": "<H", "BF16": "<H", "FP32": "<I", "FP64": "<Q"}[datatype]
    for pattern in {"FP16": (0x7E00, 0x7D01, 0xFE00), "BF16": (0x7FC0, 0x7F81, 0xFFC0)}.get(
        datatype, (0x7FC00000, 0x7F800001) if datatype == "FP32" else (0x7FF8 << 48, (0x7FF0 << 48) + 1)
    ):
        raw = memoryview(struct.pack(quiet, 0) + struct.pack(quiet, pattern))
        assert from_binary(datatype, raw, 2, nullable=True) == [0.0, None]
        with pytest.raises(Unusable, match="NaN") as caught:
            from_binary(datatype, raw, 2, nullable=False)
        assert caught.value.at == "[1]"


def test_a_claimed_length_allocates_nothing() -> None:
    raw = memoryview(struct.pack("<I", 2**32 - 1) + b"abc")
    tracemalloc.start()
    try:
        with pytest.raises(Unusable, match="4294967295 bytes are claimed, 3 are left"):
            from_binary("BYTES", raw, 1, nullable=False)
        with pytest.raises(Unusable, match="too few"):
            from_binary("BYTES", raw, 2**40, nullable=False)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_binary_inputs_are_the_rows_that_json_gives(world: World) -> None:
    world.infer({"inputs": tensors()})
    expected = world.answers.rows
    whole = [one if one["name"] == "tail" else as_binary(one) for one in tensors()]  # null has no bytes
    mixed = [as_binary(one) if i % 2 else one for i, one in enumerate(tensors()) if one["name"] != "tail"]
    for inputs in (whole, [one for one in tensors() if one["name"] == "tail"] + mixed):
        world.answers.rows = []
        content, headers = binary_body(inputs)
        assert world.client.post(INFER, content=content, headers=headers).status_code == 200
        assert world.answers.rows == expected


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP32", "UINT8", "BOOL", "INT64"])
def test_every_fixed_datatype_is_a_number(world: World, datatype: str) -> None:
    values = [0, 1, 1, 0, 1, 0]
    raw = b"".join(struct.pack("<f", v)[2:] for v in values) if datatype == "BF16" else binary_bytes(datatype, values)
    one = {"name": "distance", "shape": [6], "datatype": datatype, "bytes": raw}
    content, headers = binary_body([one if t["name"] == "distance" else t for t in tensors()])
    assert world.client.post(INFER, content=content, headers=headers).status_code == 200
    found = [row[0] for row in world.answers.rows]
    assert found == values
    assert {type(v) for v in found} == {float}


@pytest.mark.parametrize(
    ("more", "binary"),
    [
        ({}, []),
        ({"parameters": {"binary_data_output": True}}, ["output", "prediction_id"]),
        ({"outputs": [{"name": "output", "parameters": {"binary_data": True}}]}, ["output"]),
        (
            {
                "parameters": {"binary_data_output": True},
                "outputs": [{"name": "prediction_id"}, {"name": "output", "parameters": {"binary_data": False}}],
            },
            ["prediction_id"],
        ),
    ],
)
@pytest.mark.parametrize("contract", ["numbers", "classes"])
def test_outputs_come_as_they_were_asked_for(more: dict[str, Any], binary: list[str], contract: str) -> None:
    world = World(CLASSES) if contract == "classes" else World()
    inputs = [tensor("x", [0.5, 1.5], "FP64")] if contract == "classes" else tensors(ROWS[:2])
    plain = {o["name"]: o["data"] for o in world.infer({"inputs": inputs})["outputs"]}
    body, data = protocol.split(world.client.post(INFER, json={"inputs": inputs, **more}))
    at = 0
    found = []
    for output in body["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is not None:
            part = data[at : at + size]
            at += size
            found.append(output["name"])
            if output["datatype"] == "FP64":
                assert np.frombuffer(part, "<f8").tolist() == plain["output"]
            else:
                assert part == binary_bytes("BYTES", plain["prediction_id"])
    assert found == binary


GOOD, HEADERS = binary_body([as_binary(one) for one in tensors() if one["name"] != "tail"])


@pytest.mark.parametrize("cut", [1, 8, 40, 300])
def test_truncated_and_oversized_bodies_are_refused(world: World, cut: int) -> None:
    assert world.client.post(INFER, content=GOOD, headers=HEADERS).status_code == 200
    assert world.refused(GOOD[:-cut], headers=HEADERS)["reason"] == "wrong_size"
    assert world.refused(GOOD + b"\0" * cut, headers=HEADERS)["reason"] == "wrong_size"


@pytest.mark.parametrize(
    "length", ["", "-1", "+5", "1.0", "0x10", " ", "1,1", "9" * 19, "9" * 30, str(len(GOOD) + 1), "²"]
)
def test_a_header_that_is_no_length_within_the_body_is_refused(world: World, length: str) -> None:
    headers = {HEADER_LENGTH.encode(): length.encode("latin-1")}
    problem = world.client.post(INFER, content=GOOD, headers=headers)
    assert (problem.status_code, problem.json()["reason"]) == (400, "invalid_header")
    assert problem.json()["header"] == HEADER_LENGTH


@pytest.mark.parametrize("move", [-1, 1, -200, 200])
def test_a_header_that_points_elsewhere_is_refused(world: World, move: int) -> None:
    headers = {HEADER_LENGTH: str(int(HEADERS[HEADER_LENGTH]) + move)}
    assert world.refused(GOOD, headers=headers)["reason"] in ("invalid_json", "bad_utf8", "invalid_value", "wrong_size")


def test_without_the_header_there_is_no_binary_data(world: World) -> None:
    assert world.refused(GOOD)["reason"] in ("invalid_json", "bad_utf8")
    problem = world.refused(replaced("distance", data=None, parameters={"binary_data_size": 48}))
    assert (problem["reason"], problem["header"]) == ("invalid_header", HEADER_LENGTH)


def test_a_header_over_json_alone_is_fine(world: World) -> None:
    content, headers = binary_body(tensors())
    assert world.client.post(INFER, content=content, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("size", "reason", "where"),
    [
        (47, "wrong_size", "$.inputs[0]"),
        (49, "wrong_size", "$.inputs[0]"),
        (0, "wrong_size", "$.inputs[0]"),
        (10**6, "wrong_size", "$.inputs[0].parameters.binary_data_size"),
        (2**63 - 1, "wrong_size", "$.inputs[0].parameters.binary_data_size"),
        (2**63, "invalid_value", "$.inputs[0].parameters.binary_data_size"),
        (-1, "invalid_value", "$.inputs[0].parameters.binary_data_size"),
        ("48", "invalid_value", "$.inputs[0].parameters.binary_data_size"),
    ],
)
def test_a_size_that_does_not_fit_is_refused(world: World, size: Any, reason: str, where: str) -> None:
    """A size that takes bytes of the next tensor is one that does not fit its own."""
    inputs = [as_binary(one) for one in tensors() if one["name"] != "tail"]
    heads = [{k: v for k, v in one.items() if k != "bytes"} for one in inputs]
    sizes = [size] + [len(one["bytes"]) for one in inputs[1:]]
    heads = [head | {"parameters": {"binary_data_size": n}} for head, n in zip(heads, sizes, strict=True)]
    text = msgspec.json.encode({"inputs": heads})
    problem = world.refused(text + b"".join(one["bytes"] for one in inputs), headers={HEADER_LENGTH: str(len(text))})
    assert (problem["reason"], problem["where"]) == (reason, where)


@pytest.mark.parametrize(
    ("name", "raw", "datatype", "reason", "where"),
    [
        ("distance", struct.pack("<6d", 1, 2, math.nan, 4, 5, 6), "FP64", "invalid_value", "$.inputs[0][2]"),
        ("distance", struct.pack("<6d", 1, 2, math.inf, 4, 5, 6), "FP64", "invalid_value", "$.inputs[0][2]"),
        ("distance", struct.pack("<6d", 1, 2, 3, -4, 5, 6), "FP64", "invalid_value", "$.inputs[0][3]"),
        ("pressure", struct.pack("<6d", 1, 2, -math.inf, 4, 5, 6), "FP64", "invalid_value", "$.inputs[1][2]"),
        ("pressure", struct.pack("<6q", 1, 2, 3, 4, 5, 2**53 + 1), "INT64", "not_exact", "$.inputs[1][5]"),
        ("pressure", b"\0\1\2\0\0\0", "BOOL", "invalid_value", "$.inputs[1][2]"),
        ("carrier", binary_bytes("BYTES", [b"A"] * 5 + [b"\xff"]), "BYTES", "bad_utf8", "$.inputs[2][5]"),
        ("carrier", binary_bytes("BYTES", ["A"] * 5 + ["A" * 257]), "BYTES", "invalid_value", "$.inputs[2][5]"),
        ("carrier", binary_bytes("BYTES", ["A"] * 5), "BYTES", "wrong_size", "$.inputs[2][5]"),
        ("carrier", binary_bytes("BYTES", ["A"] * 7), "BYTES", "wrong_size", "$.inputs[2]"),
        ("place", struct.pack("<12d", *([1.0] * 11), math.nan), "FP64", "invalid_value", "$.inputs[4][11]"),
        ("place", struct.pack("<12d", *([1.0] * 11), 1e39), "FP64", "invalid_value", "$.inputs[4][5][1]"),
        ("place", struct.pack("<6d", *([1.0] * 6)), "FP64", "wrong_size", "$.inputs[4]"),
    ],
)
def test_bad_elements_say_what_and_where(
    world: World, name: str, raw: bytes, datatype: str, reason: str, where: str
) -> None:
    shape = [6, 2] if name == "place" else [6]
    one = {"name": name, "shape": shape, "datatype": datatype, "bytes": raw}
    content, headers = binary_body([one if t["name"] == name else t for t in tensors()])
    problem = world.refused(content, headers=headers)
    assert (problem["reason"], problem["where"]) == (reason, where)
