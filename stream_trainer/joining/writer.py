"""Writes join batches: examples, unmatched labels and the marker in one Kafka transaction.

The transactional id is the pipeline's: a second joiner fences the first, and whatever that one had begun is aborted
before anything is read here.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from stream_trainer.errors import BrokerUnavailable, Fenced, StreamTrainerError
from stream_trainer.joining.clock import read_until
from stream_trainer.joining.commits import Plan, Written, after, plan
from stream_trainer.joining.join import Join, milliseconds
from stream_trainer.joining.known import Known
from stream_trainer.joining.matching import EXAMPLE, Emitted
from stream_trainer.joining.recovery import Marker, Place, Recovery, earliest, furthest, recover, waiting_at
from stream_trainer.joining.topic_reader import TopicReader
from stream_trainer.kafka import librdkafka_options
from stream_trainer.offsets import Offsets
from stream_trainer.settings import Settings
from stream_trainer.topics import Topics

_FENCED = {KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED}  # noqa: SLF001


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
        self._reader = TopicReader(topics, settings.kafka)
        self._ends: Offsets = {}
        self.written = Written()

    def close(self) -> None:
        """Release the connections; nothing is open between two batches."""
        self._producer.flush(0)
        self._reader.close()

    def begin(self, place: Place, join: Join) -> Offsets | None:
        """Look up what was written, and prepare for a checkpoint that stands at `place`.

        Returns:
            From where both inputs are to be read when the checkpoint is begun anew after another; None otherwise.
        """
        with self._reached("reading what was written"):
            self._ends = self._reader.ends(self._outputs)
            markers = self._reader.markers()
            if not markers:
                return None
            recovery = recover(markers[-1], place, milliseconds(join.span))
            marker = self._compared(recovery, milliseconds(join.slack))
            if recovery.rolled_back:
                marker = msgspec.structs.replace(marker, waiting=waiting_at(markers, place))
            known = self._reader.known(marker.compare_from) if marker.compare_to else Known()
            self.written = Written(marker=marker, known=known, settle=milliseconds(join.settle))
            if recovery.inputs is None:
                return None
            inputs = self._reader.offsets_at((self._topics.predictions, self._topics.labels), recovery.inputs)
            return earliest(inputs, markers[-1].next_offsets)

    def write(self, batch: Marker, emitted: Iterable[Emitted]) -> Plan:
        """Carry a batch out: after it returned, all of it is in the topics exactly once."""
        todo = plan(batch, emitted, self.written, self._ends)
        if todo.marker is not None:
            with self._reached("writing a join batch"):
                self._ends = furthest(self._ends, self._commit(todo.rows, todo.marker))
        self.written = after(self.written, todo)
        return todo

    @property
    def settled(self) -> int:
        """See `Marker.settled`; 0 at the very first."""
        return 0 if self.written.marker is None else max(0, self.written.marker.settled)

    def read_until(self, read: Offsets, now: int) -> int:
        """See `clock.read_until`."""
        with self._reached("looking how far the inputs go"):
            ends = self._reader.ends((self._topics.predictions, self._topics.labels))
            return read_until(read, ends, self._reader.times, now)

    @property
    def _outputs(self) -> tuple[str, str]:
        return self._topics.examples, self._topics.unmatched

    def _compared(self, recovery: Recovery, slack: int) -> Marker:
        """The marker with the offset from where the outputs are compared."""
        if recovery.since is None:
            return recovery.marker
        since = earliest(self._reader.offsets_at(self._outputs, recovery.since - slack), recovery.marker.compare_from)
        return msgspec.structs.replace(recovery.marker, compare_from=since)

    def _commit(self, rows: list[Emitted], marker: Marker) -> Offsets:
        """One transaction; where the rows ended."""
        self._producer.begin_transaction()
        failed: list[KafkaError] = []
        ends: Offsets = {topic: {} for topic in self._outputs}

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                failed.append(error)
            elif (topic := str(message.topic())) in ends:
                ends[topic][int(message.partition() or 0)] = int(message.offset() or 0) + 1

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
        return ends

    def _produce(self, topic: str, key: bytes, value: bytes, delivered: Callable[[Any, Message], None]) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key=key, on_delivery=delivered)
            except BufferError:
                self._producer.poll(0.1)
            else:
                return

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
