"""What the demo shows: read from topics and the store, like any outsider would, never from the replayer's memory."""

import contextlib
import statistics
import threading
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, TopicPartition

from stream_trainer import prediction_blocks
from stream_trainer.errors import Corrupt, NoVersion, Retryable
from stream_trainer.kafka import librdkafka_options
from stream_trainer.settings import Settings
from stream_trainer.store import ModelStore, Version, open_store
from stream_trainer.topics import Topics

_RATE_WINDOW = timedelta(seconds=10)
_READ_LATE_MS = 10_000


class _Prediction(msgspec.Struct):
    requested_at: datetime
    model_version: int | None = None
    key: str | None = None


class _Label(msgspec.Struct):
    flight_id: str


class _Alert(msgspec.Struct):
    status: str
    message: str = ""


@dataclass(slots=True)
class Facts:
    """Everything known so far. One writer (`Tail`); readers may look at any time.

    Attributes:
        answered: predictions that a version answered; `early` those asked before there was one.
        labels, examples: what has landed, and what the joiner made of it.
        early_labels: labels whose prediction has not been read, by flight; when each was appended, milliseconds.
        unlabelled: flights that were asked for and have not landed.
        read_until: the newest append time of a label; None once all is read.
        first_served: when each version first answered.
        fresh: seconds from append to that instant, one value a version (middle of its append times).
    """

    answered: int = 0
    early: int = 0
    labels: int = 0
    examples: int = 0
    early_labels: dict[str, int] = field(default_factory=dict)
    unlabelled: set[str] = field(default_factory=set)
    read_until: int | None = 0
    first_served: dict[int, datetime] = field(default_factory=dict)
    fresh: list[float] = field(default_factory=list)
    alerts: dict[str, str] = field(default_factory=dict)
    alerts_seen: set[str] = field(default_factory=set)
    head: Version | None = None
    versions: int = 0
    rates: deque[tuple[datetime, int]] = field(default_factory=deque)

    @property
    def failed(self) -> int:
        """Labelled flights that no prediction was ever logged for; a moment is given to one that is read after its label."""
        if self.read_until is None:
            return len(self.early_labels)
        return sum(at < self.read_until - _READ_LATE_MS for at in self.early_labels.values())

    def add_label(self, flight: str, at: int) -> None:
        """A flight has landed."""
        self.labels += 1
        if self.read_until is not None:
            self.read_until = max(self.read_until, at)
        if flight in self.unlabelled:
            self.unlabelled.discard(flight)
        else:
            self.early_labels[flight] = at

    def add_asked(self, flight: str) -> None:
        """A prediction was logged."""
        if self.early_labels.pop(flight, None) is None:
            self.unlabelled.add(flight)

    @property
    def match_rate(self) -> float | None:
        """The share of the landed flights that were joined; None before one has landed."""
        return self.examples / self.labels if self.labels else None

    @property
    def learned(self) -> int:
        """Examples learned since the first version."""
        return self.head.manifest.total.trained if self.head else 0

    @property
    def rows_per_second(self) -> float:
        """Examples learned a second over the last ten seconds, by the versions' own commit times."""
        if len(self.rates) < 2:
            return 0.0
        (then, before), (now, total) = self.rates[0], self.rates[-1]
        return (total - before) / max((now - then).total_seconds(), 1e-3)

    def freshness(self, share: float) -> float | None:
        """A quantile of event-to-served seconds over the versions."""
        if len(self.fresh) < 2:
            return self.fresh[0] if self.fresh else None
        return statistics.quantiles(self.fresh, n=100, method="inclusive")[round(share * 100) - 1]

    def add_version(self, version: Version) -> None:
        """A version that was committed."""
        self.head = version
        self.versions = version.number
        self.rates.append((version.manifest.created_at, version.manifest.total.trained))
        while len(self.rates) > 2 and self.rates[-1][0] - self.rates[0][0] > _RATE_WINDOW:
            self.rates.popleft()

    def add_served(self, version: Version, at: datetime) -> None:
        """A version that answered for the first time."""
        span = version.manifest.append_time
        if span is not None:
            middle = span.min + (span.max - span.min) / 2
            self.fresh.append(max(0.0, (at - middle).total_seconds()))


class Tail:
    """Follows the topics and the store of one pipeline in a thread of its own."""

    def __init__(self, settings: Settings, pipeline: str) -> None:
        self.facts = Facts()
        self._topics = Topics(pipeline)
        self._store: ModelStore = open_store(settings, pipeline)
        self._options = librdkafka_options(settings.kafka)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="facts", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Read what is there, and end."""
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        consumer = Consumer(
            {
                **self._options,
                "group.id": "stream-trainer-demo-view",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "queued.max.messages.kbytes": 2048,
                "fetch.message.max.bytes": 524288,
            }
        )
        try:
            consumer.assign(self._assignment(consumer))
            while True:
                last_round = self._stop.is_set()
                messages = consumer.consume(5_000, 0.5)
                while messages:
                    for message in messages:
                        self._see(message)
                    messages = consumer.consume(5_000, 0.1) if last_round else []
                self._look_at_store()
                if last_round:
                    self.facts.read_until = None
                    return
        finally:
            consumer.close()

    def _assignment(self, consumer: Consumer) -> list[TopicPartition]:
        wanted = []
        for topic in (self._topics.predictions, self._topics.labels, self._topics.examples, self._topics.alerts):
            partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
            wanted += [TopicPartition(topic, p, OFFSET_BEGINNING) for p in partitions]
        return wanted

    def _see(self, message: Message) -> None:
        value = message.value()
        if message.error() is not None or value is None:
            return
        with contextlib.suppress(ValueError):
            if message.topic() == self._topics.predictions:
                for record in prediction_blocks.records(value):
                    self._see_prediction(msgspec.json.decode(record, type=_Prediction))
            elif message.topic() == self._topics.examples:
                self.facts.examples += 1
            elif message.topic() == self._topics.labels:
                self.facts.add_label(msgspec.json.decode(value, type=_Label).flight_id, message.timestamp()[1])
            else:
                self._see_alert((message.key() or b"").decode(), msgspec.json.decode(value, type=_Alert))

    def _see_prediction(self, prediction: _Prediction) -> None:
        facts, number = self.facts, prediction.model_version
        if prediction.key is not None:
            facts.add_asked(prediction.key)
        if number is None:
            facts.early += 1
            return
        facts.answered += 1
        if number not in facts.first_served:
            facts.first_served[number] = prediction.requested_at
            with contextlib.suppress(NoVersion, Corrupt, Retryable):
                facts.add_served(self._store.read(number), prediction.requested_at)

    def _see_alert(self, key: str, alert: _Alert) -> None:
        if alert.status == "resolved":
            self.facts.alerts.pop(key, None)
        else:
            self.facts.alerts[key] = alert.message
            self.facts.alerts_seen.add(key)

    def _look_at_store(self) -> None:
        with contextlib.suppress(NoVersion, Corrupt, Retryable):
            number = self.facts.versions
            while True:
                self.facts.add_version(self._store.read(number + 1))
                number += 1


def scores(facts: Facts) -> dict[str, Any] | None:
    """The newest version's prequential metrics."""
    return facts.head.manifest.metrics if facts.head else None
