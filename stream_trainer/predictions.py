"""Finds one prediction in `P.predictions`: its id holds its time and, as the record's key, its partition.

The scan is bounded: it begins a little before that time and ends a little after it. A row of a large request stands
in a block (`prediction_blocks`), whose key is the request's first id; so all partitions are looked at, first the few
seconds in which nearly every record was written.
"""

import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from kafka.partitioner.default import murmur2

from stream_trainer import prediction_blocks
from stream_trainer.errors import BrokerUnavailable, Corrupt, InputLost, UsageError
from stream_trainer.log_reader import PARTITION_END, consumer_options
from stream_trainer.settings import KafkaSettings

# Clocks of several services differ, and a record may wait in the service's queue before it is produced.
BEFORE = timedelta(minutes=1)
AFTER = timedelta(minutes=15)
_NEAR = (timedelta(seconds=2), timedelta(seconds=10))
MAX_RECORDS = 2_000_000
_AT_ONCE = 10_000


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """A record of `P.predictions` and its place; see `docs/schemas/prediction.json`."""

    prediction_id: str
    requested_at: datetime
    model_version: int | None
    output: Any
    role: str
    features: dict[str, Any]
    segments: dict[str, str | None]
    key: str | None = None
    event_time: datetime | None = None
    topic: str = ""
    partition: int = 0
    offset: int = 0


class _Id(msgspec.Struct, frozen=True):
    prediction_id: str


def time_of(prediction_id: str) -> datetime:
    """The instant in an id.

    Raises:
        UsageError: it is not a UUIDv7.
    """
    try:
        found = uuid.UUID(prediction_id)
    except ValueError:
        found = uuid.UUID(int=0)
    if found.version != 7 or found.variant != uuid.RFC_4122:
        raise UsageError(f"{prediction_id!r} is not a prediction id: those are UUIDv7, as POST /predict returns them")
    return datetime.fromtimestamp((found.int >> 80) / 1000, UTC)


def partition_of(prediction_id: str, partitions: int) -> int:
    """The partition that the producer chose: murmur2 of the key, as Java does."""
    return int(murmur2(prediction_id.encode()) & 0x7FFFFFFF) % partitions


def find(settings: KafkaSettings, topic: str, prediction_id: str) -> Prediction:
    """The record of a prediction.

    Raises:
        UsageError: the id is not one, or there is no such prediction.
        InputLost: retention has deleted what was written at its time.
        Corrupt: the record is not a prediction.
        BrokerUnavailable: the broker does not answer.
    """
    at = time_of(prediction_id)
    wanted = str(uuid.UUID(prediction_id))
    try:
        with closing(Consumer(consumer_options(settings))) as consumer:
            return _Search(consumer, settings, topic, wanted, at).run()
    except KafkaException as error:
        raise BrokerUnavailable(
            f"reading {topic} failed at {settings.bootstrap_servers}: {error.args[0].str()}; is the broker up?"
        ) from error


class _Search:
    def __init__(self, consumer: Consumer, settings: KafkaSettings, topic: str, wanted: str, at: datetime) -> None:
        self._consumer = consumer
        self._settings = settings
        self._topic = topic
        self._wanted = wanted
        self._at = at
        self._scanned = 0

    def run(self) -> Prediction:
        count = self._partitions()
        first = partition_of(self._wanted, count)
        # Partitions may have been added since: then even a record of one row lies in another one than `first`.
        partitions = (first, *(p for p in range(count) if p != first))
        for before, after in (_NEAR, (BEFORE, AFTER)):
            for partition in partitions:
                found = self._in(partition, before, after)
                if found is not None:
                    return found
        for partition in partitions:
            low, high = self._bounds(partition)
            gone = low > 0 and self._offset_at(partition, BEFORE) in (low, None)
            if gone and (low == high or self._expired(partition, low)):
                raise InputLost(
                    f"prediction {self._wanted} of {self._at:%Y-%m-%d %H:%M:%S} UTC is gone: "
                    f"{self._topic}[{partition}] begins at offset {low} now (retention)"
                )
        raise UsageError(
            f"no prediction {self._wanted} in {self._topic}: looked at {self._scanned:,} records around "
            f"{self._at:%Y-%m-%d %H:%M:%S} UTC; it is of another pipeline, or the service could not log it "
            "(its metrics count what was dropped)"
        )

    def _in(self, partition: int, before: timedelta, after: timedelta) -> Prediction | None:
        for message in self._around(partition, before, after):
            for record in self._named(message):
                found = _parsed(message, record)
                if found.role != "challenger":  # a shadow's word stands under the same id, and answered nobody
                    return found
        return None

    def _named(self, message: Message) -> Iterator[bytes]:
        """The record of the wanted id in a message, if it is in it."""
        name, value = self._wanted.encode(), message.value() or b""
        if message.key() == name and not prediction_blocks.is_block(value):
            yield value
        elif prediction_blocks.is_block(value) and name in value:
            try:
                rows = prediction_blocks.records(value)
            except ValueError as error:
                raise Corrupt(f"{_place(message)} is not a block of predictions: {error}") from error
            yield from (row for row in rows if msgspec.json.decode(row, type=_Id).prediction_id == self._wanted)

    def _partitions(self) -> int:
        seconds = self._settings.request_timeout_seconds
        found = self._consumer.list_topics(self._topic, timeout=seconds).topics[self._topic]
        if found.error is not None or not found.partitions:
            raise UsageError(f"there is no topic {self._topic}: nothing was predicted yet, or it was deleted")
        return len(found.partitions)

    def _bounds(self, partition: int) -> tuple[int, int]:
        where = TopicPartition(self._topic, partition)
        found = self._consumer.get_watermark_offsets(where, timeout=self._settings.request_timeout_seconds)
        if found is None:
            raise self._silent(partition)
        return found

    def _offset_at(self, partition: int, before: timedelta) -> int | None:
        """The first record of the time in question, None when all are older."""
        where = TopicPartition(self._topic, partition, int((self._at - before).timestamp() * 1000))
        (found,) = self._consumer.offsets_for_times([where], timeout=self._settings.request_timeout_seconds)
        return found.offset if found.offset >= 0 else None

    def _expired(self, partition: int, low: int) -> bool:
        """Whether the oldest record that is left is younger than the prediction."""
        oldest = next(self._records(partition, low), None)
        return oldest is None or _instant(oldest) > self._at

    def _around(self, partition: int, before: timedelta, after: timedelta) -> Iterator[Message]:
        start = self._offset_at(partition, before)
        if start is None:
            return
        for message in self._records(partition, start):
            self._scanned += 1
            if _instant(message) > self._at + after or self._scanned > MAX_RECORDS:
                return
            yield message

    def _records(self, partition: int, start: int) -> Iterator[Message]:
        self._consumer.assign([TopicPartition(self._topic, partition, start)])
        deadline = time.monotonic() + self._settings.request_timeout_seconds
        while time.monotonic() < deadline:
            first = self._consumer.poll(1.0)
            if first is None:
                continue
            for message in (first, *self._consumer.consume(_AT_ONCE, 0)):
                error = message.error()
                if error is not None and error.code() == PARTITION_END:
                    return
                if error is not None:
                    raise KafkaException(error)
                yield message
            deadline = time.monotonic() + self._settings.request_timeout_seconds
        raise self._silent(partition)

    def _silent(self, partition: int) -> BrokerUnavailable:
        return BrokerUnavailable(
            f"{self._topic}[{partition}] did not answer within {self._settings.request_timeout_seconds:g} s at "
            f"{self._settings.bootstrap_servers}; is the broker up?"
        )


def _instant(message: Message) -> datetime:
    return datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)


def _place(message: Message) -> str:
    return f"{message.topic()}[{message.partition()}]@{message.offset()}"


def _parsed(message: Message, record: bytes) -> Prediction:
    where = {"topic": message.topic() or "", "partition": message.partition() or 0, "offset": message.offset() or 0}
    try:
        found = msgspec.json.decode(record, type=Prediction)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Corrupt(f"{_place(message)} is not a prediction: {error}") from error
    return msgspec.structs.replace(found, **where)
