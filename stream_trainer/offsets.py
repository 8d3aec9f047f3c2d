"""Offset vectors and ranges: which records a version has learned from. Pure arithmetic, no Kafka.

A vector says, per topic and partition, the next offset to read. A range `[start, next)` is what lies between two
vectors. Offsets inside a range may hold no record (transaction markers, aborted or compacted records).
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from stream_trainer.errors import InputLost

Reason = Literal["retention", "recreated", "vanished", "truncated"]
Offsets = dict[str, dict[int, int]]
Ranges = dict[str, dict[int, tuple[int, int]]]


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """Offsets of a partition that were gone before they were learned, and that a person declared lost.

    `next` is exclusive; None when nobody can say: the topic they belonged to was deleted. Truncated ones had been
    learned, or planned: the log ends at `start` now, and the same offsets will hold other records.
    """

    topic: str
    topic_id: str
    partition: int
    start: int
    next: int | None
    reason: Reason


def copy(vector: Mapping[str, Mapping[int, int]]) -> Offsets:
    """A vector of one's own."""
    return {topic: dict(partitions) for topic, partitions in vector.items()}


def ranges_between(start: Offsets, end: Offsets) -> Ranges:
    """What lies from `start` to `end`, per partition of `end`; a partition that `start` lacks begins at 0.

    Raises:
        InputLost: a partition of `start` is gone from `end`, or ends before it starts.
    """
    for topic, partitions in start.items():
        for partition in partitions:
            if partition not in end.get(topic, {}):
                raise InputLost(f"{topic}[{partition}] has vanished: it was learned up to {partitions[partition]}")
    found: Ranges = {}
    for topic, partitions in end.items():
        for partition, following in partitions.items():
            first = start.get(topic, {}).get(partition, 0)
            if following < first:
                raise InputLost(
                    f"{topic}[{partition}] ends at offset {following}, but was learned up to {first}: "
                    "was the topic re-created?"
                )
            found.setdefault(topic, {})[partition] = (first, following)
    return found


def advance(vector: Offsets, ranges: Ranges) -> Offsets:
    """The vector after `ranges` have been learned.

    Raises:
        ValueError: a range does not begin where the vector stands (a gap or an overlap).
    """
    after = copy(vector)
    for topic, partitions in ranges.items():
        for partition, (start, following) in partitions.items():
            at = after.get(topic, {}).get(partition)
            if at is not None and at != start:
                raise ValueError(f"{topic}[{partition}]: the range begins at {start}, the vector stands at {at}")
            if following < start:
                raise ValueError(f"{topic}[{partition}]: the range [{start}, {following}) runs backwards")
            after.setdefault(topic, {})[partition] = following
    return after


def join(first: Ranges, second: Ranges) -> Ranges:
    """Two consecutive ranges as one.

    Raises:
        ValueError: in some partition the second does not begin where the first ends.
    """
    starts: Offsets = {t: {p: s for p, (s, _) in ps.items()} for t, ps in second.items()}
    for topic, partitions in first.items():
        for partition, (start, _) in partitions.items():
            starts.setdefault(topic, {})[partition] = start
    end = advance(advance({}, first), second)
    return {t: {p: (starts[t][p], n) for p, n in ps.items()} for t, ps in end.items()}


def size(ranges: Ranges) -> int:
    """How many offsets the ranges cover."""
    return sum(following - start for ps in ranges.values() for start, following in ps.values())


def starts(ranges: Ranges) -> Offsets:
    """Where each range begins."""
    return {t: {p: s for p, (s, _) in ps.items()} for t, ps in ranges.items()}


def ends(ranges: Ranges) -> Offsets:
    """Where each range ends, exclusive."""
    return {t: {p: n for p, (_, n) in ps.items()} for t, ps in ranges.items()}


def skip(vector: Offsets, losses: Iterable[Loss], starts: Offsets) -> Offsets:
    """The vector past what is lost: an expired range ends where the log begins, a topic created again begins anew.

    A log that became shorter goes on at its end.

    Args:
        vector: where reading stands.
        losses: what is gone, per partition.
        starts: the first offset of every partition that exists.
    """
    after = copy(vector)
    for loss in losses:
        stood = after.setdefault(loss.topic, {})
        if loss.reason == "retention" and loss.next is not None:
            stood[loss.partition] = loss.next
        elif loss.reason == "truncated":
            stood[loss.partition] = min(stood.get(loss.partition, loss.start), loss.start)
        else:
            stood.pop(loss.partition, None)
    for topic in {loss.topic for loss in losses if loss.reason == "recreated"}:
        after[topic] = dict(starts.get(topic, {}))
    return after
