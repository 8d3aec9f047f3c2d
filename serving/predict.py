"""`POST /predict`: parse, predict with the model that serves now, log, answer.

Small requests run on the event loop, because a thread hop costs more than they do; larger ones run in a thread so
that others are answered meanwhile. The size of the body decides, since it is known before anything is parsed.
"""

import asyncio
import logging
import time
from datetime import datetime
from typing import Any

import msgspec
import torch
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from serving.body import RowParser, read_body
from serving.clock import Clock
from serving.follower import Follower
from serving.metrics import Metrics
from serving.model import Served
from serving.prediction_ids import PredictionIds
from serving.prediction_log import Answered, PredictionSink
from serving.problems import Problem
from stream_trainer.features import encode
from stream_trainer.pipeline import Pipeline
from stream_trainer.schema import to_columns
from stream_trainer.settings import ServingSettings

logger = logging.getLogger(__name__)

INLINE_BYTES = 32 * 1024


class Prediction(msgspec.Struct, frozen=True, gc=False):
    """One row's answer: a probability, a probability for each class, or a number."""

    prediction_id: str
    output: float | list[float]


class Answer(msgspec.Struct, frozen=True):
    """What `POST /predict` returns."""

    model_name: str
    model_version: int
    trained_through: datetime | None
    staleness_seconds: float
    predictions: list[Prediction]


class Predictor:
    """Answers requests; holds no state but its dependencies."""

    def __init__(
        self,
        pipeline: Pipeline,
        settings: ServingSettings,
        *,
        log: PredictionSink,
        follower: Follower,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._pipeline = pipeline
        self._max_body_bytes = settings.max_body_bytes
        self._log = log
        self._follower = follower
        self._metrics = metrics
        self._clock = clock
        self._ids = PredictionIds(clock)
        self._rows = RowParser(pipeline.contract, settings.max_rows)
        self._encode = msgspec.json.Encoder().encode

    async def endpoint(self, request: Request) -> Response:
        """The route."""
        started = time.perf_counter()
        outcome = "failed"
        try:
            body = await read_body(request, self._max_body_bytes)
            inline = len(body) <= INLINE_BYTES
            content = self.answer(body) if inline else await asyncio.to_thread(self.answer, body)
            outcome = "answered"
            return Response(content, media_type="application/json")
        except Problem as problem:
            outcome = problem.reason
            return problem.response()
        except ClientDisconnect:
            outcome = "disconnected"
            return Response(status_code=400)
        except Exception:
            logger.exception("a request failed")
            return Problem(500, "internal_error", "the prediction failed; the service's log says why").response()
        finally:
            self._metrics.requests.labels(outcome).inc()
            self._metrics.request_seconds.observe(time.perf_counter() - started)

    def answer(self, body: bytes) -> bytes:
        """The JSON answer to a request's body.

        Raises:
            Problem: the body is not usable, or there is no version yet.
        """
        served = self._follower.served  # once: a swap that happens meanwhile does not concern this request
        now = self._clock()
        rows = self._rows.parse(body)
        columns = to_columns(self._pipeline.contract, "request", rows)
        ids = self._ids.take(len(rows))
        if served is None:
            self._log.record(Answered(ids=ids, requested_at=now, columns=columns, outputs=None, model_version=None))
            raise Problem(
                503,
                "no_version",
                "nothing has been learned yet; the request was logged, ask again soon",
                headers={"retry-after": "1"},
                prediction_ids=ids,
            )
        outputs = self._outputs(served, columns)
        self._log.record(
            Answered(ids=ids, requested_at=now, columns=columns, outputs=outputs, model_version=served.number)
        )
        self._metrics.rows.inc(len(rows))
        return self._encode(
            Answer(
                model_name=self._pipeline.name,
                model_version=served.number,
                trained_through=served.trained_through,
                staleness_seconds=round(served.staleness(now), 6),
                predictions=[Prediction(i, output) for i, output in zip(ids, outputs, strict=True)],
            )
        )

    def _outputs(self, served: Served, columns: dict[str, Any]) -> list[Any]:
        outputs = self._pipeline.learner.predict(served.state, encode(self._pipeline.contract, columns))
        if not bool(torch.isfinite(outputs).all()):
            raise ValueError(f"version {served.number} gave an output that is not finite")
        found: list[Any] = outputs.tolist()
        return found
