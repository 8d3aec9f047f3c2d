"""The protocol's part of the OpenAPI document, with the tensors of one contract."""

from typing import Any

from serving.oip.fields import Field, Output, inputs, outputs
from serving.oip.request import HEADER_LENGTH
from stream_trainer.pipeline import Pipeline

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_SIZE: Schema = {"type": "integer", "minimum": 0}
_NAMES: Schema = {"type": "array", "items": _TEXT}
_NUMBER = r"^[1-9][0-9]{0,18}$"
_BINARY: Schema = {"application/octet-stream": {"schema": {"description": "the JSON, and the binary data after it"}}}


def extend(document: Schema, pipeline: Pipeline, max_rows: int) -> Schema:
    """The document with the paths and schemas of `/v2` added; the one that is given stays as it is."""
    components = document.get("components", {})
    schemas = components.get("schemas", {}) | _schemas(pipeline, max_rows)
    return {
        **document,
        "paths": document.get("paths", {}) | _paths(),
        "components": {**components, "schemas": schemas},
    }


def _schemas(pipeline: Pipeline, max_rows: int) -> Schema:
    tensors = [_input(field, max_rows) for field in inputs(pipeline.contract)]
    needed = [field.name for field in inputs(pipeline.contract) if field.required]
    asked = {
        "type": "array",
        "items": {"oneOf": tensors},
        "maxItems": len(tensors),
        "allOf": [{"contains": {"properties": {"name": {"const": name}}}} for name in needed],
    }
    wanted = _object({"name": {"enum": [output.name for output in outputs(pipeline.contract)]}})
    wanted["properties"]["parameters"] = _parameters({"binary_data": {"type": ["boolean", "null"]}})
    request = _object({"inputs": asked})
    request["properties"] |= {
        "id": {"type": ["string", "null"]},
        "parameters": _parameters(_WISHES),
        "outputs": {"type": ["array", "null"], "items": wanted},
    }
    answered = {"type": "array", "items": {"oneOf": [_output(o) for o in outputs(pipeline.contract)]}, "minItems": 1}
    response = _object({"model_name": {"const": pipeline.name}, "model_version": _TEXT, "outputs": answered})
    response["properties"] |= {"id": _TEXT, "parameters": {"type": "object", "properties": _TOLD}}
    metadata = _object({"name": {"const": pipeline.name}, "versions": _NAMES, "platform": _TEXT})
    for tensors_of in ("inputs", "outputs"):
        metadata["properties"][tensors_of] = {"type": "array", "items": _METADATA}
        metadata["required"].append(tensors_of)
    return {
        "InferenceRequest": request,
        "InferenceResponse": response,
        "ModelMetadata": metadata,
        "ModelReady": _object({"name": {"const": pipeline.name}, "ready": {"type": "boolean"}}),
        "ServerMetadata": _object({"name": _TEXT, "version": _TEXT, "extensions": _NAMES}),
        "InferenceError": _object({"error": _TEXT}) | {"description": "with the fields of RFC 9457 beside it"},
    }


def _input(field: Field, max_rows: int) -> Schema:
    rows: Schema = {"type": "integer", "minimum": 1, "maximum": max_rows}
    columns: Schema = {"const": field.size}
    shape: Schema = {"type": "array", "prefixItems": [rows, columns], "items": False}
    shape |= {"minItems": 2 if field.kind == "vector" else 1, "maxItems": 2}
    schema = _object({"name": {"const": field.name}, "shape": shape, "datatype": {"enum": sorted(field.datatypes)}})
    schema["properties"] |= {
        "parameters": _parameters({"binary_data_size": {"type": ["integer", "null"], "minimum": 0}}),
        "data": {"type": "array", "description": "row-major, flat or nested; without it binary_data_size is there"},
    }
    return schema


def _output(output: Output) -> Schema:
    shape = {"type": "array", "items": _SIZE, "minItems": len(output.shape(0)), "maxItems": len(output.shape(0))}
    schema = _object({"name": {"const": output.name}, "shape": shape, "datatype": {"const": output.datatype}})
    parameters: Schema = {"binary_data_size": _SIZE}
    parameters |= {name: {"const": value} for name, value in output.parameters.items()}
    element = "string" if output.datatype == "BYTES" else "number"
    data: Schema = {"type": "array", "items": {"type": element}, "description": "row-major, flat"}
    schema["properties"] |= {"parameters": {"type": "object", "properties": parameters}, "data": data}
    return schema


def _paths() -> Schema:
    paths: Schema = {
        "/v2": {"get": _get("Server metadata", _json("ServerMetadata"))},
        "/v2/health/live": {"get": _get("Whether the process runs", _PLAIN)},
        "/v2/health/ready": {"get": _get("Whether a model serves", _PLAIN, unready=True)},
    }
    version: Schema = {"name": "version", "in": "path", "required": True, "schema": _TEXT | {"pattern": _NUMBER}}
    name: Schema = {"name": "name", "in": "path", "required": True, "schema": _TEXT}
    for path, given in (
        ("/v2/models/{name}", [name]),
        ("/v2/models/{name}/versions/{version}", [name, version]),
    ):
        metadata = _get("Model metadata", _json("ModelMetadata"), unknown=True)
        ready = _get("Whether it is ready", _json("ModelReady"), unknown=True, unready=True)
        paths[path] = {"parameters": given, "get": metadata}
        paths[f"{path}/ready"] = {"parameters": given, "get": ready}
        paths[f"{path}/infer"] = {"parameters": given, "post": _infer()}
    return paths


def _get(summary: str, content: Schema, *, unknown: bool = False, unready: bool = False) -> Schema:
    responses = {"200": {"description": "It does"} | content}
    if unknown:
        responses["404"] = {"description": "no such model or version"} | _json("InferenceError")
    if unready:
        responses["503"] = {"description": "nothing has been learned yet"} | content
    return {"summary": summary, "responses": responses}


def _infer() -> Schema:
    problems = {
        "400": "the request cannot be used; `where` says where",
        "404": "no such model or version",
        "408": "the body took too long",
        "409": "the version asked for was not reached in time, and X-On-Conflict is 409",
        "413": "too many bytes or rows",
        "415": "the body has a content encoding",
        "500": "the prediction failed",
        "503": "no version that fits answers now",
    }
    response = _json("InferenceResponse")
    response["content"] |= _BINARY
    request = _json("InferenceRequest")
    request["content"] |= _BINARY
    header: Schema = {"in": "header", "name": HEADER_LENGTH, "schema": _SIZE}
    header["description"] = "bytes of the JSON; needed when binary data follows"
    return {
        "summary": "Inference",
        "parameters": [header, *_HEADERS],
        "requestBody": {"required": True} | request,
        "responses": {
            "200": {"description": "the outputs asked for, a row for each row"} | response,
            **{code: {"description": text} | _json("InferenceError") for code, text in problems.items()},
        },
    }


def _json(schema: str) -> Schema:
    return {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}


def _object(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _parameters(properties: Schema) -> Schema:
    return {"type": ["object", "null"], "properties": properties}


_PLAIN: Schema = {"content": {"application/json": {"schema": {"type": "object"}}}}
_METADATA = _object({"name": _TEXT, "datatype": _TEXT, "shape": {"type": "array", "items": {"type": "integer"}}})
_WISHES: Schema = {
    "binary_data_output": {"type": "boolean", "description": "all outputs as binary data unless they say otherwise"},
    "min_model_version": _SIZE | {"description": "this version or a later one answers"},
    "max_staleness_seconds": {"type": "number", "exclusiveMinimum": 0},
    "on_conflict": {"enum": [409, 503]},
}
_TOLD: Schema = {"staleness_seconds": {"type": "number"}, "trained_through": {"type": "string", "format": "date-time"}}
_HEADERS: list[Schema] = [
    {"in": "header", "name": "X-Min-Model-Version", "schema": _SIZE},
    {"in": "header", "name": "X-Max-Staleness", "schema": {"type": "number", "exclusiveMinimum": 0}},
    {"in": "header", "name": "X-On-Conflict", "schema": {"enum": [409, 503]}},
]
