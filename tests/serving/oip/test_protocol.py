"""Names, versions, health and metadata, and the form of every refusal."""

from typing import Any

import jsonschema
import msgspec
import pytest

from stream_trainer.contract import Contract
from tests.core.worlds import CLASSES, CONTRACT, NUMBERS
from tests.serving.fixtures import serving
from tests.serving.oip import protocol, published
from tests.serving.oip.world import INFER, TRAINED, World, tensors


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def test_the_server_tells_its_extensions(world: World) -> None:
    answer = world.client.get("/v2").json()
    assert answer["name"] == "stream-trainer"
    assert answer["extensions"] == ["binary_tensor_data"]


def test_it_is_ready_with_the_first_version() -> None:
    empty = World(versions=())
    for path in ("/v2/health/ready", "/v2/models/flights/ready"):
        assert empty.client.get(path).status_code == 503
        assert empty.client.get(path).json()["ready"] is False
    assert empty.client.get("/v2/health/live").status_code == 200
    assert empty.client.get("/v2/models/flights").json()["versions"] == []
    empty.answers.present = World().answers.present
    for path in ("/v2/health/ready", "/v2/models/flights/ready", "/v2/models/flights/versions/3/ready"):
        assert empty.client.get(path).json()["ready"] is True


@pytest.mark.parametrize("contract", [CONTRACT, CLASSES, NUMBERS])
def test_metadata_names_every_tensor_of_the_contract(contract: Contract) -> None:
    world = World(contract)
    answer = world.client.get("/v2/models/flights").json()
    assert answer == world.client.get("/v2/models/flights/versions/3").json()
    assert (answer["name"], answer["versions"]) == ("flights", ["4", "3"])
    names = [f.name for f in contract.features] + [*contract.extra_segments, contract.key, contract.event_time]
    assert [t["name"] for t in answer["inputs"]] == names
    assert [t["name"] for t in answer["outputs"]] == ["output", "prediction_id"]


def test_metadata_holds_datatypes_shapes_and_what_may_be_left_out(world: World) -> None:
    found = {t["name"]: t for t in world.client.get("/v2/models/flights").json()["inputs"]}
    assert {n: (t["datatype"], t["shape"], t["parameters"]["optional"]) for n, t in found.items()} == {
        "distance": ("FP64", [-1], False),
        "pressure": ("FP64", [-1], True),
        "carrier": ("BYTES", [-1], False),
        "tail": ("BYTES", [-1], True),
        "place": ("FP64", [-1, 2], False),
        "origin": ("BYTES", [-1], True),
        "flight_id": ("BYTES", [-1], True),
        "scheduled_at": ("BYTES", [-1], True),
    }
    classes = World(CLASSES).client.get("/v2/models/flights").json()["outputs"][0]
    assert (classes["shape"], msgspec.json.decode(classes["parameters"]["classes"])) == ([-1, 3], ["a", "b", "c"])


@pytest.mark.parametrize("name", ["other", "Flights", "flights%20", "%2e%2e", "flights%00", "a" * 300, "\u017flights"])
@pytest.mark.parametrize("rest", ["", "/ready", "/versions/3", "/versions/3/ready"])
def test_another_name_is_not_found(world: World, name: str, rest: str) -> None:
    assert world.client.get(f"/v2/models/{name}{rest}").status_code == 404
    assert world.client.post(f"/v2/models/{name}{rest}/infer").status_code == 404


@pytest.mark.parametrize(
    "version",
    ["1", "5", "0", "03", "3.0", "+3", "-3", "3%20", "%203", "3%0a", "v3", "٣", "3e0", "4" * 20, "9" * 19, "%2e%2e"],
)
def test_another_version_is_not_found(world: World, version: str) -> None:
    path = f"/v2/models/flights/versions/{version}"
    for answer in (world.client.get(path), world.client.get(f"{path}/ready"), world.client.post(f"{path}/infer")):
        assert answer.status_code == 404


@pytest.mark.parametrize(
    "path", ["/v2/", "/v2/models", "/v2/models/flights/", "/v2/models/flights/versions/3/x", "/v2/%2e"]
)
def test_other_paths_are_refused_in_the_protocols_form(world: World, path: str) -> None:
    answer = world.client.get(path)
    assert (answer.status_code, answer.json()["reason"]) == (404, "not_found")


def test_other_methods_are_refused_in_the_protocols_form(world: World) -> None:
    answers = [world.client.get(INFER), world.client.request("DELETE", "/v2"), world.client.post("/v2/health/live")]
    assert [a.status_code for a in answers] == [405] * 3
    assert [a.headers["allow"] for a in answers] == ["POST", "GET, HEAD", "GET, HEAD"]
    with serving(world.app) as client:
        head = client.head("/v2/health/live")
    assert (head.status_code, head.content) == (200, b"")


def test_an_answer_tells_its_version_and_what_it_knows(world: World) -> None:
    answer = world.infer({"id": "42", "inputs": tensors()})
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("flights", "4", "42")
    assert answer["parameters"] == {"staleness_seconds": 0.8, "trained_through": "2013-02-01T10:00:00Z"}
    assert [o["name"] for o in answer["outputs"]] == ["output", "prediction_id"]
    assert answer["outputs"][0] == {
        "name": "output",
        "shape": [6],
        "datatype": "FP64",
        "data": world.answers.outputs(6),
    }
    assert len(set(answer["outputs"][1]["data"])) == 6
    assert world.answers.requested_at == world.clock()
    assert TRAINED.year == 2013


def test_a_version_in_the_path_is_the_one_that_is_asked(world: World) -> None:
    answer = world.infer({"inputs": tensors()}, "/v2/models/flights/versions/3/infer")
    assert (answer["model_version"], world.answers.wish.version) == ("3", 3)
    assert "id" not in answer
    world.infer({"inputs": tensors()})
    assert world.answers.wish.version is None


def test_classes_come_with_their_names_in_row_major_order() -> None:
    world = World(CLASSES)
    body = {"inputs": [{"name": "x", "shape": [2], "datatype": "FP64", "data": [1.0, 2.0]}]}
    found = world.infer(body)["outputs"][0]
    assert (found["shape"], found["data"]) == ([2, 3], [0.0, 0.001, 0.002, 0.001, 0.002, 0.003])
    assert msgspec.json.decode(found["parameters"]["classes"]) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (["output"], ["output"]),
        (["prediction_id", "output"], ["prediction_id", "output"]),
        ([], ["output", "prediction_id"]),
    ],
)
def test_the_outputs_asked_for_come_in_that_order(world: World, asked: list[str], names: list[str]) -> None:
    answer = world.infer({"inputs": tensors(), "outputs": [{"name": name} for name in asked]})
    assert [o["name"] for o in answer["outputs"]] == names


def test_nulls_stand_for_what_is_left_out(world: World) -> None:
    """Clients that write every member of their classes send null for those that are not set."""
    inputs = [t | {"parameters": None} for t in tensors()]
    answer = world.infer({"id": None, "parameters": None, "inputs": inputs, "outputs": None})
    assert "id" not in answer


def test_what_whoever_answers_refuses_keeps_its_status_and_headers() -> None:
    world = World(versions=())
    response = world.client.post(INFER, json={"inputs": tensors()})
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    body = response.json()
    assert (body["error"], body["reason"], body["status"]) == ("nothing yet", "no_version", 503)
    assert body["prediction_ids"] == ["a"]
    assert world.outcomes("no_version") == 1


def test_a_failure_is_told_without_its_text(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.answers.problem = RuntimeError("secret path")
    try:
        answer = world.refused({"inputs": tensors()}, 500)
    finally:
        world.answers.problem = None
    assert answer["reason"] == "internal_error"
    assert "secret" not in str(answer)
    assert "secret path" in caplog.text
    assert world.outcomes("failed") == 1


def test_requests_are_counted_by_outcome() -> None:
    world = World()
    world.infer({"inputs": tensors()})
    world.refused({"inputs": []})
    assert (world.outcomes("answered"), world.outcomes("invalid_value")) == (1, 1)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (protocol.ERROR, {}),
        (protocol.INFERENCE, {"model_name": "m", "outputs": [{"name": "o", "shape": [1], "datatype": "FP64"}]}),
        (protocol.TENSOR, {"name": "o", "shape": [1], "datatype": "FP64", "data": [None]}),
        (protocol.TENSOR, {"name": "o", "shape": [1], "datatype": "FLOAT", "data": [1]}),
        (
            protocol.TENSOR,
            {"name": "o", "shape": [1], "datatype": "FP64", "data": [1], "parameters": {"binary_data_size": 8}},
        ),
        (protocol.MODEL, {"name": "m", "platform": "p_f", "inputs": []}),
    ],
)
def test_the_oracle_refuses_what_the_protocol_does(schema: dict[str, Any], value: Any) -> None:
    assert not jsonschema.Draft202012Validator(schema).is_valid(value)


def test_a_published_document_of_the_protocol_is_one_of_the_oracles() -> None:
    document = published.document()
    if document is None:
        pytest.skip("the package that holds the document cannot be had from here")
    schemas = document["components"]["schemas"]
    assert {"InferenceResponse", "MetadataModelResponse", "InferenceErrorResponse"} <= schemas.keys()
    with pytest.raises(jsonschema.ValidationError):
        published.check(INFER, "POST", 200, {"model_name": "flights", "id": 1, "outputs": []})
    with pytest.raises(jsonschema.ValidationError):
        published.check("/v2/models/flights", "GET", 200, {"name": "flights", "inputs": []})
