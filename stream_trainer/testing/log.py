"""A topic in memory, written as a script: records, and what happens between them.

Records go to the partition of their key, as Kafka's own producers send them. Offsets, gaps, retention and topic ids
behave as the broker's do.
"""

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from kafka.partitioner.default import murmur2

from stream_trainer.decode import decode, decoded_schema
from stream_trainer.offsets import Offsets, Ranges
from stream_trainer.pipeline import Pipeline
from stream_trainer.schema import TIMESTAMP

# An event time after the append time is refused: these records were appended late enough for any.
_FIRST_APPEND = datetime(2100, 1, 1, tzinfo=UTC)


class Aborted(Exception):
    """The script said `Abort` inside the micro-batch that was being read."""


@dataclass(frozen=True, slots=True)
class Poison:
    """A record with exactly these bytes; None is a tombstone."""

    value: bytes | None


@dataclass(frozen=True, slots=True)
class Gap:
    """Offsets without records, as an aborted transaction leaves them."""

    offsets: int = 1


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing arrives for so long: what came before is a micro-batch of its own, and a `FakeClock` moves on."""

    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Abort:
    """The run ends while the micro-batch around this place is being read; once."""


Item = Mapping[str, Any] | Poison | Gap | Pause | Abort
_GAP = object()


class ScriptedLog:
    """The examples topic of a pipeline. `append` may be called at any time, from hooks of a running test too."""

    def __init__(self, pipeline: Pipeline, script: Iterable[Item] = (), *, partitions: int = 3) -> None:
        self.topic_name = pipeline.topics.examples
        self.topic_id = _topic_id(self.topic_name, 1)
        self._made = 1
        self._contract = pipeline.contract
        self._values: list[list[object]] = [[] for _ in range(partitions)]
        self._starts = [0] * partitions
        self._arrived: list[tuple[int, int]] = []
        self._pauses: dict[int, float] = {}
        self._aborts: set[int] = set()
        self.append(*script)

    def append(self, *items: Item, partition: int | None = None) -> None:
        """Add items; a record without a key, and with no `partition`, goes to partitions in turn."""
        for item in items:
            match item:
                case Pause(seconds):
                    self._pauses[len(self._arrived)] = self._pauses.get(len(self._arrived), 0.0) + seconds
                case Abort():
                    self._aborts.add(len(self._arrived))
                case Gap(count):
                    for _ in range(count):
                        self._put(_GAP, partition, None)
                case Poison(value):
                    self._put(value, partition, None)
                case _:
                    key = item.get(self._contract.key)
                    self._put(json.dumps(item).encode(), partition, None if key is None else str(key))

    def expire(self, partition: int, before: int) -> None:
        """Retention removes the records of a partition below an offset."""
        self._starts[partition] = max(self._starts[partition], before)

    def truncate(self, partition: int, end: int) -> None:
        """The broker loses the newest records of a partition: it ends at an offset, and goes on from there."""
        del self._values[partition][end:]
        self._arrived = [(p, offset) for p, offset in self._arrived if p != partition or offset < end]
        self._pauses, self._aborts = {}, set()

    def recreate(self) -> None:
        """The topic is deleted and made again, empty."""
        self._made += 1
        self.topic_id = _topic_id(self.topic_name, self._made)
        self._values = [[] for _ in self._values]
        self._starts = [0] * len(self._values)
        self._arrived, self._pauses, self._aborts = [], {}, set()

    def add_partition(self) -> int:
        """One more partition; its number."""
        self._values.append([])
        self._starts.append(0)
        return len(self._values) - 1

    def topic(self, name: str) -> tuple[str, list[int]]:  # noqa: ARG002 - there is one
        """Id and partitions, as `kafka.Admin.topic` gives them."""
        return self.topic_id, list(range(len(self._values)))

    def partitions(self, name: str) -> list[int]:
        """The partitions."""
        return self.topic(name)[1]

    def starts(self, name: str, partitions: Sequence[int]) -> dict[int, int]:  # noqa: ARG002
        """The first offset of each partition that still exists."""
        return {p: self._starts[p] for p in partitions}

    def ends(self, name: str, partitions: Sequence[int]) -> dict[int, int]:  # noqa: ARG002
        """The next offset of each partition."""
        return {p: len(self._values[p]) for p in partitions}

    def read(self, ranges: Ranges) -> pa.Table:
        """The decoded records of exactly these ranges.

        Raises:
            Aborted: the script says so, for the first who reads there.
        """
        covered = ranges.get(self.topic_name, {})
        parts = [self._decoded(p, start, following) for p, (start, following) in sorted(covered.items())]
        for place in sorted(self._aborts):
            if place < len(self._arrived) and _holds(covered, self._arrived[place]):
                self._aborts.discard(place)
                partition, offset = self._arrived[place]
                raise Aborted(f"as the script says, before {self.topic_name}[{partition}]@{offset}")
        return pa.Table.from_batches(parts) if parts else decoded_schema(self._contract).empty_table()

    def next_cut(self, position: Offsets, most: int) -> tuple[Ranges, float | None] | None:
        """What the next micro-batch covers, and the pause that ends it; None when everything is covered.

        Args:
            position: where the trainer stands.
            most: how many offsets it may hold.
        """
        at = position.get(self.topic_name, {})
        waiting = [i for i, (partition, offset) in enumerate(self._arrived) if offset >= at.get(partition, 0)]
        if not waiting:
            return None
        taken = waiting[:most]
        pause = min((p for p in self._pauses if taken[0] < p <= taken[-1] + 1), default=None)
        if pause is not None:
            taken = [i for i in taken if i < pause]
        ends = {p: max(at.get(p, 0), self._starts[p]) for p in range(len(self._values))}
        for partition, offset in (self._arrived[i] for i in taken):
            ends[partition] = max(ends[partition], offset + 1)
        ranges = {self.topic_name: {p: (at.get(p, 0), end) for p, end in ends.items()}}
        return ranges, None if pause is None else self._pauses[pause]

    def _put(self, value: object, partition: int | None, key: str | None) -> None:
        if partition is None:
            number = len(self._arrived) if key is None else murmur2(key.encode()) & 0x7FFFFFFF
            partition = number % len(self._values)
        self._arrived.append((partition, len(self._values[partition])))
        self._values[partition].append(value)

    def _decoded(self, partition: int, start: int, following: int) -> pa.RecordBatch:
        values = self._values[partition][start:following]
        found = [(start + i, value) for i, value in enumerate(values) if value is not _GAP]
        columns = {
            "topic": pa.array([self.topic_name] * len(found), pa.string()),
            "partition": pa.array([partition] * len(found), pa.int32()),
            "offset": pa.array([offset for offset, _ in found], pa.int64()),
            "timestamp": pa.array([_FIRST_APPEND + timedelta(seconds=o) for o, _ in found], TIMESTAMP),
            "value": pa.array([value for _, value in found], pa.binary()),
        }
        return decode(self._contract, pa.RecordBatch.from_pydict(columns))


def _topic_id(name: str, nth: int) -> str:
    """The same in every process that writes the same script."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{name}/{nth}"))


def _holds(covered: Mapping[int, tuple[int, int]], place: tuple[int, int]) -> bool:
    partition, offset = place
    start, following = covered.get(partition, (0, 0))
    return start <= offset < following
