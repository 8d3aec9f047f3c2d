"""Exact ranges of a topic without Spark: the records that a version has learned from, and nothing else.

One consumer stays open. It runs ahead of what is asked for, so consecutive ranges cost neither a seek nor a round trip.
An offset may have no record (transaction markers, aborted and compacted records): a range is over when a
later record has come, or when the broker says that the partition ends there.
"""

import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from stream_trainer import offsets
from stream_trainer.contract import Contract
from stream_trainer.decode import decode, decoded_schema
from stream_trainer.errors import BrokerUnavailable, InputLost
from stream_trainer.kafka import Admin, librdkafka_options
from stream_trainer.offsets import Ranges
from stream_trainer.schema import TIMESTAMP
from stream_trainer.settings import KafkaSettings

RECORDS = pa.schema(
    [
        pa.field("topic", pa.string()),
        pa.field("partition", pa.int32()),
        pa.field("offset", pa.int64()),
        pa.field("timestamp", TIMESTAMP),
        pa.field("value", pa.binary()),
        pa.field("headers", pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))),
    ]
)

BATCH_RECORDS = 10_000
BATCH_BYTES = 32 * 2**20
AHEAD_RECORDS = 50_000
AHEAD_BYTES = 64 * 2**20
_CHECKED_SECONDS = 5.0
_PATIENCE = 3
_NOWHERE = -1
_GONE = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}  # noqa: SLF001 - confluent-kafka's names
_UNKNOWN = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC}  # noqa: SLF001
PARTITION_END = KafkaError._PARTITION_EOF  # noqa: SLF001 - confluent-kafka's name

Where = tuple[str, int]


@dataclass(slots=True)
class _Cursor:
    """One partition.

    `at` is where the last range ended, `reached` up to where the broker has said everything, `ended` where it last
    said that there is no more, `ends_at` the end that it gave when asked.
    """

    at: int
    reached: int
    ended: int = -1
    ends_at: int = -1
    ahead: deque[Message] = field(default_factory=deque)
    bytes_ahead: int = 0
    paused: bool = False
    failure: KafkaError | None = None

    @property
    def far_ahead(self) -> bool:
        return len(self.ahead) > AHEAD_RECORDS or self.bytes_ahead > AHEAD_BYTES

    def keep(self, message: Message) -> None:
        offset = message.offset() or 0
        if offset >= self.reached:  # what was asked for again after a pause may come twice
            self.ahead.append(message)
            self.bytes_ahead += len(message.value() or b"")
            self.reached = offset + 1

    def take(self, end: int) -> Iterator[Message]:
        while self.ahead and (self.ahead[0].offset() or 0) < end:
            message = self.ahead.popleft()
            self.bytes_ahead -= len(message.value() or b"")
            yield message


class _Topic(NamedTuple):
    """What the cluster said of a topic, and when it was asked."""

    topic_id: str
    partitions: frozenset[int]
    asked: float


class LogReader:
    """Reads what manifests name. Not safe to be shared by threads."""

    def __init__(self, contract: Contract, settings: KafkaSettings) -> None:
        self._contract = contract
        self._settings = settings
        self._patience = settings.request_timeout_seconds * _PATIENCE
        self._cursors: dict[Where, _Cursor] = {}
        self._topics: dict[str, _Topic] = {}
        self._starts: dict[Where, tuple[int, float]] = {}
        self._consumer = Consumer(consumer_options(settings))
        try:
            self._admin = Admin(settings)
        except BaseException:
            self._consumer.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the connections."""
        self._consumer.close()
        self._admin.close()

    def read(self, ranges: Ranges, topic_ids: Mapping[str, str]) -> pa.Table:
        """The decoded records (`decode.decoded_schema`) of exactly these ranges, each partition's in order.

        Args:
            ranges: what to read; beginning where the last call ended is what makes a call cheap.
            topic_ids: the id that each topic had when the offsets were written down.

        Raises:
            InputLost: a topic or some of the records are gone.
            BrokerUnavailable: the broker does not answer.
        """
        batches = [decode(self._contract, batch) for batch in self.records(ranges, topic_ids)]
        return pa.Table.from_batches(batches, decoded_schema(self._contract))

    def records(self, ranges: Ranges, topic_ids: Mapping[str, str]) -> Iterator[pa.RecordBatch]:
        """The records of exactly these ranges as they are in the log, in batches of `RECORDS`; errors as `read`."""
        self._check_topics(ranges, topic_ids)
        self._place(ranges)
        ends = {(t, p): end for t, ps in ranges.items() for p, (start, end) in ps.items() if start < end}
        for where in ends:
            self._cursors[where].at = _NOWHERE
        for batch in _batches(self._messages(dict(ends))):
            yield _to_arrow(batch)
        for where, end in ends.items():
            self._cursors[where].at = end

    def _messages(self, waiting: dict[Where, int]) -> Iterator[Message]:
        """What comes before each partition's end; who is done leaves `waiting`."""
        deadline = time.monotonic() + self._patience
        while True:
            for where, end in list(waiting.items()):
                yield from self._cursors[where].take(end)
                if self._cursors[where].reached >= end:
                    del waiting[where]
            if not waiting:
                return
            self._refuse_lost(waiting)
            if self._poll(waiting):
                deadline = time.monotonic() + self._patience
            elif time.monotonic() > deadline:
                raise BrokerUnavailable(
                    f"{_named(waiting)} did not answer within {self._patience:g} s at "
                    f"{self._settings.bootstrap_servers}; is the broker up?"
                )

    def check(self, ranges: Ranges, topic_ids: Mapping[str, str]) -> None:
        """Whether the log still begins at or before every range; reads nothing. What it has asked it keeps for 5 s.

        Raises:
            InputLost: a topic, a partition or the beginning of a range is gone.
            BrokerUnavailable: the broker does not answer.
        """
        self._check_topics(ranges, topic_ids)
        for topic, partitions in ranges.items():
            for partition, (start, end) in partitions.items():
                first = self._start((topic, partition)) if start < end else start
                if first > start:
                    raise _lost((topic, partition), start, min(first, end))

    def _check_topics(self, ranges: Ranges, topic_ids: Mapping[str, str]) -> None:
        for topic, partitions in ranges.items():
            found = self._topics.get(topic)
            if found is None or time.monotonic() - found.asked > _CHECKED_SECONDS:
                topic_id, there = self._admin.topic(topic)
                found = self._topics[topic] = _Topic(topic_id, frozenset(there), time.monotonic())
            wanted = topic_ids.get(topic, found.topic_id)
            if found.topic_id != wanted:
                named = ", ".join(f"{topic}[{p}] {s} to {e - 1}" for p, (s, e) in partitions.items() if s < e)
                raise InputLost(
                    f"topic {topic} was re-created: its id is {found.topic_id}, the records were in {wanted}; "
                    f"offsets {named or 'none'} are gone"
                )
            for partition, (start, end) in partitions.items():
                if partition not in found.partitions and start < end:
                    raise _vanished((topic, partition), start, end)

    def _start(self, where: Where) -> int:
        """The first offset that still exists."""
        first, at = self._starts.get(where, (0, 0.0))
        if not at or time.monotonic() - at > _CHECKED_SECONDS:
            first = self._bounds(where)[0]
            self._starts[where] = first, time.monotonic()
        return first

    def _bounds(self, where: Where) -> tuple[int, int]:
        try:
            found = self._consumer.get_watermark_offsets(
                TopicPartition(*where), timeout=self._settings.request_timeout_seconds, cached=False
            )
        except KafkaException as error:
            raise _failed(error.args[0], where, self._settings) from error
        if found is None:
            raise BrokerUnavailable(f"{where[0]}[{where[1]}]: no answer about its first offset; is the broker up?")
        return found

    def _place(self, ranges: Ranges) -> None:
        """Make the consumer stand where each range begins; nothing happens when it does already."""
        starts = {(t, p): start for t, ps in offsets.starts(ranges).items() for p, start in ps.items()}
        if all(where in self._cursors and self._cursors[where].at == start for where, start in starts.items()):
            return
        elsewhere = {where: c.at for where, c in self._cursors.items() if where not in starts and c.at != _NOWHERE}
        wanted = elsewhere | starts
        self._cursors = {where: _Cursor(at, at) for where, at in wanted.items()}
        self._consumer.assign([TopicPartition(*where, at) for where, at in sorted(wanted.items())])

    def _poll(self, waiting: Mapping[Where, int]) -> bool:
        """Take in what has come; False when nothing did."""
        try:
            first = self._consumer.poll(min(1.0, self._patience))
            messages = [] if first is None else [first, *self._consumer.consume(BATCH_RECORDS, 0)]
        except KafkaException as error:
            raise _failed(error.args[0], next(iter(waiting)), self._settings) from error
        for message in messages:
            cursor = self._cursors.get((message.topic() or "", message.partition() or 0))
            if cursor is None:
                continue
            problem = message.error()
            if problem is None:
                cursor.keep(message)
            elif problem.code() == PARTITION_END:
                cursor.ended = cursor.reached = max(cursor.reached, message.offset() or 0)
            else:
                cursor.failure = problem
        for where, cursor in self._cursors.items():
            if cursor.far_ahead and where not in waiting and not cursor.paused:
                self._pause(where, cursor, paused=True)
        for where in waiting:
            if self._cursors[where].paused:
                self._pause(where, self._cursors[where], paused=False)
        return bool(messages)

    def _pause(self, where: Where, cursor: _Cursor, *, paused: bool) -> None:
        (self._consumer.pause if paused else self._consumer.resume)([TopicPartition(*where)])
        cursor.paused = paused

    def _refuse_lost(self, waiting: Mapping[Where, int]) -> None:
        for where, end in waiting.items():
            cursor = self._cursors[where]
            if cursor.failure is not None and cursor.failure.code() not in _GONE:
                raise _failed(cursor.failure, where, self._settings)
            if cursor.failure is None and (cursor.ended != cursor.reached or cursor.ends_at >= end):
                continue
            first, cursor.ends_at = self._bounds(where)
            if first > cursor.reached:
                raise _lost(where, cursor.reached, min(first, end))
            if cursor.ends_at < end:
                raise InputLost(
                    f"{where[0]}[{where[1]}] ends at offset {cursor.ends_at}: offsets {cursor.reached} to {end - 1} "
                    "are gone; was the topic re-created, or did the cluster lose data?"
                )
            if cursor.failure is not None:
                raise _failed(cursor.failure, where, self._settings)


def consumer_options(settings: KafkaSettings) -> dict[str, Any]:
    """Options of a read-committed consumer that belongs to no group and says when a partition ends.

    Raises:
        BrokerUnavailable: no bootstrap servers are known.
    """
    return librdkafka_options(settings) | {
        "group.id": "stream-trainer-reads-by-offset",  # librdkafka asks for one; nothing is ever committed to it
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
        "auto.offset.reset": "error",
        "allow.auto.create.topics": False,
        # A partition's end is known when a fetch comes back empty: at the broker's default that is half a second.
        "fetch.wait.max.ms": 20,
        "fetch.queue.backoff.ms": 5,
        "fetch.message.max.bytes": 4 * 2**20,
        "log_level": 0,
        "error_cb": _ignore,
    }


def _ignore(_: KafkaError) -> None:
    """A broker that is down shows as an answer that does not come; whoever waits for it says so."""


def _batches(messages: Iterator[Message]) -> Iterator[list[Message]]:
    batch: list[Message] = []
    size = 0
    for message in messages:
        batch.append(message)
        size += len(message.value() or b"")
        if len(batch) >= BATCH_RECORDS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _to_arrow(messages: list[Message]) -> pa.RecordBatch:
    columns: list[list[Any]] = [
        [m.topic() for m in messages],
        [m.partition() for m in messages],
        [m.offset() for m in messages],
        [m.timestamp()[1] * 1000 for m in messages],
        [m.value() for m in messages],
        [_headers(m) for m in messages],
    ]
    arrays = [pa.array(column, kind) for column, kind in zip(columns, RECORDS.types, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=RECORDS)


def _headers(message: Message) -> list[dict[str, Any]] | None:
    found: Any = message.headers()
    return [{"key": key, "value": value} for key, value in found] if found else None


def _named(partitions: Mapping[Where, int]) -> str:
    return ", ".join(f"{topic}[{partition}]" for topic, partition in sorted(partitions))


def _lost(where: Where, start: int, following: int) -> InputLost:
    return InputLost(f"{where[0]}[{where[1]}]: offsets {start} to {following - 1} are gone (retention)")


def _vanished(where: Where, start: int, end: int) -> InputLost:
    return InputLost(f"{where[0]}[{where[1]}] has vanished, and offsets {start} to {end - 1} with it")


def _failed(error: KafkaError, where: Where, settings: KafkaSettings) -> InputLost | BrokerUnavailable:
    topic, partition = where
    if error.code() in _UNKNOWN:
        return InputLost(f"{topic}[{partition}] has vanished, and its records with it")
    return BrokerUnavailable(
        f"reading {topic}[{partition}] failed at {settings.bootstrap_servers}: {error.str()}; is the broker up?"
    )
