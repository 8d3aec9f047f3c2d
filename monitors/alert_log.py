"""`P.alerts` through kafka-python, read-committed, in no group: how far it was read is the reader's business."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from kafka import KafkaConsumer, TopicPartition

from monitors.forwarding import Record
from stream_trainer.kafka import Admin, committed_reader, reached
from stream_trainer.settings import KafkaSettings


class KafkaAlerts:
    """See `forwarding.AlertLog`."""

    def __init__(
        self, settings: KafkaSettings, consumer: KafkaConsumer, topic: str, topic_id: str, partitions: list[int]
    ) -> None:
        self.topic_id = topic_id
        self._settings = settings
        self._topic = topic
        self._consumer = consumer
        self._partitions = [TopicPartition(topic, partition) for partition in partitions]
        consumer.assign(self._partitions)

    def ends(self) -> dict[int, int]:
        """See `AlertLog.ends`."""
        with reached(f"reading {self._topic}", self._settings):
            return {tp.partition: offset for tp, offset in self._consumer.end_offsets(self._partitions).items()}

    def seek(self, offsets: Mapping[int, int]) -> None:
        """See `AlertLog.seek`."""
        with reached(f"reading {self._topic}", self._settings):
            for tp in self._partitions:
                if tp.partition in offsets:
                    self._consumer.seek(tp, offsets[tp.partition])
                else:
                    self._consumer.seek_to_beginning(tp)

    def position(self) -> dict[int, int]:
        """See `AlertLog.position`."""
        with reached(f"reading {self._topic}", self._settings):
            return {tp.partition: self._consumer.position(tp) for tp in self._partitions}

    def poll(self, seconds: float) -> list[Record]:
        """See `AlertLog.poll`."""
        with reached(f"reading {self._topic}", self._settings):
            batches = self._consumer.poll(timeout_ms=int(seconds * 1000))
        return [Record(r.partition, r.offset, r.key or b"", r.value) for batch in batches.values() for r in batch]


@contextmanager
def open_alerts(settings: KafkaSettings, topic: str) -> Iterator[KafkaAlerts]:
    """The topic as it is now.

    Raises:
        BrokerUnavailable: Kafka cannot be reached.
        InputLost: there is no such topic.
    """
    with Admin(settings) as admin:
        topic_id, partitions = admin.topic(topic)
    with reached(f"reading {topic}", settings):
        consumer = committed_reader(settings, auto_offset_reset="earliest")
    try:
        yield KafkaAlerts(settings, consumer, topic, topic_id, partitions)
    finally:
        consumer.close()
