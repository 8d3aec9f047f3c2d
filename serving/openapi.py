"""The OpenAPI document of a pipeline's service, written from its contract."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from serving.consistency import MAX_STALENESS, MIN_VERSION, ON_CONFLICT
from stream_trainer.contract import (
    FLOAT32_MAX,
    MAX_KEY,
    MAX_TEXT,
    BinaryLabel,
    Categorical,
    ClassLabel,
    Contract,
    Feature,
    Label,
    Numeric,
    Vector,
)
from stream_trainer.pipeline import Pipeline
from stream_trainer.problems import MEDIA_TYPE

Schema = dict[str, Any]


def document(pipeline: Pipeline, max_rows: int) -> Schema:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{pipeline.name} predictions",
            "version": release(),
            "description": "Answers come from the newest version that passed its checks; each names that version.",
        },
        "paths": {
            "/predict": {"post": _predict(pipeline, max_rows)},
            **({} if pipeline.join is None else {"/feedback": {"post": feedback(pipeline, max_rows)}}),
            "/lineage/{version}": {"get": _lineage()},
            "/health/live": {"get": _plain("Whether the process runs", {"200": "It does"})},
            "/health/ready": {"get": _plain("Whether a model serves", {"200": "One does", "503": "None yet"})},
            "/metrics": {"get": _metrics()},
        },
        "components": {
            "schemas": {
                "Instance": instance_schema(pipeline.contract),
                "Answer": answer_schema(pipeline),
                "Lineage": lineage_schema(),
                "Problem": _PROBLEM,
            }
        },
    }


def instance_schema(contract: Contract) -> Schema:
    """The JSON Schema of one row of a request."""
    properties = {feature.name: _feature_schema(feature) for feature in contract.features}
    for segment in contract.extra_segments:
        properties[segment] = _nullable({"type": "string", "maxLength": MAX_TEXT})
    properties[contract.key] = {
        "type": ["string", "integer", "null"],
        "minLength": 1,
        "maxLength": MAX_KEY,
        "description": "the business key; joins a label to this prediction later",
    }
    properties[contract.event_time] = {
        "anyOf": [{"type": "string", "format": "date-time"}, {"type": "number", "minimum": 0}, {"type": "null"}],
        "description": "RFC 3339 with an offset, or seconds since the epoch",
    }
    required = [feature.name for feature in contract.features if not getattr(feature, "optional", False)]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": True}


def answer_schema(pipeline: Pipeline) -> Schema:
    """The JSON Schema of a successful answer."""
    fields = {
        "model_name": {"const": pipeline.name},
        "model_version": {"type": "integer", "minimum": 1},
        "trained_through": _nullable({"type": "string", "format": "date-time"}),
        "staleness_seconds": {"type": "number", "minimum": 0},
    }
    label = pipeline.contract.label
    prediction: Schema = {
        "prediction_id": {"type": "string", "format": "uuid"},
        "output": output_schema(pipeline.contract),
        "prediction": _prediction_schema(label),
    }
    if isinstance(label, BinaryLabel | ClassLabel):
        prediction["probability"] = {"type": "number", "minimum": 0, "maximum": 1, "description": "of the prediction"}
    return _object({**fields, "predictions": {"type": "array", "items": _object(prediction)}})


def _prediction_schema(label: Label) -> Schema:
    match label:
        case BinaryLabel():
            return {"type": "boolean", "description": "whether true is at least as likely as false"}
        case ClassLabel(classes=classes):
            return {"enum": list(classes), "description": "the likeliest class"}
        case _:
            return {"type": "number", "description": "the output"}


def output_schema(contract: Contract) -> Schema:
    """The JSON Schema of one output."""
    match contract.label:
        case BinaryLabel(name=name):
            return {"type": "number", "minimum": 0, "maximum": 1, "description": f"the probability of {name}"}
        case ClassLabel(classes=classes):
            return {
                "type": "array",
                "items": {"type": "number", "minimum": 0, "maximum": 1},
                "minItems": len(classes),
                "maxItems": len(classes),
                "description": f"a probability each, in this order: {', '.join(classes)}",
            }
        case label:
            return {"type": "number", "description": f"the estimate of {label.name}"}


def feedback(pipeline: Pipeline, max_rows: int) -> Schema:
    """The description of `POST /feedback`."""
    contract, join = pipeline.contract, pipeline.join
    assert join is not None  # noqa: S101
    name = contract.key if join.on == "key" else "prediction_id"
    properties: Schema = {
        name: {"type": ["string", "integer"], "minLength": 1, "maxLength": MAX_KEY},
        "label": _label_schema(contract.label),
        "time": {"description": "when it was known: RFC 3339 with an offset, or seconds since the epoch"},
    }
    one = {"type": "object", "properties": properties, "required": [name, "label"]}
    labels = {"type": "array", "items": one, "minItems": 1, "maxItems": max_rows}
    problems = {
        "408": "the body did not arrive in time",
        "413": "the body or the number of labels is too large",
        "415": "the body has a content encoding",
        "422": "the body is not JSON of this form, or names predictions by another kind of key",
        "503": "Kafka did not take all of them: send all again after `Retry-After`, what comes twice counts once",
    }
    taken = _object({"accepted": {"type": "integer", "minimum": 1}})
    return {
        "summary": f"Say what {contract.label.name} turned out to be",
        "operationId": "feedback",
        "requestBody": {"required": True, "content": {"application/json": {"schema": _object({"labels": labels})}}},
        "responses": {
            "202": {"description": "Kafka has them", "content": {"application/json": {"schema": taken}}},
            **{code: _content(MEDIA_TYPE, "Problem") | {"description": text} for code, text in problems.items()},
        },
    }


def _label_schema(label: Label) -> Schema:
    match label:
        case BinaryLabel():
            return {"enum": [True, False, 0, 1]}
        case ClassLabel(classes=classes):
            return {"enum": list(classes)}
        case _:
            return {"type": "number"}


def lineage_schema() -> Schema:
    """The JSON Schema of what `/lineage/{version}` answers."""
    digest: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
    instant: Schema = {"type": "string", "format": "date-time"}
    number: Schema = {"type": "integer", "minimum": 1}
    offset: Schema = {"type": "integer", "minimum": 0}
    span = {"type": "array", "prefixItems": [offset, offset], "items": False, "minItems": 2}
    ranges = _by_partition(span) | {"description": "per topic and partition [first offset, next offset)"}
    rows = _object(dict.fromkeys(("seen", "trained", "rejected", "skipped", "quarantined"), offset))
    loss: Schema = {
        "topic": {"type": "string"},
        "topic_id": {"type": "string"},
        "partition": offset,
        "start": offset,
        "next": _nullable(offset),
        "reason": {"enum": ["retention", "recreated", "vanished"]},
    }
    texts: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
    file = _object({"name": {"type": "string"}, "size": offset, "sha256": digest})
    fields: Schema = {
        "version": number,
        "previous": _nullable(number) | {"description": "the number before it"},
        "parent": _nullable(number) | {"description": "the version whose weights it started from"},
        "parent_sha256": _nullable(digest),
        "manifest_sha256": digest,
        "ranges": ranges,
        "cuts": {"type": "array", "items": ranges, "description": "its micro-batches, in order"},
        "quarantined": {"type": "array", "items": ranges, "description": "those of the cuts that failed a gate"},
        "lost": {"type": "array", "items": _object(loss), "description": "offsets that a person declared lost"},
        "next_offsets": _by_partition(offset) | {"description": "where the next version begins"},
        "topic_ids": texts,
        "rows": rows,
        "total": rows | {"description": "since the first version"},
        "event_time": {"anyOf": [_object({"min": instant, "max": instant}), {"type": "null"}]},
        "trained_through": _nullable(instant),
        "contract": digest,
        "created_at": instant,
        "libraries": texts,
        "seed": {"type": "integer"},
        "history": {"type": "array", "items": file, "description": "files that it was learned from, before the log"},
    }
    return _object(fields) | {"additionalProperties": False}


def _by_partition(value: Schema) -> Schema:
    partitions = {"type": "object", "propertyNames": {"pattern": "^[0-9]+$"}, "additionalProperties": value}
    return {"type": "object", "additionalProperties": partitions}


def _feature_schema(feature: Feature) -> Schema:
    match feature:
        case Numeric(low=low, high=high, optional=optional):
            schema: Schema = {"type": "number", "minimum": low, "maximum": high}
        case Categorical(vocabulary=vocabulary, optional=optional):
            schema = {"type": "string", "maxLength": MAX_TEXT}
            if vocabulary is not None:
                schema["description"] = f"one of {', '.join(vocabulary)}; anything else counts as other"
        case Vector(size=size):
            number = {"type": "number", "minimum": -FLOAT32_MAX, "maximum": FLOAT32_MAX}
            return {"type": "array", "items": number, "minItems": size, "maxItems": size}
    return _nullable(schema) if optional else schema


def _nullable(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


def _object(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _predict(pipeline: Pipeline, max_rows: int) -> Schema:
    instances = {
        "type": "array",
        "items": {"$ref": "#/components/schemas/Instance"},
        "minItems": 1,
        "maxItems": max_rows,
    }
    problems = {
        "400": "a header that states a demand cannot be read; `header` names it",
        "408": "the body took too long",
        "409": "the version demanded does not serve, and `X-On-Conflict: 409` was sent",
        "413": "too many bytes or instances",
        "415": "a content encoding",
        "422": "the body is not JSON of this form; `where` says where",
        "500": "the prediction failed",
        "503": "ask again after `Retry-After`; `reason` says why: no_version, version_not_reached, too_stale, queue_full or "
        "timed_out. Of no_version, `prediction_ids` names what was logged",
    }
    answered = _content("application/json", "Answer") | {"description": "one prediction for each instance, in order"}
    return {
        "summary": f"Predict {pipeline.contract.label.name}",
        "operationId": "predict",
        "parameters": demands(),
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _object({"instances": instances})}},
        },
        "responses": {
            "200": answered,
            **{code: _content(MEDIA_TYPE, "Problem") | {"description": text} for code, text in problems.items()},
        },
    }


def demands() -> list[Schema]:
    """The headers by which a request demands something of the version that answers."""
    headers: dict[str, tuple[Schema, str]] = {
        MIN_VERSION: (
            {"type": "integer", "minimum": 0, "maximum": 10**19 - 1},
            "this version or a later one answers; waited for, up to a bound",
        ),
        MAX_STALENESS: (
            {"type": "string", "pattern": r"^(?=.*[1-9])[0-9]{1,12}(\.[0-9]{1,9})?$"},
            "seconds above 0; a staler answer is refused",
        ),
        ON_CONFLICT: ({"enum": ["409", "503"]}, "the status when the version is not reached in time; 503 by default"),
    }
    return [
        {"name": name, "in": "header", "schema": schema, "description": text}
        for name, (schema, text) in headers.items()
    ]


def _lineage() -> Schema:
    problems = {
        "404": "there is no such version",
        "500": "the version's manifest is damaged",
        "503": "the model store does not answer",
    }
    return {
        "summary": "What a version has learned from",
        "operationId": "lineage",
        "parameters": [
            {"name": "version", "in": "path", "required": True, "schema": {"type": "integer", "minimum": 1}},
        ],
        "responses": {
            "200": _content("application/json", "Lineage") | {"description": "its offsets, parent and circumstances"},
            **{code: _content(MEDIA_TYPE, "Problem") | {"description": text} for code, text in problems.items()},
        },
    }


def _content(media_type: str, schema: str) -> Schema:
    return {"content": {media_type: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}


def _plain(summary: str, answers: dict[str, str]) -> Schema:
    content = {"application/json": {"schema": {"type": "object"}}}
    return {
        "summary": summary,
        "responses": {code: {"description": text, "content": content} for code, text in answers.items()},
    }


def _metrics() -> Schema:
    content = {"text/plain": {"schema": {"type": "string"}}}
    return {"summary": "For Prometheus", "responses": {"200": {"description": "All metrics", "content": content}}}


def release() -> str:
    """The version of this package; 0 where it is not installed."""
    try:
        return version("stream-trainer")
    except PackageNotFoundError:
        return "0"


_PROBLEM: Schema = {
    "type": "object",
    "description": "RFC 9457 problem details",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "reason": {"type": "string", "description": "a stable code"},
        "where": {"type": "string", "description": "a JSON path into the request"},
        "header": {"type": "string", "description": "the header that cannot be read"},
        "model_version": {"type": ["integer", "null"], "description": "the version that serves"},
        "prediction_ids": {"type": "array", "items": {"type": "string", "format": "uuid"}},
    },
    "required": ["type", "title", "status", "detail", "reason"],
}
