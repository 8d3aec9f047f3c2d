"""Reading a control topic whole, or one record of any topic: small, committed, in no group."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from kafka import KafkaConsumer, TopicPartition

from stream_trainer.errors import BrokerUnavailable
from stream_trainer.kafka import committed_reader, reached
from stream_trainer.settings import KafkaSettings

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Message:
    """One record of a control topic."""

    key: str
    value: Any
    offset: int
    timestamp: float


def read_all(settings: KafkaSettings, topic: str, *, seconds: float = 30.0) -> list[Message]:
    """Every record of a topic up to its present end, in partition and offset order; values parsed from JSON.

    What cannot be read is nobody's word: it is left out, with a warning.
    """
    with reached(f"reading {topic}", settings):
        consumer = committed_reader(settings)
        try:
            partitions = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic) or ())]
            return list(_read(consumer, partitions, time.monotonic() + seconds))
        finally:
            consumer.close()


def read_one(settings: KafkaSettings, topic: str, partition: int, offset: int) -> bytes | None:
    """The value of one record, None when it is gone."""
    with reached(f"reading {topic}[{partition}]@{offset}", settings):
        consumer = committed_reader(settings, auto_offset_reset="earliest")
        try:
            where = TopicPartition(topic, partition)
            consumer.assign([where])
            consumer.seek(where, offset)
            for records in consumer.poll(timeout_ms=int(settings.request_timeout_seconds * 1000)).values():
                if records and records[0].offset == offset:
                    value: bytes | None = records[0].value
                    return value
        finally:
            consumer.close()
    return None


def _read(consumer: KafkaConsumer, partitions: list[TopicPartition], deadline: float) -> Iterator[Message]:
    ends: dict[TopicPartition, int] = consumer.end_offsets(partitions)
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    while any(consumer.position(tp) < ends[tp] for tp in partitions):
        if time.monotonic() > deadline:
            raise BrokerUnavailable(f"reading {partitions[0].topic} did not reach its end in time: is the broker slow?")
        for tp, records in consumer.poll(timeout_ms=200).items():
            for record in records:
                if record.offset >= ends[tp]:
                    continue
                try:
                    key, value = (record.key or b"").decode(), msgspec.json.decode(record.value or b"null")
                except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
                    _log.warning("%s[%d]@%d is left out: %s", tp.topic, tp.partition, record.offset, error)
                    continue
                yield Message(key, value, record.offset, record.timestamp / 1000)
