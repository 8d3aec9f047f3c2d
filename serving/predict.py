"""`POST /predict`: parse, ask for an answer, encode it. The shape of an answer is `docs/serving.md`'s.

A plain ASGI application: what a framework does for each request costs more than the prediction.
"""

import logging
from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus

import msgspec
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from serving.answers import ANY, Answers, Outcome
from serving.body import RowParser, receive_body, refuse_encoded
from serving.clock import Clock
from serving.consistency import MAX_STALENESS, MIN_VERSION, ON_CONFLICT, wish
from serving.counting import Counting
from serving.disconnect import unless_gone
from serving.metrics import Metrics
from serving.problems import Problem
from stream_trainer.contract import BinaryLabel, ClassLabel, Contract
from stream_trainer.pipeline import Pipeline
from stream_trainer.settings import ServingSettings

logger = logging.getLogger(__name__)

_DEMANDS = frozenset(name.lower().encode() for name in (MIN_VERSION, MAX_STALENESS, ON_CONFLICT))
_JSON = (b"content-type", b"application/json")


class Prediction(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One row's answer.

    Attributes:
        output: what the model says: the probability of true, a probability for each class, or a number.
        prediction: what that means: true or false, the likeliest class, or the number.
        probability: of that prediction; absent for a number.
    """

    prediction_id: str
    output: float | list[float]
    prediction: bool | str | float
    probability: float | None = None


class Answer(msgspec.Struct, frozen=True):
    """What `POST /predict` returns."""

    model_name: str
    model_version: int
    trained_through: datetime | None
    staleness_seconds: float
    predictions: list[Prediction]


class Predictor:
    """The route."""

    def __init__(
        self, pipeline: Pipeline, settings: ServingSettings, *, answering: Answers, metrics: Metrics, clock: Clock
    ) -> None:
        self._name = pipeline.name
        self._max_body_bytes = settings.max_body_bytes
        self._answering = answering
        self._clock = clock
        self._metrics = metrics
        self._rows = RowParser(pipeline.contract, settings.max_rows)
        self._predictions = reader(pipeline.contract)
        self._encode = msgspec.json.Encoder().encode

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        try:
            with Counting(self._metrics):
                content = await self._content(scope, receive)
                await send({"type": "http.response.start", "status": 200, "headers": [_JSON, _length(content)]})
                await send({"type": "http.response.body", "body": content})
        except Problem as problem:
            await problem.response()(scope, receive, send)
        except ClientDisconnect:
            return
        except Exception:
            logger.exception("a request failed")
            detail = "the prediction failed; the service's log says why"
            await Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", detail).response()(scope, receive, send)

    async def _content(self, scope: Scope, receive: Receive) -> bytes:
        length, demands = b"", False
        for name, value in scope["headers"]:
            if name == b"content-length":
                length = value
            elif name in _DEMANDS:
                demands = True
            elif name == b"content-encoding":
                refuse_encoded(value.decode("latin-1"))
        body = await receive_body(receive, length.decode("latin-1"), self._max_body_bytes)
        requested_at = self._clock()
        rows = self._rows.parse(body)
        answer = self._answering.answer(rows, requested_at, wish(Headers(scope=scope)) if demands else ANY)
        outcome = await (unless_gone(receive, answer) if demands or self._answering.busy else answer)
        return self._encode(self._answer(outcome))

    def _answer(self, outcome: Outcome) -> Answer:
        served = outcome.served
        return Answer(
            model_name=self._name,
            model_version=served.number,
            trained_through=served.trained_through,
            staleness_seconds=round(outcome.staleness, 6),
            predictions=self._predictions(outcome),
        )


def _length(content: bytes) -> tuple[bytes, bytes]:
    return b"content-length", str(len(content)).encode()


def reader(contract: Contract) -> Callable[[Outcome], list[Prediction]]:
    """How outputs are read: as the contract's label says."""
    match contract.label:
        case BinaryLabel():
            return _binary
        case ClassLabel(classes=classes):
            return lambda outcome: _classes(outcome, tuple(classes))
        case _:
            return lambda outcome: [Prediction(i, y, y) for i, y in zip(outcome.ids, outcome.outputs, strict=True)]


def _binary(outcome: Outcome) -> list[Prediction]:
    pairs = zip(outcome.ids, outcome.outputs, strict=True)
    return [Prediction(i, p, True, p) if p >= 0.5 else Prediction(i, p, False, 1.0 - p) for i, p in pairs]


def _classes(outcome: Outcome, classes: tuple[str, ...]) -> list[Prediction]:
    found = []
    for prediction_id, output in zip(outcome.ids, outcome.outputs, strict=True):
        best = max(output)
        found.append(Prediction(prediction_id, output, classes[output.index(best)], best))
    return found
