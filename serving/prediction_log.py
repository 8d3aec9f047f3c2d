"""Writes what was answered to `P.predictions`, and never makes a request wait for it.

A request hands over columns it already has; encoding and producing happen in the log's own thread. What does not
fit in the bound, and what the broker does not take in time, is dropped and counted: the log is best effort.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import msgspec
import pyarrow as pa

from serving.metrics import Metrics
from stream_trainer.contract import Contract
from stream_trainer.kafka import librdkafka_options
from stream_trainer.settings import Settings

logger = logging.getLogger(__name__)

_IDLE_SECONDS = 0.1
_POLL_EVERY = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One request's rows: the columns the model saw and what it said; version and outputs None without a model."""

    ids: Sequence[str]
    requested_at: datetime
    columns: Mapping[str, pa.Array]
    outputs: Sequence[Any] | None
    model_version: int | None


class PredictionSink(Protocol):
    """Where answers are kept."""

    def record(self, answered: Answered) -> None:
        """Take the rows over; returns at once, whatever the state of what is behind."""
        ...


class Producer(Protocol):
    """The part of confluent-kafka's producer that is used."""

    def produce(self, topic: str, value: bytes, key: bytes, *, on_delivery: Callable[[Any, Any], None]) -> None:
        """Queue one record; BufferError when the queue is full."""

    def poll(self, timeout: float) -> int:
        """Serve delivery reports."""

    def flush(self, timeout: float) -> int:
        """Wait for what is queued; how many are left."""


class PredictionLog:
    """A bounded hand-over to one thread that encodes and produces. The bound is in rows."""

    def __init__(
        self,
        contract: Contract,
        topic: str,
        producer: Producer,
        metrics: Metrics,
        *,
        max_rows: int,
    ) -> None:
        self._contract = contract
        self._topic = topic
        self._producer = producer
        self._metrics = metrics
        self._max_rows = max_rows
        self._queue: queue.SimpleQueue[Answered] = queue.SimpleQueue()
        self._waiting = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)

    def start(self) -> None:
        """Begin to write, in a thread of its own."""
        self._thread.start()

    def record(self, answered: Answered) -> None:
        """See `PredictionSink.record`; rows beyond the bound are dropped and counted."""
        rows = len(answered.ids)
        with self._lock:
            fits = self._waiting + rows <= self._max_rows
            if fits:
                self._waiting += rows
        if not fits:
            self._metrics.log_dropped.labels("queue_full").inc(rows)
            return
        self._metrics.log_queued.inc(rows)
        self._queue.put(answered)

    def close(self, seconds: float = 5.0) -> None:
        """Write what is waiting, for at most so long; the rest is dropped and counted."""
        deadline = time.monotonic() + seconds
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(seconds)
        left = self._producer.flush(max(0.1, deadline - time.monotonic()))
        if left or not self._queue.empty():
            self._metrics.log_dropped.labels("shutdown").inc(self._waiting)
            logger.warning("%d prediction records were not written before the end", self._waiting)

    def _run(self) -> None:
        while not (self._stop.is_set() and self._queue.empty()):
            try:
                answered = self._queue.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                self._producer.poll(0)
                continue
            self._write(answered)
            self._producer.poll(0)

    def _write(self, answered: Answered) -> None:
        try:
            encoded = list(records(self._contract, answered))
        except Exception:
            logger.exception("prediction records could not be encoded")
            self._drop("failed", len(answered.ids))
            return
        for i, (key, value) in enumerate(encoded):
            if i % _POLL_EVERY == 0:
                self._producer.poll(0)
            try:
                self._producer.produce(self._topic, value, key, on_delivery=self._delivered)
            except BufferError:
                self._drop("queue_full", 1)
            except Exception:
                logger.exception("a prediction record was not taken")
                self._drop("failed", 1)

    def _delivered(self, error: Any, _: Any) -> None:
        if error is None:
            self._metrics.log_sent.inc()
            self._settle(1)
        else:
            self._drop("delivery", 1)

    def _drop(self, reason: str, rows: int) -> None:
        self._metrics.log_dropped.labels(reason).inc(rows)
        self._settle(rows)

    def _settle(self, rows: int) -> None:
        with self._lock:
            self._waiting -= rows


def records(contract: Contract, answered: Answered) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of each row's record; see `docs/schemas/prediction.json`."""
    values = {name: column.to_pylist() for name, column in answered.columns.items()}
    names = [f.name for f in contract.features]
    keys, times = values[contract.key], values[contract.event_time]
    for i, prediction_id in enumerate(answered.ids):
        record = {
            "prediction_id": prediction_id,
            "requested_at": answered.requested_at,
            "segments": {name: values[name][i] for name in contract.segments},
            "features": {name: values[name][i] for name in names},
            "output": None if answered.outputs is None else answered.outputs[i],
            "model_version": answered.model_version,
            "role": "champion",
        }
        if keys[i] is not None:
            record["key"] = keys[i]
        if times[i] is not None:
            record["event_time"] = times[i]
        yield prediction_id.encode(), msgspec.json.encode(record)


def kafka_producer(settings: Settings) -> Producer:
    """A librdkafka producer whose queue and patience are bounded.

    Raises:
        BrokerUnavailable: no bootstrap servers are known.
    """
    from confluent_kafka import Producer as KafkaProducer  # noqa: PLC0415 - tests run without a client

    options: dict[str, Any] = librdkafka_options(settings.kafka) | {
        "partitioner": "murmur2_random",
        "acks": "all",
        "linger.ms": 20,
        "compression.type": "gzip",  # the one codec that every client can read without a library of its own
        "compression.level": 1,
        "queue.buffering.max.messages": settings.serving.prediction_queue,
        "queue.buffering.max.kbytes": 64 * 1024,
        "message.timeout.ms": 30_000,
        "statistics.interval.ms": 0,
        "log.connection.close": False,
    }
    producer: Producer = KafkaProducer(options | {"logger": logging.getLogger("serving.librdkafka")})
    return producer
