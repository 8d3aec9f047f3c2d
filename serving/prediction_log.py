"""Writes what was answered to `P.predictions`, and never makes a request wait for it.

A request hands over rows that it has parsed; encoding and producing happen in the log's own thread. What does not
fit in the bound, and what the broker does not take in time, is dropped and counted: the log is best effort.
"""

import contextlib
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from serving.metrics import Metrics
from serving.prediction_records import Answered, RecordEncoder
from stream_trainer.contract import Contract
from stream_trainer.kafka import librdkafka_options
from stream_trainer.settings import Settings

logger = logging.getLogger(__name__)

_TURN_SECONDS = 0.02


class PredictionSink(Protocol):
    """Where answers are kept."""

    def record(self, answered: Answered) -> None:
        """Take the rows over; returns at once, whatever the state of what is behind."""
        ...


class Producer(Protocol):
    """The part of confluent-kafka's producer that is used."""

    def produce_batch(self, topic: str, messages: list[Any], *, on_delivery: Callable[[Any, Any], None]) -> int:
        """Queue records of `key` and `value`; how many were taken: fewer when the queue is full."""

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
        self._encoder = RecordEncoder(contract)
        self._topic = topic
        self._producer = producer
        self._metrics = metrics
        self._max_rows = max_rows
        self._queue: queue.SimpleQueue[Answered] = queue.SimpleQueue()
        self._waiting = 0
        self._acknowledged = 0
        self._undelivered = 0
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
        self._count()
        if left or not self._queue.empty():
            self._metrics.log_dropped.labels("shutdown").inc(self._waiting)
            logger.warning("%d prediction records were not written before the end", self._waiting)

    def _run(self) -> None:
        # In turns rather than on each arrival: a thread that wakes for every request takes the interpreter from it.
        while not self._stop.wait(_TURN_SECONDS):
            self._write_waiting()
        self._write_waiting()

    def _write_waiting(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._write(self._queue.get_nowait())
        self._serve()

    def _write(self, answered: Answered) -> None:
        rows = len(answered.ids)
        taken = 0
        try:
            for of_rows, some in itertools.groupby(self._encoder.messages(answered), lambda message: message.rows):
                records = [{"key": message.key, "value": message.value} for message in some]
                delivered = partial(self._delivered, of_rows)
                taken += of_rows * self._producer.produce_batch(self._topic, records, on_delivery=delivered)
                self._serve()
        except Exception:
            logger.exception("prediction records could not be written")
            self._drop("failed", rows - taken)
            return
        self._drop("producer_full", rows - taken)

    def _delivered(self, rows: int, error: Any, _: Any) -> None:
        if error is None:
            self._acknowledged += rows
        else:
            self._undelivered += rows

    def _serve(self) -> None:
        """Delivery reports arrive in here; they are counted once for many."""
        self._producer.poll(0)
        self._count()

    def _count(self) -> None:
        sent, self._acknowledged = self._acknowledged, 0
        lost, self._undelivered = self._undelivered, 0
        if sent:
            self._metrics.log_sent.inc(sent)
            self._settle(sent)
        self._drop("delivery", lost)

    def _drop(self, reason: str, rows: int) -> None:
        if not rows:
            return
        self._metrics.log_dropped.labels(reason).inc(rows)
        self._settle(rows)

    def _settle(self, rows: int) -> None:
        with self._lock:
            self._waiting -= rows


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
        "compression.type": "lz4",  # gzip costs twice as much as all the rest of writing a record
        "queue.buffering.max.messages": settings.serving.prediction_queue,
        "queue.buffering.max.kbytes": 64 * 1024,
        "message.timeout.ms": 30_000,
        "statistics.interval.ms": 0,
        "log.connection.close": False,
    }
    producer: Producer = KafkaProducer(options | {"logger": logging.getLogger("serving.librdkafka")})
    return producer
