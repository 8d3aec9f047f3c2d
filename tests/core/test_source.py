from collections.abc import Sequence

import pytest

from stream_trainer.errors import InputLost
from stream_trainer.source import KafkaSource
from tests.core.worlds import TOPIC


class Topic:
    """A topic as the admin client and the log see it."""

    def __init__(self, starts: dict[int, int], ends: dict[int, int], topic_id: str = "id-1") -> None:
        self.first, self.last, self.id = starts, ends, topic_id

    def topic(self, topic: str) -> tuple[str, list[int]]:
        return self.id, self.partitions(topic)

    def partitions(self, topic: str) -> list[int]:
        return sorted(self.first)

    def starts(self, topic: str, partitions: Sequence[int]) -> dict[int, int]:
        return {p: self.first[p] for p in partitions if p in self.first}

    def ends(self, topic: str, partitions: Sequence[int]) -> dict[int, int]:
        return {p: self.last[p] for p in partitions if p in self.last}


def source(topic: Topic, known_id: str | None = "id-1") -> KafkaSource:
    return KafkaSource(TOPIC, topic, topic, known_id)


def test_the_log_begins_and_ends_where_its_partitions_do() -> None:
    made = source(Topic({0: 0, 1: 0}, {0: 9, 1: 8}))
    assert made.latest() == {TOPIC: {0: 9, 1: 8}}
    assert made.earliest() == {TOPIC: {0: 0, 1: 0}}
    assert made.covered({TOPIC: {1: 8}})
    assert not made.covered({TOPIC: {0: 8, 1: 8}})


def test_what_is_missing_is_told_partition_by_partition() -> None:
    expired = source(Topic({0: 8, 1: 0}, {0: 9, 1: 9})).missing({TOPIC: {0: 5, 1: 5, 2: 5}})
    assert [(x.partition, x.start, x.next, x.reason) for x in expired] == [
        (0, 5, 8, "retention"),
        (2, 5, None, "vanished"),
    ]
    again = source(Topic({0: 0}, {0: 1000}, "id-2")).missing({TOPIC: {0: 5}})
    assert [(x.topic_id, x.start, x.next, x.reason) for x in again] == [("id-1", 5, None, "recreated")]


def test_a_recreated_topic_is_lost_input_even_with_more_records() -> None:
    with pytest.raises(InputLost, match="re-created"):
        source(Topic({0: 0}, {0: 1000}, "id-2")).check({TOPIC: {0: 5}})


def test_the_first_id_that_is_seen_is_the_one_that_counts() -> None:
    topic = Topic({0: 0}, {0: 9})
    made = source(topic, known_id=None)
    assert made.check({TOPIC: {0: 5}}) == {TOPIC: "id-1"}
    topic.id = "id-2"
    with pytest.raises(InputLost, match="re-created"):
        made.check({TOPIC: {0: 5}})


def test_records_that_retention_took_are_named() -> None:
    with pytest.raises(InputLost, match=r"offsets 5 to 7 are gone"):
        source(Topic({0: 8}, {0: 9})).check({TOPIC: {0: 5}})
    source(Topic({0: 5}, {0: 9})).check({TOPIC: {0: 5}})


def test_a_vanished_partition_is_named() -> None:
    with pytest.raises(InputLost, match=r"\[1\] has vanished"):
        source(Topic({0: 0}, {0: 9})).check({TOPIC: {0: 0, 1: 0}})
