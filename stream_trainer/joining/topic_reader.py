"""What stands in the joiner's topics: ends, append times, the newest marker, the ids that were written. Writes nothing.

One consumer for its life, instead of a connection a micro-batch.
"""

from collections.abc import Callable, Iterable, Iterator

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from stream_trainer.errors import BrokerUnavailable, InputLost
from stream_trainer.joining.commits import told
from stream_trainer.joining.known import Known
from stream_trainer.joining.recovery import Marker
from stream_trainer.log_reader import consumer_options
from stream_trainer.offsets import Offsets
from stream_trainer.settings import KafkaSettings
from stream_trainer.topics import Topics

_END = KafkaError._PARTITION_EOF  # noqa: SLF001 - confluent-kafka's name
_TAIL = 1_000
_AT_ONCE = 10_000


class _Id(msgspec.Struct):
    name: str | None = msgspec.field(name="_example_id", default=None)


class _Unmatched(msgspec.Struct):
    topic: str
    partition: int
    offset: int


class TopicReader:
    """Committed records only. Not safe to be shared by threads.

    Raises:
        BrokerUnavailable, KafkaException: Kafka does not answer.
        InputLost: a topic is gone.
    """

    def __init__(self, topics: Topics, settings: KafkaSettings) -> None:
        self._topics = topics
        self._seconds = settings.request_timeout_seconds
        self._consumer = Consumer(consumer_options(settings))

    def close(self) -> None:
        """Release the connection."""
        self._consumer.close()

    def markers(self) -> list[Marker]:
        """Those at the end of `P.join_commits`, oldest first; all of it is read when none is there."""
        topic = self._topics.join_commits
        low, end = self._bounds(topic, 0)
        found: list[Marker] = []
        for start in dict.fromkeys((max(low, end - _TAIL), low)):
            values = [m.value() for m in self._records({topic: {0: start}})]
            found = [msgspec.json.decode(value, type=Marker) for value in values if value]
            if found:
                break
        return found

    def known(self, since: Offsets) -> Known:
        """What the ids from given offsets on rule out; a partition that is not named is read from its start."""
        places = {topic: dict.fromkeys(ends, 0) | since.get(topic, {}) for topic, ends in self.ends(since).items()}
        return Known.of(name for message in self._records(places) for name in self._told(message))

    def ends(self, topics: Iterable[str]) -> Offsets:
        """Where topics end."""
        found: Offsets = {}
        for topic in topics:
            answered = self._consumer.list_topics(topic, timeout=self._seconds).topics[topic]
            if answered.error is not None:
                raise InputLost(f"topic {topic} is gone: {answered.error}")
            found[topic] = {p: self._bounds(topic, p)[1] for p in sorted(answered.partitions)}
        return found

    def offsets_at(self, topics: Iterable[str], milliseconds: int) -> Offsets:
        """The first offset of each partition that was appended then or later."""
        found: Offsets = {}
        for topic, ends in self.ends(topics).items():
            asked = [TopicPartition(topic, p, max(0, milliseconds)) for p in ends]
            answered = self._consumer.offsets_for_times(asked, timeout=self._seconds)
            found[topic] = {tp.partition: tp.offset if tp.offset >= 0 else ends[tp.partition] for tp in answered}
        return found

    def times(self, places: Offsets) -> dict[tuple[str, int], int]:
        """When the first record from given offsets on was appended, of each partition that has one; milliseconds."""
        found: dict[tuple[str, int], int] = {}
        for message in self._records(places, enough=lambda _: True):
            found.setdefault((str(message.topic()), int(message.partition() or 0)), message.timestamp()[1])
        return found

    def _told(self, message: Message) -> Iterable[str]:
        value = message.value() or b""
        if message.topic() == self._topics.examples:
            name = msgspec.json.decode(value, type=_Id).name
            return told(name) if name else ()
        at = msgspec.json.decode(value, type=_Unmatched)
        return (f"{at.topic}/{at.partition}/{at.offset}",)

    def _records(self, since: Offsets, enough: Callable[[Message], bool] = lambda _: False) -> Iterator[Message]:
        """Committed records from given offsets on, up to the present ends or until there are enough of a partition."""
        waiting = self._assign(since)
        try:
            while waiting:
                first = self._consumer.poll(self._seconds)
                if first is None:
                    raise BrokerUnavailable(
                        f"{sorted(waiting)} did not answer within {self._seconds:g} s; is the broker up?"
                    )
                for message in (first, *self._consumer.consume(_AT_ONCE, 0)):
                    error = message.error()
                    if error is not None and error.code() != _END:
                        raise KafkaException(error)
                    if error is None:
                        yield message
                    if error is not None or enough(message):
                        waiting.discard((str(message.topic()), int(message.partition() or 0)))
        finally:
            self._consumer.unassign()

    def _assign(self, since: Offsets) -> set[tuple[str, int]]:
        """Begin to read; the partitions in which there is something to read."""
        places = []
        for topic, partitions in since.items():
            for partition, offset in partitions.items():
                low, end = self._bounds(topic, partition)
                if max(offset, low) < end:
                    places.append(TopicPartition(topic, partition, max(offset, low)))
        if places:
            self._consumer.assign(places)
        return {(place.topic, place.partition) for place in places}

    def _bounds(self, topic: str, partition: int) -> tuple[int, int]:
        place = TopicPartition(topic, partition)
        found = self._consumer.get_watermark_offsets(place, timeout=self._seconds, cached=False)
        if found is None:
            raise BrokerUnavailable(f"{topic}[{partition}] did not say where it ends; is the broker up?")
        return found
