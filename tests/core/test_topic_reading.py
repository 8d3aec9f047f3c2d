"""A topic that is followed: each record once, the whole again after a failure, and never a part that passes for the whole."""

from collections.abc import Iterator
from itertools import count

import pytest

from stream_trainer.errors import BrokerUnavailable
from stream_trainer.topic_reading import Record, Tail
from tests.core.scripted_topic import ScriptedTopic


class Reader:
    """What a reader of a tail keeps."""

    def __init__(self, topic: ScriptedTopic, *, ticks: Iterator[float] | None = None) -> None:
        self.taken: list[int] = []
        self.forgot = 0
        clock = ticks or iter(count(0.0, 0.0))
        self.tail = Tail(topic.open, seconds=1.0, monotonic=lambda: next(clock))

    def look(self) -> list[int]:
        self.tail.follow(self._forget, self._take)
        return self.taken

    def _forget(self) -> None:
        self.forgot += 1
        self.taken = []

    def _take(self, record: Record) -> None:
        self.taken.append(record.offset)


def written(n: int) -> ScriptedTopic:
    topic = ScriptedTopic()
    for number in range(n):
        topic.write("k", number)
    return topic


def test_each_record_is_taken_once_and_the_topic_stays_open() -> None:
    topic = written(250)
    reader = Reader(topic)
    assert reader.look() == list(range(250))
    assert reader.look() == list(range(250))
    topic.write("k", 1)
    assert reader.look() == list(range(251))
    assert (topic.opened, topic.closed, reader.forgot) == (1, 0, 1)
    reader.tail.close()
    reader.tail.close()
    assert topic.closed == 1


def test_after_a_failure_it_is_closed_and_read_anew() -> None:
    topic = written(3)
    reader = Reader(topic)
    reader.look()
    topic.broken = True
    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            reader.look()
    topic.broken = False
    assert reader.look() == [0, 1, 2]
    assert topic.opened - topic.closed == 1


def test_a_topic_that_was_made_anew_is_read_from_its_start() -> None:
    topic = written(5)
    reader = Reader(topic)
    reader.look()
    topic.records = topic.records[:2]
    assert reader.look() == [0, 1]
    assert reader.forgot == 2


def test_a_look_that_runs_out_of_time_says_so_and_the_next_one_reads_on() -> None:
    topic = written(250)
    reader = Reader(topic, ticks=iter([0.0, 0.0, 2.0, *[2.0] * 9]))
    with pytest.raises(BrokerUnavailable, match="not read to its end in time"):
        reader.look()
    assert reader.taken == list(range(100))
    assert reader.look() == list(range(250))
    assert (topic.opened, reader.forgot) == (1, 1)
