"""The append times of a topic's records, by reading it again."""

import time
from collections.abc import Mapping

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from numpy.typing import NDArray

from stream_trainer.kafka import librdkafka_options
from stream_trainer.settings import KafkaSettings

Floats = NDArray[np.float64]
_SECONDS = 120.0


def append_times(settings: KafkaSettings, topic: str) -> dict[int, Floats]:
    """Per partition, epoch seconds by offset, up to the present end; NaN where an offset holds no record.

    Raises:
        TimeoutError: the end was not reached.
    """
    options = {"group.id": "bench", "enable.auto.commit": False, "isolation.level": "read_committed"}
    consumer = Consumer({**librdkafka_options(settings), **options})
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        ends = {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1] for p in partitions}
        found = {p: np.full(end, np.nan) for p, end in ends.items()}
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in partitions])
        _fill(consumer, found, sum(ends.values()))
        return found
    finally:
        consumer.close()


def _fill(consumer: Consumer, found: Mapping[int, Floats], wanted: int) -> None:
    deadline, seen = time.monotonic() + _SECONDS, 0
    while seen < wanted:
        if time.monotonic() > deadline:
            raise TimeoutError(f"read {seen} of {wanted} records again")
        for message in consumer.consume(10_000, 0.5):
            partition, offset = message.partition(), message.offset()
            if partition is None or offset is None or offset >= len(found[partition]):
                continue
            found[partition][offset] = message.timestamp()[1] / 1000
            seen += 1
