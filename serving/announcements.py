"""The trainer's announcements on `P.models`: pushed news of versions, read from the beginning, in no group.

Reading only; what they mean for serving is the follower's business.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

import msgspec
from kafka import KafkaConsumer, TopicPartition

from stream_trainer.errors import BrokerUnavailable
from stream_trainer.kafka import client_options, reached
from stream_trainer.settings import KafkaSettings

logger = logging.getLogger(__name__)

CHAMPION = b"champion"
_SLICE_SECONDS = 0.2
_BOOTSTRAP_MS = 2_000
_CATCH_UP_SECONDS = 10.0


class Announcement(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a record of `P.models`; see `docs/schemas/announcement.json`."""

    version: int
    manifest_sha256: str
    at: datetime
    trained_through: datetime | None = None
    covered_at: datetime | None = None
    alias: int = 0


class AnnouncementSource(Protocol):
    """Where champion announcements come from."""

    def poll(self, seconds: float) -> list[Announcement]:
        """New ones in log order, waiting at most so long for the first; empty when there is none.

        Raises:
            BrokerUnavailable: the source cannot be reached; the next call tries again.
        """
        ...

    def close(self) -> None:
        """Ends a waiting `poll` soon; called from another thread, and the last call."""
        ...


class KafkaAnnouncements:
    """`P.models` through kafka-python, read-committed.

    Args:
        settings: how to reach Kafka.
        topic: the pipeline's models topic.
        prepare: called once the broker answers and before the topic is read, such as to create it.
    """

    def __init__(self, settings: KafkaSettings, topic: str, prepare: Callable[[], None]) -> None:
        self._settings = settings
        self._topic = topic
        self._prepare = prepare
        self._consumer: KafkaConsumer | None = None
        self._closed = threading.Event()
        self._asked = threading.Event()

    def poll(self, seconds: float) -> list[Announcement]:
        """See `AnnouncementSource.poll`; the first call reads up to the topic's present end."""
        deadline = time.monotonic() + seconds
        with reached(f"reading {self._topic}", self._settings):
            if self._consumer is None:
                self._consumer = self._open()
                return self._catch_up(self._consumer)
            while not self._closed.is_set():
                left = deadline - time.monotonic()
                found = self._read(self._consumer, min(_SLICE_SECONDS, max(left, 0.0)))
                if found or left <= 0 or self._asked.is_set():
                    self._asked.clear()
                    return found
        self._release()
        return []

    def close(self) -> None:
        """See `AnnouncementSource.close`."""
        self._closed.set()

    def hurry(self) -> None:
        """Ends a waiting `poll` soon, this once, with what there is: whoever follows then looks at the store."""
        self._asked.set()

    def _open(self) -> KafkaConsumer:
        options = client_options(self._settings) | {"bootstrap_timeout_ms": _BOOTSTRAP_MS}
        consumer = KafkaConsumer(
            **options,
            isolation_level="read_committed",
            enable_auto_commit=False,
            group_id=None,
            auto_offset_reset="earliest",
            reconnect_backoff_max_ms=2_000,
        )
        try:
            self._prepare()
            partitions = sorted(consumer.partitions_for_topic(self._topic) or ())
            if not partitions:
                raise BrokerUnavailable(f"topic {self._topic} is not there yet")
            consumer.assign([TopicPartition(self._topic, p) for p in partitions])
            consumer.seek_to_beginning()
        except BaseException:
            consumer.close()
            raise
        return consumer

    def _catch_up(self, consumer: KafkaConsumer) -> list[Announcement]:
        ends = consumer.end_offsets(list(consumer.assignment()))
        deadline = time.monotonic() + _CATCH_UP_SECONDS
        found: list[Announcement] = []
        while any(consumer.position(tp) < end for tp, end in ends.items()):
            found += self._read(consumer, _SLICE_SECONDS)
            if self._closed.is_set() or time.monotonic() > deadline:
                break
        return found

    def _read(self, consumer: KafkaConsumer, seconds: float) -> list[Announcement]:
        batches = consumer.poll(timeout_ms=int(seconds * 1000))
        records = [record for batch in batches.values() for record in batch if record.key == CHAMPION]
        return [a for record in records if (a := _decode(record)) is not None]

    def _release(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None


def _decode(record: Any) -> Announcement | None:
    if record.value is None:
        return None
    try:
        return msgspec.json.decode(record.value, type=Announcement)
    except (msgspec.MsgspecError, ValueError) as error:
        logger.warning("%s[%d]@%d is not an announcement: %s", record.topic, record.partition, record.offset, error)
        return None
