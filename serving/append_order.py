"""Rows of several partitions in one order that every replica finds: append time, partition, offset, row.

Within a partition the order is that of the log; a time that runs backwards there counts as the latest one before it. A
row is given out only when no earlier one can appear any more: once it is older than `settle_seconds`, which must cover
how far clocks differ and how long a transaction keeps records from being seen. Who comes later than that comes next.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from serving.examples_log import Bounds
from stream_trainer.offsets import Ranges
from stream_trainer.schema import TIMESTAMP

SETTLE_SECONDS = 10.0
CHUNK = 256
_READS = 16
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONG_AGO = np.iinfo(np.int64).min

Keys = NDArray[np.int64]
Read = Callable[[Ranges], pa.Table]


@dataclass(slots=True)
class _Partition:
    """What was read of one partition and not given out yet.

    Attributes:
        at: the next offset to read.
        end: up to where there is something to read.
        latest: the largest append time read, in microseconds.
        rows: good rows in the order of the log.
        keys: int64 `[rows]`: their append times, never falling.
    """

    at: int
    end: int
    latest: int
    rows: pa.Table | None
    keys: Keys

    @property
    def finished(self) -> bool:
        return self.at >= self.end

    def keep(self, rows: pa.Table, end: int) -> None:
        ordered = rows.sort_by([("_offset", "ascending"), ("_row", "ascending")])
        times = ordered.column("_append_time").cast(TIMESTAMP).cast(pa.int64()).to_numpy()
        keys = np.maximum.accumulate(np.concatenate([np.array([self.latest], dtype=np.int64), times]))
        good = pc.is_null(ordered.column("_reason"))
        kept = ordered.filter(good)
        self.rows = kept if self.rows is None else pa.concat_tables([self.rows, kept])
        self.keys = np.concatenate([self.keys, keys[1:][good.to_numpy()]])
        self.latest = int(keys[-1])
        self.at = end

    def drop(self, count: int) -> None:
        if self.rows is not None and count:
            self.rows = self.rows.slice(count).combine_chunks()
            self.keys = self.keys[count:]


class AppendOrder:
    """A walk through a topic from given offsets on. Keeps at most some chunks of a few hundred records a partition."""

    def __init__(self, topic: str, begins: Mapping[int, int], *, settle_seconds: float = SETTLE_SECONDS) -> None:
        self._topic = topic
        self._begins = dict(begins)
        self._settle = timedelta(seconds=settle_seconds)
        self._horizon = _LONG_AGO
        self._partitions: dict[int, _Partition] = {}

    def extend(self, bounds: Bounds) -> None:
        """Learn how far the log reaches now. A partition that was not named begins where the log has it begin."""
        self._horizon = (bounds.at - self._settle - _EPOCH) // timedelta(microseconds=1)
        for number, (start, end) in bounds.partitions.items():
            known = self._partitions.get(number)
            if known is not None:
                known.end = max(known.end, end)
                continue
            begin = max(start, self._begins.get(number, 0))
            self._partitions[number] = _Partition(begin, end, _LONG_AGO, None, np.empty(0, dtype=np.int64))

    def take(self, most: int, read: Read) -> pa.Table | None:
        """The next rows, at most so many; None when none has settled, or a few reads have not led to one.

        Args:
            most: how many.
            read: gives the decoded records of ranges; what it raises leaves everything as it was.
        """
        for _ in range(_READS):
            ready = self._ready()
            if sum(ready.values()) >= most or not self._read_on(read):
                break
        return self._give(self._ready(), most)

    def _read_on(self, read: Read) -> bool:
        """Read where the order stands still; False when the end is reached everywhere, or nothing more can settle."""
        waiting = [(p.latest, n) for n, p in self._partitions.items() if not p.finished]
        if not waiting or min(waiting)[0] >= self._horizon:
            return False
        number = min(waiting)[1]
        partition = self._partitions[number]
        end = min(partition.at + CHUNK, partition.end)
        partition.keep(read({self._topic: {number: (partition.at, end)}}), end)
        return True

    def _ready(self) -> dict[int, int]:
        """How many rows of each partition nothing can precede any more."""
        last, holder = min(
            ((p.latest, n) for n, p in self._partitions.items() if not p.finished), default=(self._horizon, -1)
        )
        found = {}
        for number, partition in self._partitions.items():
            limit = min(last + 1 if number <= holder else last, self._horizon)
            found[number] = int(np.searchsorted(partition.keys, limit, side="left"))
        return found

    def _give(self, ready: Mapping[int, int], most: int) -> pa.Table | None:
        numbers = [n for n in sorted(ready) if ready[n]]
        if not numbers:
            return None
        keys = np.concatenate([self._partitions[n].keys[: ready[n]] for n in numbers])
        owners = np.repeat(numbers, [ready[n] for n in numbers])
        # Stable: within an append time the partitions stay ascending, and each in the order of its log.
        order = np.argsort(keys, kind="stable")[:most]
        tables = [self._partitions[n].rows.slice(0, ready[n]) for n in numbers]  # type: ignore[union-attr]
        given = pa.concat_tables(tables).take(pa.array(order)).combine_chunks()
        for number in numbers:
            self._partitions[number].drop(int(np.count_nonzero(owners[order] == number)))
        return given

    @property
    def waiting(self) -> int:
        """How many offsets that exist have not been read yet."""
        return sum(max(0, p.end - p.at) for p in self._partitions.values())


def begins(positions: Iterable[tuple[str | None, Mapping[int, int]]], topic_id: str) -> dict[int, int]:
    """The elementwise maximum of what versions have learned up to, so that none of them has learned from a later row.

    Args:
        positions: per version, the id that the topic had and the next offset of each partition.
        topic_id: the topic's id now; offsets in another topic of that name say nothing.
    """
    found: dict[int, int] = {}
    for known_id, partitions in positions:
        for partition, following in partitions.items() if known_id in (None, topic_id) else ():
            found[partition] = max(found.get(partition, 0), following)
    return found
