import pytest

from stream_trainer.errors import InputLost
from stream_trainer.source import KafkaSource
from tests.core.worlds import TOPIC


class Topic:
    """A topic as the admin client and the log see it."""

    def __init__(self, starts: dict[int, int], ends: dict[int, int], topic_id: str = "id-1") -> None:
        self.first, self.last, self.id = starts, ends, topic_id

    def topic_id(self, topic: str) -> str:
        return self.id

    def partitions(self, topic: str) -> list[int]:
        return sorted(self.first)

    def starts(self, topic: str, partitions: list[int]) -> dict[int, int]:
        return {p: self.first[p] for p in partitions if p in self.first}

    def ends(self, topic: str, partitions: list[int]) -> dict[int, int]:
        return {p: self.last[p] for p in partitions if p in self.last}


def source(topic: Topic, known_id: str | None = "id-1") -> KafkaSource:
    return KafkaSource(TOPIC, topic, topic, known_id)  # type: ignore[arg-type]


def test_a_position_is_continued_and_new_partitions_begin_at_their_start() -> None:
    found = source(Topic({0: 0, 1: 3, 2: 4}, {0: 9, 1: 9, 2: 9})).start({TOPIC: {0: 5, 1: 3}})
    assert found == {TOPIC: {0: 5, 1: 3, 2: 4}}


def test_ends_are_those_of_every_partition_or_of_the_asked_ones() -> None:
    made = source(Topic({0: 0, 1: 0}, {0: 9, 1: 8}))
    assert made.latest() == {TOPIC: {0: 9, 1: 8}}
    assert made.ends({TOPIC: {1: 2}}) == {TOPIC: {1: 8}}
    assert made.earliest() == {TOPIC: {0: 0, 1: 0}}


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
