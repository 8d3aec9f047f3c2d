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
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from stream_trainer.errors import BrokerUnavailable
from stream_trainer.log_reader import PARTITION_END, consumer_options
from stream_trainer.settings import KafkaSettings

logger = logging.getLogger(__name__)

CHAMPION = b"champion"
_SLICE_SECONDS = 0.2
_OPEN_SECONDS = 2.0
_CATCH_UP_SECONDS = 10.0
_AT_ONCE = 1_000
_NO_GROUP = KafkaError.GROUP_AUTHORIZATION_FAILED  # librdkafka asks for one that nothing here needs
# News are rare and wake the fetch that waits for them: to ask again after 20 ms, as who reads ranges does, is for nothing.
_OPTIONS: dict[str, Any] = {"auto.offset.reset": "earliest", "fetch.wait.max.ms": 500}


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
    """`P.models` through librdkafka, read-committed: it fetches without the interpreter, which requests need.

    Args:
        settings: how to reach Kafka.
        topic: the pipeline's models topic.
        prepare: called before the topic is read, such as to create it; raises when the broker does not answer.
    """

    def __init__(self, settings: KafkaSettings, topic: str, prepare: Callable[[], None]) -> None:
        self._settings = settings
        self._topic = topic
        self._prepare = prepare
        self._consumer: Consumer | None = None
        self._unread: set[int] = set()
        self._closed = threading.Event()
        self._asked = threading.Event()

    def poll(self, seconds: float) -> list[Announcement]:
        """See `AnnouncementSource.poll`; the first call reads up to the topic's present end."""
        deadline = time.monotonic() + seconds
        try:
            if self._consumer is None:
                self._consumer = self._open()
                return self._catch_up(self._consumer)
            while not self._closed.is_set():
                left = deadline - time.monotonic()
                found = self._read(self._consumer, min(_SLICE_SECONDS, max(left, 0.0)))
                if found or left <= 0 or self._asked.is_set():
                    self._asked.clear()
                    return found
        except KafkaException as error:
            self._release()  # the next call begins anew: what it reads again is known already
            raise BrokerUnavailable(
                f"reading {self._topic} failed at {self._settings.bootstrap_servers}: {error.args[0].str()}; "
                "is the broker up?"
            ) from error
        self._release()
        return []

    def close(self) -> None:
        """See `AnnouncementSource.close`."""
        self._closed.set()

    def hurry(self) -> None:
        """Ends a waiting `poll` soon, this once, with what there is: whoever follows then looks at the store."""
        self._asked.set()

    def _open(self) -> Consumer:
        options = consumer_options(self._settings) | _OPTIONS
        self._prepare()
        consumer = Consumer(options)
        try:
            found = consumer.list_topics(self._topic, timeout=_OPEN_SECONDS).topics[self._topic]
            if found.error is not None or not found.partitions:
                raise BrokerUnavailable(f"topic {self._topic} is not there yet")
            self._unread = set(found.partitions)
            consumer.assign([TopicPartition(self._topic, p, OFFSET_BEGINNING) for p in sorted(found.partitions)])
        except BaseException:
            consumer.close()
            raise
        return consumer

    def _catch_up(self, consumer: Consumer) -> list[Announcement]:
        deadline = time.monotonic() + _CATCH_UP_SECONDS
        found: list[Announcement] = []
        while self._unread and not self._closed.is_set() and time.monotonic() < deadline:
            found += self._read(consumer, _SLICE_SECONDS)
        return found

    def _read(self, consumer: Consumer, seconds: float) -> list[Announcement]:
        """What has come, if only that a partition ends here: that is no announcement."""
        first = consumer.poll(seconds)
        if first is None:
            return []
        found = []
        for message in (first, *consumer.consume(_AT_ONCE, 0)):
            error = message.error()
            if error is None and message.key() == CHAMPION:
                found.append(_decode(message))
            elif error is not None and error.code() == PARTITION_END:
                self._unread.discard(message.partition() or 0)
            elif error is not None and error.code() != _NO_GROUP:
                raise KafkaException(error)
        return [announcement for announcement in found if announcement is not None]

    def _release(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()


def _decode(message: Message) -> Announcement | None:
    value = message.value()
    if value is None:
        return None
    try:
        return msgspec.json.decode(value, type=Announcement)
    except (msgspec.MsgspecError, ValueError) as error:
        where = f"{message.topic()}[{message.partition()}]@{message.offset()}"
        logger.warning("%s is not an announcement: %s", where, error)
        return None
