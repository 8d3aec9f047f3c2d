"""An outcome to the bytes of an inference response, as JSON or with binary data after it."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from starlette.responses import Response

from serving.answers import Outcome
from serving.oip.fields import PREDICTION_ID
from serving.oip.request import HEADER_LENGTH, Asked, Wanted
from serving.oip.tensors import to_binary
from serving.problems import Problem

_encode = msgspec.json.Encoder().encode


class _Tensor(msgspec.Struct, frozen=True):
    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | UnsetType = UNSET
    data: Sequence[Any] | UnsetType = UNSET


class _Answer(msgspec.Struct, frozen=True):
    model_name: str
    model_version: str
    parameters: dict[str, Any]
    outputs: list[_Tensor]
    id: str | UnsetType = UNSET


def answer(name: str, asked: Asked, outcome: Outcome) -> Response:
    """The response: all that was asked for, by one version, with how stale it is."""
    tensors: list[_Tensor] = []
    parts: list[bytes] = []
    for wanted in asked.wanted:
        values = outcome.ids if wanted.output.name == PREDICTION_ID else outcome.outputs
        part = to_binary(wanted.output.datatype, values) if wanted.binary else None
        tensors.append(_tensor(wanted, values, part))
        if part is not None:
            parts.append(part)
    parameters: dict[str, Any] = {"staleness_seconds": round(outcome.staleness, 6)}
    if outcome.served.trained_through is not None:
        parameters["trained_through"] = outcome.served.trained_through
    text = _encode(
        _Answer(
            model_name=name,
            model_version=str(outcome.served.number),
            parameters=parameters,
            outputs=tensors,
            id=UNSET if asked.id is None else asked.id,
        )
    )
    if not parts:
        return Response(text, media_type="application/json")
    headers = {HEADER_LENGTH: str(len(text))}
    return Response(b"".join([text, *parts]), media_type="application/octet-stream", headers=headers)


def refusal(problem: Problem) -> Response:
    """A problem in the protocol's form: `error`, and the fields of RFC 9457 beside it."""
    response = problem.response()
    where = problem.more.get("where")
    error = problem.detail if where is None else f"{problem.detail} - at {where}"
    body = {"error": error, **msgspec.json.decode(response.body)}
    return Response(_encode(body), problem.status, media_type="application/json", headers=problem.headers)


def _tensor(wanted: Wanted, values: Sequence[Any], part: bytes | None) -> _Tensor:
    output = wanted.output
    parameters: dict[str, Any] = dict(output.parameters)
    data: Sequence[Any] | UnsetType = UNSET
    if part is not None:
        parameters["binary_data_size"] = len(part)
    else:
        data = values if output.size is None else list(chain.from_iterable(values))
    return _Tensor(
        name=output.name,
        shape=output.shape(len(values)),
        datatype=output.datatype,
        parameters=parameters or UNSET,
        data=data,
    )
