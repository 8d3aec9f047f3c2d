"""`P.actions` through kafka-python, read-committed, in no group: how far it was read stands in intents and manifests."""

import time

from kafka import KafkaConsumer, TopicPartition

from stream_trainer.acting import Asked, parse
from stream_trainer.acts import Read
from stream_trainer.errors import BrokerUnavailable, UsageError
from stream_trainer.kafka import Admin, committed_reader, reached
from stream_trainer.outside import Page, Request
from stream_trainer.settings import KafkaSettings

_POLL_MS = 200
_PAGE = 500


class KafkaRequests:
    """See `outside.Requests`.

    Raises:
        InputLost: there is no such topic.
        UsageError: it has more than one partition: then one number is no place in it.
    """

    def __init__(self, settings: KafkaSettings, topic: str, admin: Admin) -> None:
        self._settings = settings
        self._topic = topic
        self._topic_id, partitions = admin.topic(topic)
        if partitions != [0]:
            raise UsageError(f"{topic} has {len(partitions)} partitions: make it anew with one")
        self._partition = TopicPartition(topic, 0)
        with reached(f"reading {topic}", settings):
            self._consumer: KafkaConsumer = committed_reader(settings, auto_offset_reset="earliest")
            self._consumer.assign([self._partition])
        self._at: int | None = None

    def after(self, read: Read | None, most: int) -> Page:
        """See `outside.Requests.after`."""
        start = read.next if read is not None and read.topic_id == self._topic_id else 0
        with reached(f"reading {self._topic}", self._settings):
            end = int(self._consumer.end_offsets([self._partition])[self._partition])
            found = self._until(start, end, most) if start < end else []
        following = found[-1].offset + 1 if len(found) == most else max(start, end)
        return Page(topic_id=self._topic_id, records=tuple(found), next=following)

    def close(self) -> None:
        """Release the connection."""
        self._consumer.close()

    def _until(self, start: int, end: int, most: int) -> list[Request]:
        self._consumer.seek(self._partition, start)
        deadline = time.monotonic() + self._settings.request_timeout_seconds
        found: list[Request] = []
        while len(found) < most and self._consumer.position(self._partition) < end:
            if time.monotonic() > deadline:
                raise BrokerUnavailable(f"reading {self._topic} did not reach its end in time: is the broker slow?")
            for records in self._consumer.poll(timeout_ms=_POLL_MS, max_records=most).values():
                found += [Request(record.offset, record.key, record.value) for record in records if record.offset < end]
        return found[:most]


def all_requests(settings: KafkaSettings, topic: str) -> list[Asked]:
    """Everything that is asked in the topic as it is now, each once; records that are no requests are left out.

    Raises:
        InputLost, UsageError, BrokerUnavailable: see `KafkaRequests`.
    """
    found: dict[str, Asked] = {}
    with Admin(settings) as admin:
        log = KafkaRequests(settings, topic, admin)
        try:
            read: Read | None = None
            while (page := log.after(read, _PAGE)).records:
                for record in page.records:
                    if (asked := parse(record.key, record.value)) is not None:
                        found.setdefault(asked.action_id, asked)
                read = Read(topic_id=page.topic_id, next=page.next)
        finally:
            log.close()
    return list(found.values())
