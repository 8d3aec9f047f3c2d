"""The Open Inference Protocol's answers as JSON Schemas: the oracle that every answer of ours is held against.

Written for these tests from the published text (open-inference-protocol, REST, V2) and from the binary tensor data
extension. Where the published OpenAPI document and the text differ, or the document is loose, a comment says what is
taken. Members the protocol does not name are allowed, as the document allows them.
"""

import re
from typing import Any

import httpx
import jsonschema
import msgspec

from serving.oip.request import HEADER_LENGTH
from tests.serving.oip import published

Schema = dict[str, Any]

DATATYPES = ["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"]
DATATYPES += ["FP16", "FP32", "FP64", "BYTES"]
_TEXT: Schema = {"type": "string"}


def _object(required: Schema, optional: Schema | None = None) -> Schema:
    return {"type": "object", "properties": required | (optional or {}), "required": list(required)}


# The document says only "object"; the text says that a value is a string, a number or a boolean.
PARAMETERS: Schema = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}

TENSOR: Schema = _object(
    {
        "name": _TEXT,
        # The document has `integer`; the text has what an unsigned 64-bit integer holds.
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 2**64 - 1}},
        "datatype": {"enum": DATATYPES},
    },
    {
        "parameters": PARAMETERS,
        "data": {"type": "array", "items": {"type": ["number", "string", "boolean"]}},  # flat is one of the two forms
    },
)
# The document requires `data`; with the binary extension an output has `binary_data_size` in its place, never both.
TENSOR["oneOf"] = [
    {"required": ["data"], "properties": {"parameters": {"not": {"required": ["binary_data_size"]}}}},
    {
        "required": ["parameters"],
        "not": {"required": ["data"]},
        "properties": {"parameters": _object({"binary_data_size": {"type": "integer", "minimum": 0}})},
    },
]
METADATA_TENSOR = _object(
    {
        "name": _TEXT,
        "datatype": {"enum": DATATYPES},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": -1}},
    }
)
SERVER = _object({"name": _TEXT, "version": _TEXT, "extensions": {"type": "array", "items": _TEXT}})
# The document does not require `inputs` and `outputs`; the text marks only `versions` as optional.
MODEL = _object(
    {
        "name": _TEXT,
        "platform": {"type": "string", "pattern": "^[^_]+_.+$"},
        "inputs": {"type": "array", "items": METADATA_TENSOR},
        "outputs": {"type": "array", "items": METADATA_TENSOR},
    },
    {
        "versions": {"type": "array", "items": _TEXT, "uniqueItems": True},
        "properties": {"type": "object", "additionalProperties": _TEXT},
    },
)
INFERENCE = _object(
    {"model_name": _TEXT, "outputs": {"type": "array", "items": TENSOR, "minItems": 1}},
    {"model_version": _TEXT, "id": _TEXT, "parameters": PARAMETERS},
)
# The document gives the health answers no body. The text does, and names the field of "server ready" `live`.
LIVE = _object({"live": {"const": True}})
READY = _object({"live": {"type": "boolean"}, "ready": {"type": "boolean"}})
MODEL_READY = _object({"name": _TEXT, "ready": {"type": "boolean"}})
# The document does not require `error` of an inference's error; the text does.
ERROR = _object({"error": {"type": "string", "minLength": 1}})

_MODEL_PATH = r"/v2/models/[^/]+(/versions/[^/]+)?"
ANSWERS: dict[str, Schema] = {
    "/v2": SERVER,
    "/v2/health/live": LIVE,
    "/v2/health/ready": READY,
    _MODEL_PATH: MODEL,
    f"{_MODEL_PATH}/ready": MODEL_READY,
    f"{_MODEL_PATH}/infer": INFERENCE,
}


def check(response: httpx.Response) -> None:
    """Hold one answer against the protocol: its status, its headers, its JSON and the sizes of its binary data."""
    response.read()
    body, binary = split(response)
    published.check(response.request.url.path, response.request.method, response.status_code, body)
    if response.status_code == 200 or "error" not in body:
        assert response.status_code in (200, 503)
        path = response.request.url.path
        schemas = [schema for pattern, schema in ANSWERS.items() if re.fullmatch(pattern, path)]
        assert len(schemas) == 1, path
        jsonschema.Draft202012Validator(schemas[0]).validate(body)
    else:
        assert 400 <= response.status_code < 600
        jsonschema.Draft202012Validator(ERROR).validate(body)
    sizes = [
        o.get("parameters", {}).get("binary_data_size", 0) for o in body.get("outputs", []) if "model_name" in body
    ]
    assert sum(sizes) == len(binary)


def split(response: httpx.Response) -> tuple[dict[str, Any], bytes]:
    """The JSON of an answer and the binary data after it."""
    assert int(response.headers["content-length"]) == len(response.content)
    length = response.headers.get(HEADER_LENGTH)
    assert response.headers["content-type"] == ("application/json" if length is None else "application/octet-stream")
    at = len(response.content) if length is None else int(length)
    body: dict[str, Any] = msgspec.json.decode(response.content[:at])
    return body, response.content[at:]
