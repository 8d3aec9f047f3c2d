"""JSON tensors: what is taken, what is refused and where, and what a request may demand."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from serving.answers import Wish
from serving.oip import routes
from serving.oip.tensors import FIXED
from tests.core.worlds import CLASSES
from tests.serving.fixtures import serving
from tests.serving.oip.world import INFER, ROWS, World, replaced, tensor, tensors


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def column(world: World, i: int) -> list[Any]:
    return [row[i] for row in world.answers.rows]


def test_flat_and_nested_data_are_the_same(world: World) -> None:
    world.infer({"inputs": tensors()})
    expected = world.answers.rows
    flat = [value for row in ROWS for value in row["place"]]
    column_of_one = [[row["distance"]] for row in ROWS]
    for body in (
        replaced("place", data=flat),
        replaced("distance", shape=[6, 1]),
        replaced("distance", shape=[6, 1], data=column_of_one),
        replaced("carrier", shape=[6, 1], data=[[row["carrier"]] for row in ROWS]),
    ):
        world.answers.rows = []
        world.infer(body)
        assert world.answers.rows == expected


def test_the_order_of_inputs_does_not_matter(world: World) -> None:
    world.infer({"inputs": tensors()})
    expected = world.answers.rows
    world.infer({"inputs": tensors()[::-1]})
    assert world.answers.rows == expected


def test_a_body_that_is_parsed_in_a_thread_is_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = world.infer({"inputs": tensors()})
    monkeypatch.setattr(routes, "INLINE_BYTES", 1)
    assert world.infer({"inputs": tensors()}) == answer


def test_a_vector_that_no_float32_holds_is_refused_where_it_stands(world: World) -> None:
    answer = world.refused(replaced("place", data=[0.0, 1.0, 2.0, 1e39, *[0.0] * 8]))
    assert answer["where"].endswith(".data[1][1]")


def test_what_is_optional_may_be_left_out_or_null(world: World) -> None:
    needed = [t for t in tensors() if t["name"] in ("distance", "carrier", "place")]
    world.infer({"inputs": needed})
    assert [column(world, i) for i in (1, 3, 5, 6, 7)] == [[None] * 6] * 5
    for name in ("pressure", "tail", "origin", "flight_id", "scheduled_at"):
        world.infer(replaced(name, data=[None] * 6))


@pytest.mark.parametrize(
    ("datatype", "data"),
    [(d, [1, 0, 127]) for d in sorted(FIXED) if d.startswith(("INT", "UINT"))]
    + [("BOOL", [True, False, True]), ("FP32", [0.5, 0, 1e4]), ("FP64", [0.1, 0, 1])],
)
def test_every_datatype_is_a_number(world: World, datatype: str, data: list[Any]) -> None:
    rows = ROWS[:3]
    inputs = [tensor("distance", data, datatype) if t["name"] == "distance" else t for t in tensors(rows)]
    world.infer({"inputs": inputs})
    assert column(world, 0) == [float(v) for v in data]
    assert {type(v) for v in column(world, 0)} == {float}


def test_fp32_is_what_single_precision_holds(world: World) -> None:
    world.infer(replaced("distance", datatype="FP32", data=[0.1] * 6))
    assert column(world, 0) == [0.10000000149011612] * 6
    world.infer(replaced("pressure", datatype="FP32", data=[0.1, None, 1, 2, 3, 4]))
    assert column(world, 1) == [0.10000000149011612, None, 1.0, 2.0, 3.0, 4.0]


def test_missing_numbers_may_be_of_every_json_datatype(world: World) -> None:
    for datatype in ("INT8", "UINT64", "INT64", "FP64"):
        world.infer(replaced("pressure", datatype=datatype, data=[1, None, 3, 4, 5, 6]))
        assert column(world, 1)[:3] == [1.0, None, 3.0]
    world.infer(replaced("pressure", datatype="BOOL", data=[True, None, False, None, None, None]))
    assert column(world, 1)[:3] == [1.0, None, 0.0]


def test_keys_and_times_may_be_numbers(world: World) -> None:
    world.infer(replaced("flight_id", datatype="UINT64", data=[0, 1, 2, 3, 4, 2**64 - 1]))
    assert column(world, 6)[-1] == 2**64 - 1
    for datatype, second in (("FP64", 0.5), ("INT64", 253_402_300_799), ("UINT32", 7)):
        world.infer(replaced("scheduled_at", datatype=datatype, data=[second] * 6))
        assert column(world, 7) == [second] * 6


ELEMENT = [
    (replaced("distance", data=[1, 2, 3, -1, 5, 6]), "invalid_value", "$.inputs[0].data[3]"),
    (replaced("distance", data=[1, 2, 3, 10_001, 5, 6]), "invalid_value", "$.inputs[0].data[3]"),
    (replaced("distance", data=[1, 2, None, 4, 5, 6]), "invalid_value", "$.inputs[0].data[2]"),
    (replaced("distance", data=[1, "2", 3, 4, 5, 6]), "invalid_value", "$.inputs[0].data[1]"),
    (replaced("distance", data=[True] * 6), "invalid_value", "$.inputs[0].data[0]"),
    (replaced("distance", datatype="INT8", data=[1, 2, 3, 4, 5, 128]), "invalid_value", "$.inputs[0].data[5]"),
    (replaced("distance", datatype="UINT8", data=[1, 2, 3, 4, 5, -1]), "invalid_value", "$.inputs[0].data[5]"),
    (replaced("distance", datatype="INT32", data=[1, 2, 3, 4.5, 5, 6]), "invalid_value", "$.inputs[0].data[3]"),
    (replaced("distance", datatype="BOOL", data=[0, 1, 0, 1, 0, 1]), "invalid_value", "$.inputs[0].data[0]"),
    (replaced("distance", datatype="FP32", data=[1, 2, 3, 4, 5, 1e39]), "invalid_value", "$.inputs[0].data[5]"),
    (replaced("flight_id", datatype="UINT64", data=[0, 2**64, 2, 3, 4, 5]), "invalid_value", "$.inputs[6].data[1]"),
    (replaced("pressure", datatype="INT64", data=[0, 2**53 + 1, 2, 3, 4, 5]), "not_exact", "$.inputs[1].data[1]"),
    (replaced("place", data=[[1, 2]] * 5 + [[1, 1e39]]), "invalid_value", "$.inputs[4].data[5][1]"),
    (replaced("place", data=[[1, 2]] * 5 + [[1]]), "invalid_value", "$.inputs[4].data[5]"),
    (replaced("place", data=[1.0] * 11 + [1e39]), "invalid_value", "$.inputs[4].data[5][1]"),
    (replaced("carrier", data=["AA"] * 5 + ["A" * 257]), "invalid_value", "$.inputs[2].data[5]"),
    (replaced("carrier", data=["AA"] * 5 + [7]), "invalid_value", "$.inputs[2].data[5]"),
    (replaced("carrier", data=["AA"] * 5 + [None]), "invalid_value", "$.inputs[2].data[5]"),
    (replaced("flight_id", data=["a"] * 5 + [""]), "invalid_value", "$.inputs[6].data[5]"),
    (replaced("scheduled_at", data=["2026-01-01T10:00:00"] * 6), "invalid_value", "$.inputs[7].data[0]"),
    (replaced("scheduled_at", datatype="FP64", data=[-1] * 6), "invalid_value", "$.inputs[7].data[0]"),
]
FORM = [
    (replaced("distance", name="x"), "unknown_input", "$.inputs[0].name"),
    (replaced("pressure", name="distance"), "duplicate_input", "$.inputs[1].name"),
    ({"inputs": tensors()[1:]}, "missing_input", "$.inputs"),
    ({"inputs": []}, "invalid_value", "$.inputs"),
    ({}, "invalid_value", "$"),
    ({"inputs": tensors(), "id": 7}, "invalid_value", "$.id"),
    (replaced("distance", datatype="BYTES"), "wrong_datatype", "$.inputs[0].datatype"),
    (replaced("distance", datatype="fp64"), "wrong_datatype", "$.inputs[0].datatype"),
    (replaced("carrier", datatype="FP64"), "wrong_datatype", "$.inputs[2].datatype"),
    (replaced("scheduled_at", datatype="FP32"), "wrong_datatype", "$.inputs[7].datatype"),
    (replaced("distance", datatype="FP16"), "json_datatype", "$.inputs[0].data"),
    (replaced("distance", datatype="BF16"), "json_datatype", "$.inputs[0].data"),
    (replaced("distance", shape=[]), "wrong_shape", "$.inputs[0].shape"),
    (replaced("distance", shape=[5]), "wrong_shape", "$.inputs[1].shape"),
    (replaced("distance", shape=[6, 2]), "wrong_shape", "$.inputs[0].shape"),
    (replaced("distance", shape=[6, 1, 1]), "wrong_shape", "$.inputs[0].shape"),
    (replaced("distance", shape=[-1]), "invalid_value", "$.inputs[0].shape[0]"),
    (replaced("distance", shape=[6.0]), "invalid_value", "$.inputs[0].shape[0]"),
    (replaced("distance", shape=[2**64]), "invalid_value", "$.inputs[0].shape[0]"),
    (replaced("place", shape=[6]), "wrong_shape", "$.inputs[4].shape"),
    (replaced("place", shape=[12]), "wrong_shape", "$.inputs[4].shape"),
    (replaced("place", shape=[6, 3]), "wrong_shape", "$.inputs[4].shape"),
    (replaced("place", shape=[3, 4]), "wrong_shape", "$.inputs[4].shape"),
    (replaced("distance", data=[1] * 5), "wrong_count", "$.inputs[0].data"),
    (replaced("distance", data=[1] * 7), "wrong_count", "$.inputs[0].data"),
    (replaced("distance", data=[[1]] * 6), "invalid_value", "$.inputs[0].data[0]"),
    (replaced("place", data=[[1, 2]] * 7), "wrong_count", "$.inputs[4].data"),
    (replaced("place", data=[[[1, 2], [3]]] * 6), "invalid_value", "$.inputs[4].data[0][0]"),
    (replaced("distance", data="1"), "invalid_value", "$.inputs[0].data"),
    (replaced("distance", data=None), "missing_data", "$.inputs[0]"),
    (replaced("distance", parameters={"binary_data_size": 48}), "two_data", "$.inputs[0]"),
    (replaced("distance", parameters=7), "invalid_value", "$.inputs[0].parameters"),
    ({"inputs": tensors(), "outputs": [{"name": "x"}]}, "unknown_output", "$.outputs[0].name"),
    ({"inputs": tensors(), "outputs": [{"name": "output"}] * 2}, "duplicate_output", "$.outputs[1].name"),
    ({"inputs": tensors(), "outputs": ["output"]}, "invalid_value", "$.outputs[0]"),
    (
        {"inputs": tensors(), "outputs": [{"name": "output", "parameters": {"classification": 2}}]},
        "unsupported",
        "$.outputs[0].parameters",
    ),
    (
        {"inputs": tensors(), "outputs": [{"name": "output", "parameters": {"binary_data": 1}}]},
        "invalid_value",
        "$.outputs[0].parameters.binary_data",
    ),
]


@pytest.mark.parametrize(("body", "reason", "where"), ELEMENT + FORM)
def test_bad_input_says_what_and_where(world: World, body: dict[str, Any], reason: str, where: str) -> None:
    problem = world.refused(body)
    assert (problem["reason"], problem["where"]) == (reason, where)
    assert problem["error"] == f"{problem['detail']} - at {where}"


@pytest.mark.parametrize(
    ("body", "reason", "where"),
    [
        (b"", "invalid_json", "$"),
        (b"[]", "invalid_value", "$"),
        (b'{"inputs": [NaN]}', "invalid_json", "$"),
        (b'{"inputs": "' + b"\xff" + b'"}', "invalid_value", "$.inputs"),
        (b'{"id": "' + b"\xff" + b'"}', "bad_utf8", "$"),
        (b'{"x": ' + b"[" * 100_000, "too_deep", "$"),
        (b'{"inputs": [{"name": "distance", "data": ' + b"[" * 100_000, "too_deep", "$"),
        (b"\x1f\x8b\x08", "invalid_json", "$"),
    ],
)
def test_what_is_no_request_is_refused(world: World, body: bytes, reason: str, where: str) -> None:
    problem = world.refused(body)
    assert (problem["reason"], problem["where"]) == (reason, where)


@pytest.mark.parametrize(
    "data", [b"[NaN]", b"[Infinity]", b"[1e999]", b"[1" + b"0" * 400 + b"]", b"[1,]", b"[1", b"[[[1]]]"]
)
def test_json_has_no_number_that_is_not_finite(data: bytes) -> None:
    body = b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": ' + data + b"}]}"
    assert World(CLASSES).refused(body)["reason"] in ("invalid_json", "invalid_value")


def test_a_text_that_is_not_utf8_is_refused(world: World) -> None:
    body = b'{"inputs": [{"name": "carrier", "shape": [1], "datatype": "BYTES", "data": ["\xff"]}, '
    for name in ("distance", "place"):
        shape = b"[1, 2]" if name == "place" else b"[1]"
        numbers = b"[1, 2]" if name == "place" else b"[1]"
        body += b'{"name": "%s", "shape": %s, "datatype": "FP64", "data": %s}, ' % (name.encode(), shape, numbers)
    problem = world.refused(body[:-2] + b"]}")
    assert (problem["reason"], problem["where"]) == ("bad_utf8", "$.inputs[0].data")


def test_no_rows_and_too_many_are_refused() -> None:
    world = World(CLASSES, max_rows=3)
    assert world.refused({"inputs": [tensor("x", [], "FP64")]})["reason"] == "wrong_shape"
    assert world.refused({"inputs": [tensor("x", [1.0] * 4, "FP64")]}, 413)["reason"] == "too_many_rows"
    assert world.refused({"inputs": [tensor("x", [1.0], "FP64", [2**62])]}, 413)["reason"] == "too_many_rows"
    world.infer({"inputs": [tensor("x", [1.0] * 3, "FP64")]})


def test_a_body_beyond_the_limit_is_refused_while_it_is_read() -> None:
    world = World(CLASSES, max_body_bytes=1024)

    def long() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1024

    with serving(world.app) as client:
        for content in (long(), b" " * 4096):
            answer = client.post(INFER, content=content)
            assert (answer.status_code, answer.headers["connection"]) == (413, "close")
            assert answer.json()["error"]
        assert isinstance(client, httpx.Client)


def test_an_encoded_body_is_refused(world: World) -> None:
    assert world.refused(b"x", 415, headers={"content-encoding": "gzip"})["reason"] == "unsupported_encoding"


def test_headers_and_parameters_are_the_same_wish(world: World) -> None:
    headers = {"X-Min-Model-Version": "7", "X-Max-Staleness": "2.5", "X-On-Conflict": "409"}
    parameters = {"min_model_version": 7, "max_staleness_seconds": 2.5, "on_conflict": 409}
    world.infer({"inputs": tensors()}, headers=headers)
    assert world.answers.wish == Wish(min_version=7, max_staleness=2.5, conflict=True)
    world.infer({"inputs": tensors(), "parameters": parameters})
    assert world.answers.wish == Wish(min_version=7, max_staleness=2.5, conflict=True)


def test_of_a_header_and_a_parameter_the_stricter_counts(world: World) -> None:
    parameters = {"min_model_version": 9, "max_staleness_seconds": 5}
    headers = {"X-Min-Model-Version": "7", "X-Max-Staleness": "2.5"}
    world.infer({"inputs": tensors(), "parameters": parameters}, "/v2/models/flights/versions/3/infer", headers=headers)
    assert world.answers.wish == Wish(version=3, min_version=9, max_staleness=2.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("min_model_version", v) for v in (-1, "7", 1.5, True, None, 2**63)),
        *(("max_staleness_seconds", v) for v in (0, -1, "2", None)),
        *(("on_conflict", v) for v in (400, "409", None)),
        ("binary_data_output", 1),
    ],
)
def test_bad_parameters_are_refused(world: World, name: str, value: Any) -> None:
    problem = world.refused({"inputs": tensors(), "parameters": {name: value}})
    assert problem["where"] == f"$.parameters.{name}"


def test_bad_headers_are_refused_by_name(world: World) -> None:
    problem = world.refused({"inputs": tensors()}, headers={"X-Max-Staleness": "soon"})
    assert (problem["reason"], problem["header"]) == ("invalid_header", "X-Max-Staleness")


def test_parameters_that_mean_nothing_here_are_ignored(world: World) -> None:
    inputs = [t | {"parameters": {"content_type": "np"}} for t in tensors()]
    world.infer({"inputs": inputs, "parameters": {"priority": 1, "headers": {"a": "b"}}, "model_name": "x"})
