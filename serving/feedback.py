"""`POST /feedback`: labels to `P.labels`. A label must not be lost silently: the answer comes after Kafka's word.

A plain ASGI application, as `predict`.
"""

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any, Protocol

import msgspec
from msgspec import Meta
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from serving.body import UNREADABLE, receive_body, unreadable
from serving.delivery import Count, Poller
from serving.metrics import Metrics
from serving.problems import Problem
from stream_trainer.joining.records import label_key, label_struct
from stream_trainer.kafka import librdkafka_options
from stream_trainer.pipeline import Pipeline
from stream_trainer.settings import ServingSettings, Settings

logger = logging.getLogger(__name__)

_MESSAGE_SECONDS = 5.0
_PATIENCE_SECONDS = 8.0
_RETRY_AFTER = "2"
_JSON = (b"content-type", b"application/json")


class LabelSink(Protocol):
    """Where labels go."""

    def send(self, records: list[tuple[bytes, bytes]], done: Callable[[int], None]) -> None:
        """Take records of key and value; `done` is called once, from any thread, with how many were acknowledged."""

    def close(self) -> None:
        """Wait for what was taken, within a bound."""


class Feedback:
    """The route."""

    def __init__(self, pipeline: Pipeline, settings: ServingSettings, labels: LabelSink, metrics: Metrics) -> None:
        assert pipeline.join is not None, "without a join there is no route"  # noqa: S101
        self._on = pipeline.join.on
        self._max_body_bytes = settings.max_body_bytes
        self._max_rows = settings.max_rows
        self._labels = labels
        self._metrics = metrics
        row: Any = label_struct(pipeline.contract, self._on)
        some: Any = Annotated[list[row], Meta(min_length=1)]
        self._decode = msgspec.json.Decoder(msgspec.defstruct("Labels", [("labels", some)])).decode
        self._encode = msgspec.json.Encoder().encode

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        outcome = "failed"
        try:
            rows = self._parse(await self._body(scope, receive))
            await self._deliver(rows)
            content = self._encode({"accepted": len(rows)})
            length = (b"content-length", str(len(content)).encode())
            await send({"type": "http.response.start", "status": HTTPStatus.ACCEPTED, "headers": [_JSON, length]})
            await send({"type": "http.response.body", "body": content})
            self._metrics.labels_taken.inc(len(rows))
            outcome = "accepted"
        except Problem as problem:
            outcome = problem.reason
            await problem.response()(scope, receive, send)
        except ClientDisconnect:
            outcome = "disconnected"
        except Exception:
            logger.exception("feedback failed")
            detail = "the labels could not be taken; the service's log says why"
            await Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", detail).response()(scope, receive, send)
        finally:
            self._metrics.feedback.labels(outcome).inc()

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        headers = dict(scope["headers"])
        if headers.get(b"content-encoding", b"identity") != b"identity":
            close = {"connection": "close"}
            raise Problem(415, "unsupported_encoding", "send the body without a content encoding", headers=close)
        length = headers.get(b"content-length", b"").decode("latin-1")
        return await receive_body(receive, length, self._max_body_bytes)

    def _parse(self, body: bytes) -> list[Any]:
        try:
            decoded: Any = self._decode(body)
            rows: list[Any] = decoded.labels
        except UNREADABLE as error:
            raise unreadable(error, 422) from None
        if len(rows) > self._max_rows:
            detail = f"{len(rows)} labels, at most {self._max_rows} are taken at once"
            raise Problem(413, "too_many_rows", detail, where="$.labels")
        return rows

    async def _deliver(self, rows: list[Any]) -> None:
        loop = asyncio.get_running_loop()
        acknowledged: asyncio.Future[int] = loop.create_future()

        def settle(count: int) -> None:
            if not acknowledged.done():
                acknowledged.set_result(count)

        def done(count: int) -> None:
            loop.call_soon_threadsafe(settle, count)

        records = [(label_key(row, self._on).encode(), self._encode(row)) for row in rows]
        self._labels.send(records, done)
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                count = await acknowledged
        except TimeoutError:
            count = 0
        if count < len(rows):
            detail = f"Kafka acknowledged {count} of {len(rows)} labels: send all of them again, what comes twice counts once"
            headers = {"retry-after": _RETRY_AFTER}
            raise Problem(503, "labels_not_taken", detail, headers=headers, acknowledged=count)


class KafkaLabels:
    """A producer of its own: it waits for all replicas, and gives up after a few seconds."""

    def __init__(self, topic: str, settings: Settings) -> None:
        from confluent_kafka import Producer  # noqa: PLC0415 - tests run without a client

        self._topic = topic
        options: dict[str, Any] = librdkafka_options(settings.kafka) | {
            "partitioner": "murmur2_random",
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 5,
            "message.timeout.ms": int(_MESSAGE_SECONDS * 1000),
            "log.connection.close": False,
            "logger": logging.getLogger("serving.librdkafka"),
        }
        self._producer = Producer(options)
        self._poller = Poller(self._producer.poll, lambda: len(self._producer))

    def send(self, records: list[tuple[bytes, bytes]], done: Callable[[int], None]) -> None:
        """See `LabelSink.send`."""
        count = Count(len(records), done)
        for key, value in records:
            try:
                self._producer.produce(self._topic, value, key=key, on_delivery=count.delivered)
            except Exception as error:  # noqa: BLE001 - a full queue, a client that has failed: not taken
                count.delivered(error, None)
        self._poller.wake()

    def close(self) -> None:
        """See `LabelSink.close`."""
        self._poller.close()
        self._producer.flush(_MESSAGE_SECONDS)
