"""Reading a control topic: whole, followed from its start on, or one record of any topic; small, committed, in no group."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from kafka import KafkaConsumer, TopicPartition

from stream_trainer.errors import BrokerUnavailable, InputLost
from stream_trainer.kafka import committed_reader, reached
from stream_trainer.settings import KafkaSettings

_POLL_SECONDS = 0.2
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Message:
    """One record of a control topic."""

    key: str
    value: Any
    offset: int
    timestamp: float


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it stands there; None as a value is a tombstone. `timestamp` in seconds."""

    partition: int
    offset: int
    key: bytes
    value: bytes | None
    timestamp: float = 0.0


class TopicLog(Protocol):
    """A topic, read from some place on. Each method may raise `BrokerUnavailable`."""

    def ends(self) -> dict[int, int]:
        """The offset after the last record of each partition, now."""
        ...

    def seek(self, offsets: Mapping[int, int]) -> None:
        """Read on from here; from the beginning where a partition is not named or the offset is gone."""
        ...

    def position(self) -> dict[int, int]:
        """The offset of each partition that is read next."""
        ...

    def poll(self, seconds: float) -> list[Record]:
        """What comes next, waiting at most so long for the first."""
        ...


class KafkaLog:
    """See `TopicLog`; its partitions are those of now unless they are given, none when there is no such topic."""

    def __init__(self, settings: KafkaSettings, topic: str, partitions: list[int] | None = None) -> None:
        self._settings = settings
        self._topic = topic
        with self._reached():
            self._consumer: KafkaConsumer = committed_reader(settings, auto_offset_reset="earliest")
        try:
            self._assign(partitions)
        except BaseException:
            self._consumer.close()
            raise

    def ends(self) -> dict[int, int]:
        """See `TopicLog.ends`."""
        with self._reached():
            return {tp.partition: offset for tp, offset in self._consumer.end_offsets(self._partitions).items()}

    def seek(self, offsets: Mapping[int, int]) -> None:
        """See `TopicLog.seek`."""
        with self._reached():
            for tp in self._partitions:
                if tp.partition in offsets:
                    self._consumer.seek(tp, offsets[tp.partition])
                else:
                    self._consumer.seek_to_beginning(tp)

    def position(self) -> dict[int, int]:
        """See `TopicLog.position`."""
        with self._reached():
            return {tp.partition: self._consumer.position(tp) for tp in self._partitions}

    def poll(self, seconds: float) -> list[Record]:
        """See `TopicLog.poll`; in the order of partitions and offsets."""
        with self._reached():
            found = self._consumer.poll(timeout_ms=int(seconds * 1000))
        return [
            Record(r.partition, r.offset, r.key or b"", r.value, r.timestamp / 1000)
            for _, records in sorted(found.items())
            for r in records
        ]

    def close(self) -> None:
        """Release the connection."""
        self._consumer.close()

    def _assign(self, partitions: list[int] | None) -> None:
        with self._reached():
            known = self._consumer.partitions_for_topic(self._topic) if partitions is None else partitions
            self._partitions = [TopicPartition(self._topic, partition) for partition in sorted(known or ())]
            self._consumer.assign(self._partitions)

    def _reached(self) -> AbstractContextManager[None]:
        return reached(f"reading {self._topic}", self._settings)


@contextmanager
def open_log(settings: KafkaSettings, topic: str) -> Iterator[KafkaLog]:
    """A topic as it is now, for a `Tail`.

    Raises:
        BrokerUnavailable: Kafka cannot be reached.
        InputLost: there is no such topic.
    """
    with closing(KafkaLog(settings, topic)) as log:
        if not log.position():
            raise InputLost(f"topic {topic} is not there: it was deleted, or never created")
        yield log


def to_end(log: TopicLog, ends: Mapping[int, int], going_on: Callable[[], bool]) -> Iterator[Record]:
    """What is left up to these ends, and what the last poll brings beyond them; less when `going_on` says no."""
    while going_on() and any(at < ends[partition] for partition, at in log.position().items()):
        yield from log.poll(_POLL_SECONDS)


class Tail:
    """A topic that is kept open: read once from its start, then what is new at each look; opened anew after a failure.

    Args:
        opening: opens the topic.
        seconds: how long one look may read.
        monotonic: seconds on a clock that is never set.
    """

    def __init__(
        self,
        opening: Callable[[], AbstractContextManager[TopicLog]],
        *,
        seconds: float = 10.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._opening = opening
        self._seconds = seconds
        self._monotonic = monotonic
        self._stack = ExitStack()
        self._log: TopicLog | None = None

    def follow(self, forget: Callable[[], None], take: Callable[[Record], None]) -> None:
        """Read up to the present end.

        Args:
            forget: called before the topic is read from its start.
            take: called with each record, in the order of its partition.

        Raises:
            BrokerUnavailable: Kafka cannot be reached: the next look begins at the start. Or the end was not reached in
                time: the next look reads on.
            InputLost: there is no such topic.
        """
        deadline = self._monotonic() + self._seconds
        try:
            log = self._opened(forget)
            ends = log.ends()
            if any(at > ends.get(partition, 0) for partition, at in log.position().items()):  # it was made anew
                self.close()
                log = self._opened(forget)
                ends = log.ends()
            for record in to_end(log, ends, lambda: self._monotonic() < deadline):
                take(record)
            behind = any(log.position()[partition] < end for partition, end in ends.items())
        except Exception:
            self.close()
            raise
        if behind:
            raise BrokerUnavailable("a topic was not read to its end in time: is the broker slow?")

    def close(self) -> None:
        """Leave Kafka; a further look opens it again."""
        self._log = None
        self._stack.close()

    def _opened(self, forget: Callable[[], None]) -> TopicLog:
        if self._log is None:
            log = self._stack.enter_context(self._opening())
            log.seek({})
            forget()
            self._log = log
        return self._log


def message_of(topic: str, record: Record) -> Message | None:
    """A record with its value parsed from JSON; None, with a warning, for what cannot be read: it is nobody's word."""
    try:
        key, value = record.key.decode(), msgspec.json.decode(record.value or b"null")
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        _log.warning("%s[%d]@%d is left out: %s", topic, record.partition, record.offset, error)
        return None
    return Message(key, value, record.offset, record.timestamp)


def read_all(settings: KafkaSettings, topic: str, *, seconds: float = 30.0) -> list[Message]:
    """Every record of a topic up to its present end, each partition in its order; values parsed from JSON.

    Raises:
        BrokerUnavailable: Kafka cannot be reached, or is too slow.
    """
    deadline = time.monotonic() + seconds
    with closing(KafkaLog(settings, topic)) as log:
        log.seek({})
        ends = log.ends()
        found = [
            one for one in to_end(log, ends, lambda: _in_time(topic, deadline)) if one.offset < ends[one.partition]
        ]
    return [message for record in found if (message := message_of(topic, record)) is not None]


def read_one(settings: KafkaSettings, topic: str, partition: int, offset: int) -> bytes | None:
    """The value of one record, None when it is gone."""
    with closing(KafkaLog(settings, topic, [partition])) as log:
        log.seek({partition: offset})
        found = log.poll(settings.request_timeout_seconds)
    return found[0].value if found and found[0].offset == offset else None


def _in_time(topic: str, deadline: float) -> bool:
    if time.monotonic() > deadline:
        raise BrokerUnavailable(f"reading {topic} did not reach its end in time: is the broker slow?")
    return True
