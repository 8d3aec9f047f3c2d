"""Buckets of join keys: what shares one changes nothing of what is joined, and nothing due is ever forgotten."""

import itertools
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_trainer.joining.matching import EXAMPLE, UNMATCHED, WAITING, Emitted
from stream_trainer.joining.processor import _EVENTS, PACK_EVENTS, JoinBucket, bucket_of, pack, unpack
from stream_trainer.joining.records import Event
from stream_trainer.joining.state import CHUNK_KEYS, Bucket
from tests.joining.test_matching import HORIZON, joining, label, play, prediction

NAMES = ["a", "b", "c"]


class Kept:
    """A state in memory."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.values.get(key) for key in keys]

    def put(self, values: Mapping[bytes, bytes | None]) -> None:
        for key, value in values.items():
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value


def told(out: Sequence[Emitted]) -> list[tuple[str, str, bytes]]:
    return sorted((e.kind, e.id, e.value) for e in out if e.kind in (EXAMPLE, UNMATCHED))


@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 3_000), st.booleans()), max_size=10),
    st.sets(st.sampled_from(NAMES)),
    st.data(),
    st.sampled_from([None, False]),
)
def test_keys_that_share_a_bucket_are_joined_as_if_alone(
    drawn: list[tuple[str, int, bool]], predicted: set[str], data: st.DataObject, on_timeout: bool | None
) -> None:
    rules = joining(on_timeout=on_timeout)
    labels = [label(name, at, value, i) for i, (name, at, value) in enumerate(drawn)]
    events: list[Event] = data.draw(st.permutations([*(prediction(name, 500) for name in sorted(predicted)), *labels]))
    state = Kept()
    together = JoinBucket(rules, Bucket(state))
    timers: set[int] = set()
    out: list[Emitted] = []
    cuts = sorted(data.draw(st.sets(st.integers(1, len(events))))) if events else []
    batches = [events[a:b] for a, b in itertools.pairwise([0, *cuts, len(events)]) if a < b]
    for batch in batches:
        emitted, slots = together.take(batch, 0)
        assert timers.isdisjoint(slots)
        out, timers = out + emitted, timers.union(slots)
    while timers:
        now = min(timers)
        timers.discard(now)
        emitted, slots = together.expire(now, now, now)
        assert min(slots, default=now + 1) > now
        out, timers = out + emitted, timers.union(slots)
    by_name = [[[event for event in batch if event.key == name] for batch in batches] for name in NAMES]
    assert told(out) == told([e for alone in by_name for e in play(rules, [batch for batch in alone if batch])])
    assert sum(e.amount for e in out if e.kind == WAITING) == 0
    assert state.values == {}


@pytest.mark.parametrize("count", [1, CHUNK_KEYS - 1, CHUNK_KEYS, 3 * CHUNK_KEYS + 1])
def test_a_slot_of_any_length_is_listed_whole_and_once(count: int) -> None:
    state = Kept()
    together = JoinBucket(joining(on_timeout=False), Bucket(state))
    slots = [s for i in range(count) for s in together.take([prediction(f"p{i}", 0)], 0)[1]]
    assert len(slots) == 1
    assert HORIZON < slots[0] < HORIZON * 1.1
    out, _ = together.expire(slots[0], slots[0], slots[0])
    assert sorted(e.id for e in out if e.kind == EXAMPLE) == sorted(f"p{i}:timeout" for i in range(count))
    assert together.expire(slots[0], slots[0], slots[0]) == ([], [])


@pytest.mark.parametrize("count", [0, 1, PACK_EVENTS, 2 * PACK_EVENTS + 1])
def test_events_are_packed_by_bucket_in_bounded_pieces_and_lost_nowhere(count: int) -> None:
    events = [prediction(f"p{i}", i) for i in range(count)]
    found: list[Event] = []
    for batch in pack(events):
        buckets = batch.column("bucket").to_pylist()
        assert len(set(buckets)) == len(buckets)
        rows = [_EVENTS.decode(packed) for packed in batch.column("packed").to_pylist()]
        assert sum(map(len, rows)) <= PACK_EVENTS
        assert [{bucket_of(event.key) for event in row} for row in rows] == [{bucket} for bucket in buckets]
        found += itertools.chain.from_iterable(rows)
    assert sorted(found) == sorted(events)
    assert unpack([]) == []
