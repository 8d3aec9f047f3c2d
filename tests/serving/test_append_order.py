"""One order for everybody: whatever was looked at when, and however it was read."""

from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import append_order
from serving.append_order import AppendOrder, begins
from serving.examples_log import Bounds
from stream_trainer.errors import BrokerUnavailable
from stream_trainer.offsets import Ranges
from stream_trainer.schema import TIMESTAMP
from tests.serving.fixtures import NOW

SETTLE = 3
SCHEMA = pa.schema(
    [
        ("_partition", pa.int32()),
        ("_offset", pa.int64()),
        ("_row", pa.int32()),
        ("_append_time", TIMESTAMP),
        ("_reason", pa.string()),
    ]
)
Place = tuple[int, int, int]


class Topic:
    """Records `(arrived, append time, rows)` per partition; a record of no rows is a gap, of -1 rows a rejected one."""

    def __init__(self, records: dict[int, list[tuple[int, int, int]]]) -> None:
        self.records = records

    def bounds(self, now: int) -> Bounds:
        ends = {p: sum(arrived <= now for arrived, _, _ in rs) for p, rs in self.records.items()}
        at = NOW + timedelta(seconds=now)
        return Bounds(topic_id="", at=at, partitions={p: (0, end) for p, end in ends.items()})

    def read(self, ranges: Ranges) -> pa.Table:
        rows: list[dict[str, Any]] = []
        for partition, (start, end) in ranges["t"].items():
            for offset in range(start, end):
                _, second, count = self.records[partition][offset]
                rows += [
                    {
                        "_partition": partition,
                        "_offset": offset,
                        "_row": row,
                        "_append_time": NOW + timedelta(seconds=second),
                        "_reason": "bad" if count < 0 else None,
                    }
                    for row in range(abs(count))
                ]
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    def expected(self, after: dict[int, int]) -> list[Place]:
        found: list[tuple[int, Place]] = []
        for partition, records in self.records.items():
            latest = -(10**9)
            for offset, (_, second, count) in enumerate(records):
                if offset >= after.get(partition, 0) and count:
                    latest = max(latest, second)
                    found += [(latest, (partition, offset, row)) for row in range(max(count, 0))]
        return [place for _, place in sorted(found)]


def places(table: pa.Table | None) -> list[Place]:
    if table is None:
        return []
    return [(r["_partition"], r["_offset"], r["_row"]) for r in table.to_pylist()]


def walk(topic: Topic, after: dict[int, int], looks: list[int], most: int) -> list[Place]:
    order = AppendOrder("t", after, settle_seconds=SETTLE)
    found: list[Place] = []
    for now in looks:
        order.extend(topic.bounds(now))
        while taken := places(order.take(most, topic.read)):
            assert len(taken) <= most
            found += taken
    return found


# Arrival times never fall in a partition; a record's append time is up to SETTLE - 1 seconds before it is seen.
RECORDS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, SETTLE - 1), st.integers(-1, 3)), max_size=12)


@st.composite
def topics(draw: st.DrawFn) -> Topic:
    made: dict[int, list[tuple[int, int, int]]] = {}
    for partition in range(draw(st.integers(1, 4))):
        arrived = 0
        made[partition] = []
        for wait, back, rows in draw(RECORDS):
            arrived += wait
            made[partition].append((arrived, arrived - back, rows))
    return Topic(made)


@given(
    topics(),
    st.dictionaries(st.integers(0, 3), st.integers(0, 5)),
    st.lists(st.integers(0, 40), max_size=6),
    st.integers(1, 9),
    st.integers(1, 5),
)
def test_every_way_of_looking_and_reading_gives_the_same_rows(
    topic: Topic, after: dict[int, int], looks: list[int], most: int, chunk: int
) -> None:
    after = {p: min(o, len(topic.records[p])) for p, o in after.items() if p in topic.records}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(append_order, "CHUNK", chunk)
        patch.setattr(append_order, "_READS", 1_000)
        assert walk(topic, after, [*sorted(looks), 1_000], most) == topic.expected(after)


def test_a_row_waits_until_no_earlier_one_can_appear() -> None:
    topic = Topic({0: [(0, 0, 1), (0, 1, 1)], 1: [(3, 0, 1)]})
    order = AppendOrder("t", {}, settle_seconds=SETTLE)
    order.extend(topic.bounds(2))
    assert places(order.take(9, topic.read)) == []
    order.extend(topic.bounds(4))
    assert places(order.take(9, topic.read)) == [(0, 0, 0), (1, 0, 0)]
    assert order.waiting == 0
    order.extend(topic.bounds(5))
    assert places(order.take(9, topic.read)) == [(0, 1, 0)]


def test_a_partition_from_the_future_waits_alone() -> None:
    topic = Topic({0: [(0, 10**6, 1)], 1: [(0, n, 1) for n in range(5)]})
    assert walk(topic, {}, [100], 2) == [(1, n, 0) for n in range(5)]


def test_what_comes_too_late_comes_next_and_is_not_lost() -> None:
    topic = Topic({0: [(0, 0, 1), (0, 5, 1)], 1: [(20, 1, 1)]})
    assert walk(topic, {}, [10, 30], 9) == [(0, 0, 0), (0, 1, 0), (1, 0, 0)]


def test_a_partition_that_nobody_has_learned_from_begins_where_it_begins() -> None:
    topic = Topic({0: [(0, n, 1) for n in range(4)], 1: [(0, n, 1) for n in range(4)]})
    order = AppendOrder("t", {0: 3}, settle_seconds=0)
    order.extend(Bounds(topic_id="", at=NOW + timedelta(hours=1), partitions={0: (0, 4), 1: (2, 4)}))
    assert places(order.take(9, topic.read)) == [(1, 2, 0), (0, 3, 0), (1, 3, 0)]


def test_a_failed_read_leaves_everything_as_it_was() -> None:
    topic = Topic({0: [(0, n, 1) for n in range(4)]})
    order = AppendOrder("t", {}, settle_seconds=0)
    order.extend(topic.bounds(100))

    def down(_: Ranges) -> pa.Table:
        raise BrokerUnavailable("no")

    with pytest.raises(BrokerUnavailable):
        order.take(2, down)
    assert places(order.take(9, topic.read)) == [(0, n, 0) for n in range(4)]


def test_no_more_is_read_than_is_needed() -> None:
    topic = Topic({p: [(0, n, 1) for n in range(5_000)] for p in (0, 1)})
    order = AppendOrder("t", {}, settle_seconds=0)
    order.extend(topic.bounds(10**6))
    assert len(places(order.take(10, topic.read))) == 10
    assert order.waiting == 10_000 - 2 * append_order.CHUNK


def test_it_begins_where_neither_version_has_learned() -> None:
    one, other = {0: 5, 1: 9}, {0: 7, 2: 1}
    assert begins([("a", one), ("a", other)], "a") == {0: 7, 1: 9, 2: 1}
    assert begins([(None, {}), ("a", other)], "a") == other
    assert begins([("a", one), ("b", other)], "b") == other  # offsets of the topic before it was made again
    assert begins([("a", one), ("a", other)], "b") == {}
