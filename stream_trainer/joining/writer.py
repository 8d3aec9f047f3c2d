"""Writes join batches: examples, unmatched labels and the marker in one Kafka transaction.

The transactional id is the pipeline's: a second joiner fences the first, and whatever that one had begun is aborted
before anything is read here.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from stream_trainer.errors import BrokerUnavailable, Fenced, InputLost, StreamTrainerError
from stream_trainer.joining.commits import Marker, Plan, Written, after, names, plan
from stream_trainer.joining.matching import EXAMPLE, UNMATCHED, Emitted
from stream_trainer.kafka import librdkafka_options
from stream_trainer.log_reader import consumer_options
from stream_trainer.offsets import Offsets
from stream_trainer.settings import Settings
from stream_trainer.topics import Topics

_FENCED = {KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED}  # noqa: SLF001
_END = KafkaError._PARTITION_EOF  # noqa: SLF001 - confluent-kafka's name
_TAIL = 1_000
_AT_ONCE = 10_000


class _Id(msgspec.Struct):
    name: str | None = msgspec.field(name="_example_id", default=None)


class _Unmatched(msgspec.Struct):
    topic: str
    partition: int
    offset: int


class JoinWriter:
    """The one who writes for a pipeline. Not safe to be shared by threads.

    Raises:
        Fenced: another joiner of this pipeline has begun.
        BrokerUnavailable: Kafka does not answer; what was begun is aborted by the next start.
    """

    def __init__(self, topics: Topics, settings: Settings) -> None:
        self._topics = topics
        self._settings = settings
        self._seconds = settings.kafka.request_timeout_seconds
        self._producer = Producer(
            librdkafka_options(settings.kafka)
            | {
                "transactional.id": f"{topics.pipeline}.joiner",
                "transaction.timeout.ms": int(settings.join.transaction_seconds * 1000),
                "partitioner": "murmur2_random",
                "compression.type": "lz4",
                "linger.ms": 5,
                "log_level": 0,
            }
        )
        with self._reached("becoming the pipeline's joiner"):
            self._producer.init_transactions(self._seconds * 3)
        with self._reached("reading what was written"), closing(self._consumer()) as consumer:
            self.written = self._recover(consumer)

    def close(self) -> None:
        """Release the connection; nothing is open between two batches."""
        self._producer.flush(0)

    def begin_again(self, query_id: str, span_ms: int) -> Marker | None:
        """Prepare for a checkpoint that is not the newest marker's: it was lost.

        All that was written since the last horizon before the marker is compared with what is given out from now on.

        Args:
            query_id: the new checkpoint's.
            span_ms: a horizon, and for how long what is over is remembered.

        Returns:
            The newest marker of the lost checkpoint; None when there was none.
        """
        last = self.written.marker
        if last is None or last.query_id == query_id:
            return None
        with self._reached("reading what was written"), closing(self._consumer()) as consumer:
            since = self.offsets_at(consumer, self._outputs, last.at - span_ms)
            known = self._known(consumer, since)
        marker = msgspec.structs.replace(
            last, query_id="", compare_from=since, compare_until=last.at + 2 * span_ms, waiting={}
        )
        self.written = Written(marker=marker, known=known)
        return last

    def write(self, batch: Marker, emitted: Iterable[Emitted]) -> Plan:
        """Carry a batch out: after it returned, all of it is in the topics exactly once."""
        rows = list(emitted)
        with self._reached("writing a join batch"):
            with closing(self._consumer()) as consumer:
                ends = {topic: self._ends(consumer, topic) for topic in self._outputs}
            todo = plan(batch, rows, self.written, ends)
            if todo.marker is not None:
                self._commit(todo.rows, todo.marker)
        self.written = after(self.written, todo, [e.id for e in rows if e.kind in (EXAMPLE, UNMATCHED)])
        return todo

    @property
    def _outputs(self) -> tuple[str, str]:
        return self._topics.examples, self._topics.unmatched

    def _commit(self, rows: list[Emitted], marker: Marker) -> None:
        self._producer.begin_transaction()
        failed: list[KafkaError] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failed.append(error)

        try:
            for row in rows:
                topic = self._topics.examples if row.kind == EXAMPLE else self._topics.unmatched
                self._produce(topic, row.key.encode(), row.value, delivered)
            value = msgspec.json.encode(marker)
            self._produce(self._topics.join_commits, f"{self._topics.pipeline}.joiner".encode(), value, delivered)
            self._producer.flush(self._settings.join.transaction_seconds)
            if failed:
                raise KafkaException(failed[0])
            self._producer.commit_transaction(self._seconds * 3)
        except KafkaException as error:
            if error.args[0].txn_requires_abort():
                self._producer.abort_transaction(self._seconds * 3)
            raise

    def _produce(self, topic: str, key: bytes, value: bytes, delivered: Callable[[Any, Message], None]) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key=key, on_delivery=delivered)
            except BufferError:
                self._producer.poll(0.1)
            else:
                return

    def _recover(self, consumer: Consumer) -> Written:
        marker = self._newest_marker(consumer)
        return Written() if marker is None else Written(marker=marker, known=self._known(consumer, marker.compare_from))

    def _newest_marker(self, consumer: Consumer) -> Marker | None:
        topic = self._topics.join_commits
        low, end = self._bounds(consumer, topic, 0)
        for start in (max(low, end - _TAIL), low):
            found = [m.value() for m in self._records(consumer, {topic: {0: start}}) if m.value()]
            if found:
                return msgspec.json.decode(found[-1] or b"", type=Marker)
            if start == low:
                break
        return None

    def _known(self, consumer: Consumer, since: Offsets) -> set[str]:
        known: set[str] = set()
        for message in self._records(consumer, since):
            value = message.value() or b""
            if message.topic() == self._topics.examples:
                name = msgspec.json.decode(value, type=_Id).name
                known.update(names(name) if name else ())
            else:
                at = msgspec.json.decode(value, type=_Unmatched)
                known.add(f"{at.topic}/{at.partition}/{at.offset}")
        return known

    def _records(self, consumer: Consumer, since: Offsets) -> Iterator[Message]:
        """Committed records from given offsets on, up to the present ends."""
        waiting = set()
        places = []
        for topic, partitions in since.items():
            for partition, offset in partitions.items():
                low, end = self._bounds(consumer, topic, partition)
                if max(offset, low) < end:
                    waiting.add((topic, partition))
                    places.append(TopicPartition(topic, partition, max(offset, low)))
        if not places:
            return
        consumer.assign(places)
        while waiting:
            first = consumer.poll(self._seconds)
            if first is None:
                raise BrokerUnavailable(
                    f"{sorted(waiting)} did not answer within {self._seconds:g} s; is the broker up?"
                )
            for message in (first, *consumer.consume(_AT_ONCE, 0)):
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == _END:
                    waiting.discard((message.topic(), message.partition()))
                else:
                    raise KafkaException(error)

    def offsets_at(self, consumer: Consumer, topics: Iterable[str], milliseconds: int) -> Offsets:
        """The first offset of each partition that was appended then or later."""
        found: Offsets = {}
        for topic in topics:
            ends = self._ends(consumer, topic)
            asked = [TopicPartition(topic, p, max(0, milliseconds)) for p in ends]
            answered = consumer.offsets_for_times(asked, timeout=self._seconds)
            found[topic] = {tp.partition: tp.offset if tp.offset >= 0 else ends[tp.partition] for tp in answered}
        return found

    def inputs_at(self, milliseconds: int) -> Offsets:
        """Where both inputs stood then."""
        with self._reached("looking for the last horizon"), closing(self._consumer()) as consumer:
            return self.offsets_at(consumer, (self._topics.predictions, self._topics.labels), milliseconds)

    def _ends(self, consumer: Consumer, topic: str) -> dict[int, int]:
        found = consumer.list_topics(topic, timeout=self._seconds).topics[topic]
        if found.error is not None:
            raise InputLost(f"topic {topic} is gone: {found.error}")
        return {partition: self._bounds(consumer, topic, partition)[1] for partition in sorted(found.partitions)}

    def _bounds(self, consumer: Consumer, topic: str, partition: int) -> tuple[int, int]:
        found = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=self._seconds, cached=False)
        if found is None:
            raise BrokerUnavailable(f"{topic}[{partition}] did not say where it ends; is the broker up?")
        return found

    def _consumer(self) -> Consumer:
        return Consumer(consumer_options(self._settings.kafka))

    @contextmanager
    def _reached(self, what: str) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            raise _meaning(what, error.args[0], self._settings) from error


def _meaning(what: str, error: KafkaError, settings: Settings) -> StreamTrainerError:
    if error.code() in _FENCED:
        return Fenced("another joiner of this pipeline has begun: this one ends, nothing was written twice")
    return BrokerUnavailable(f"{what} failed at {settings.kafka.bootstrap_servers}: {error.str()}; is the broker up?")
