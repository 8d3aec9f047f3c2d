"""The OpenAPI document describes the routes that are there, and real requests and answers fit its schemas."""

import copy
from typing import Any

import jsonschema
import pytest
from starlette.routing import Route

from serving import openapi
from serving.oip.document import extend
from stream_trainer.contract import Contract
from tests.core.worlds import CLASSES, CONTRACT, NUMBERS
from tests.serving.oip.world import ROWS, World, replaced, tensor, tensors

Schema = dict[str, Any]


def document(world: World) -> Schema:
    return extend(openapi.document(world.pipeline, 6), world.pipeline, 6)


def validator(described: Schema, name: str) -> Any:
    schema = {"$ref": f"#/components/schemas/{name}", "components": described["components"]}
    jsonschema.Draft202012Validator.check_schema(described["components"]["schemas"][name])
    return jsonschema.Draft202012Validator(schema)


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if "$ref" in value else set()
        return own.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


def test_every_route_is_described_and_nothing_else() -> None:
    world = World()
    described = document(world)["paths"]
    routes = {r.path for r in world.app.routes if isinstance(r, Route) and ":path" not in r.path}
    assert {path for path in described if path.startswith("/v2")} == routes
    assert "/predict" in described


def test_the_document_that_is_given_stays_and_all_references_lead_somewhere() -> None:
    world = World()
    before = openapi.document(world.pipeline, 6)
    kept = copy.deepcopy(before)
    described = extend(before, world.pipeline, 6)
    assert before == kept
    schemas = {f"#/components/schemas/{name}" for name in described["components"]["schemas"]}
    assert references(described) <= schemas
    assert kept["components"]["schemas"].items() <= described["components"]["schemas"].items()


@pytest.mark.parametrize("contract", [CONTRACT, CLASSES, NUMBERS])
def test_real_requests_and_answers_fit(contract: Contract) -> None:
    world = World(contract)
    described = document(world)
    inputs = tensors() if contract is CONTRACT else [tensor("x", [1.0, 2.0], "FP64")]
    for body in ({"inputs": inputs}, {"id": "a", "inputs": inputs, "parameters": {"binary_data_output": False}}):
        validator(described, "InferenceRequest").validate(body)
        validator(described, "InferenceResponse").validate(world.infer(body))
    get = world.client.get
    validator(described, "ModelMetadata").validate(get("/v2/models/flights").json())
    validator(described, "ModelReady").validate(get("/v2/models/flights/ready").json())
    validator(described, "ServerMetadata").validate(get("/v2").json())
    validator(described, "InferenceError").validate(get("/v2/models/other").json())


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"inputs": tensors()[1:]},
        {"inputs": tensors([*ROWS, ROWS[0]])},
        replaced("distance", name="x"),
        replaced("distance", datatype="BYTES"),
        replaced("place", shape=[6]),
        replaced("place", shape=[6, 3]),
        {"inputs": tensors(), "outputs": [{"name": "x"}]},
        {"inputs": tensors(), "parameters": {"min_model_version": -1}},
    ],
)
def test_the_schema_refuses_what_the_service_does(body: Schema) -> None:
    world = World(max_rows=6)
    assert not validator(document(world), "InferenceRequest").is_valid(body)
    assert world.client.post("/v2/models/flights/infer", json=body).status_code in (400, 413)
