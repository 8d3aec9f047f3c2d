"""The joiner without Kafka and Spark: a log, a checkpoint that keeps its past, output topics and a clock.

What Spark and Kafka do is played here: batches planned and committed, timers, one transaction a batch. What the joiner
does is the joiner's own code.
"""

import bisect
import json
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from stream_trainer.joining.clock import LogClock, read_until, slot_width
from stream_trainer.joining.commits import Written, after, plan, told
from stream_trainer.joining.join import milliseconds
from stream_trainer.joining.known import Known
from stream_trainer.joining.matching import EXAMPLE, Emitted, Matching
from stream_trainer.joining.processor import JoinBucket
from stream_trainer.joining.records import Event
from stream_trainer.joining.recovery import Marker, Place, earliest, furthest, recover, waiting_at
from stream_trainer.joining.state import Bucket
from stream_trainer.offsets import Offsets
from tests.joining.test_processor import Kept

PREDICTIONS, LABELS, OUT = "p.predictions", "p.labels", "out"
Ends = Literal["well", "before the commit", "after the commit", "after the commit, and its plan is lost"]


@dataclass
class Batch:
    """A planned batch, and the state that it was begun with."""

    ends: Offsets
    at: int
    state: dict[bytes, bytes]
    timers: set[int]


@dataclass
class Spark:
    """A checkpoint: its batches, how many of them are committed, and the state after the last of these."""

    name: str
    start: Offsets
    batches: list[Batch] = field(default_factory=list)
    committed: int = 0
    state: dict[bytes, bytes] = field(default_factory=dict)
    timers: set[int] = field(default_factory=set)

    def place(self) -> Place:
        before = self.batches[self.committed - 1].at if self.committed else 0
        return Place(query_id=self.name, batch_id=self.committed, at=before)

    def roll_back(self, batches: int) -> None:
        """An older copy: so many batches are gone."""
        self.committed = max(0, self.committed - batches)
        del self.batches[self.committed + 1 :]
        if len(self.batches) > self.committed:
            begun = self.batches.pop()
            self.state, self.timers = dict(begun.state), set(begun.timers)


@dataclass
class World:
    """A log, a joiner and what it has written; time is `now`, in milliseconds."""

    rules: Matching
    now: int = 10_000
    log: dict[str, list[Event]] = field(default_factory=lambda: {PREDICTIONS: [], LABELS: []})
    out: list[tuple[str, int]] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    marker: Marker | None = None
    markers: list[Marker] = field(default_factory=list)
    queries: int = 0
    reread: int = 0
    spark: Spark | None = None
    copy: Spark | None = None
    _written: Written | None = None
    _clock: LogClock | None = None

    @property
    def ids(self) -> list[str]:
        return [name for name, _ in self.out]

    def append(self, event: Event) -> None:
        self.log[event.position.split("/")[0]].append(event)

    def batch(self, records: int, ending: Ends = "well") -> None:
        """Plan and run one of at most so many records a topic; the joiner is dead after it unless it ends well."""
        if self._written is None:
            self._start()
        assert self.spark is not None
        assert self._clock is not None
        assert self._written is not None
        planned = self._planned(self.spark, records)
        clock = self._clock.at(planned.ends, planned.at)
        number = self.spark.committed
        state = Kept()
        state.values = dict(planned.state)
        settled = self._clock.settled
        emitted, timers = self._run(self.spark, planned, state, clock)
        todo = plan(self._marker(planned, number, settled), emitted, self._written, {OUT: {0: len(self.out)}})
        if ending == "before the commit":
            self._written = None
            return
        self.out += [(row.id, self.now) for row in todo.rows]
        self.values |= {row.id: _what(row) for row in todo.rows}
        if todo.marker is not None:
            self.marker = todo.marker
            self.markers.append(todo.marker)
        self._written = after(self._written, todo)
        if ending == "well":
            self.spark.state, self.spark.timers, self.spark.committed = state.values, timers, number + 1
            return
        self._written = None
        if ending == "after the commit, and its plan is lost":
            self.spark.batches.pop()

    def stop(self) -> None:
        """Between two batches; whether by a signal or a kill makes no difference there."""
        self._written = None

    def lose(self) -> None:
        """The checkpoint is gone."""
        self.stop()
        self.spark = None

    def roll_back(self, batches: int) -> None:
        """The checkpoint is that of so many batches ago."""
        self.stop()
        if self.spark is not None:
            self.spark.roll_back(batches)

    def keep(self) -> None:
        """A copy of the checkpoint."""
        self.copy = deepcopy(self.spark)

    def restore(self) -> None:
        """The copy takes the place of the checkpoint, whatever became of that."""
        if self.copy is not None:
            self.stop()
            self.spark = deepcopy(self.copy)

    @property
    def known(self) -> int:
        return 0 if self._written is None else len(self._written.known)

    @property
    def waiting(self) -> int:
        assert self.marker is not None
        return sum(self.marker.waiting.values())

    def _ends(self) -> Offsets:
        return {topic: {0: len(events)} for topic, events in self.log.items()}

    def _start(self) -> None:
        place = Place(query_id="", batch_id=0) if self.spark is None else self.spark.place()
        self._written, start = Written(), {PREDICTIONS: {0: 0}, LABELS: {0: 0}}
        if self.marker is not None:
            recovery = recover(self.marker, place, milliseconds(self.rules.join.span))
            marker = recovery.marker
            if recovery.since is not None:
                at = bisect.bisect_left([when for _, when in self.out], recovery.since)
                since = earliest({OUT: {0: at}}, marker.compare_from)
                marker = msgspec.structs.replace(marker, compare_from=since)
            if recovery.rolled_back:
                marker = msgspec.structs.replace(marker, waiting=waiting_at(self.markers, place))
            ids = self.ids[marker.compare_from[OUT][0] :] if marker.compare_to else []
            self.reread = len(ids)
            known = Known.of(name for one in ids for name in told(one))
            self._written = Written(marker=marker, known=known, settle=milliseconds(self.rules.join.settle))
            if recovery.inputs is not None:
                start = earliest(self._inputs_at(recovery.inputs), self.marker.next_offsets)
        if self.spark is None:
            self.queries += 1
            self.spark = Spark(f"q{self.queries}", start)
        self._clock = LogClock(
            self._look,
            width=slot_width(self.rules.horizon),
            settle=milliseconds(self.rules.join.firing),
            settled=0 if self.marker is None else max(0, self.marker.settled),
        )

    def _inputs_at(self, milliseconds: int) -> Offsets:
        return {
            topic: {0: bisect.bisect_left([event.at for event in events], milliseconds)}
            for topic, events in self.log.items()
        }

    def _look(self, read: Offsets, now: int) -> int:
        def unread(places: Offsets) -> dict[tuple[str, int], int]:
            return {(topic, 0): self.log[topic][offsets[0]].at for topic, offsets in places.items()}

        return read_until(read, self._ends(), unread, now - self.rules.patience)

    def _planned(self, spark: Spark, records: int) -> Batch:
        if len(spark.batches) > spark.committed:
            return spark.batches[spark.committed]
        begun = spark.batches[-1].ends if spark.batches else spark.start
        ends = {topic: {0: min(begun[topic][0] + records, end[0])} for topic, end in self._ends().items()}
        spark.batches.append(Batch(ends, self.now, deepcopy(spark.state), set(spark.timers)))
        return spark.batches[-1]

    def _run(self, spark: Spark, batch: Batch, state: Kept, clock: int) -> tuple[list[Emitted], set[int]]:
        number = spark.committed
        begun = spark.batches[number - 1].ends if number else spark.start
        events = [e for topic in self.log for e in self.log[topic][begun[topic][0] : batch.ends[topic][0]]]
        bucket = JoinBucket(self.rules, Bucket(state))
        emitted, slots = bucket.take(events, batch.at) if events else ([], [])
        timers = {*batch.timers, *slots}
        for timer in sorted(timer for timer in timers if timer <= batch.at):
            timers.discard(timer)
            more, slots = bucket.expire(timer, batch.at, clock)
            assert all(slot > batch.at for slot in slots)
            emitted, timers = emitted + more, timers.union(slots)
        return emitted, timers

    def _marker(self, batch: Batch, number: int, settled: int) -> Marker:
        assert self.spark is not None
        return Marker(
            query_id=self.spark.name,
            batch_id=number,
            next_offsets=furthest(batch.ends, {}),
            digest="",
            at=batch.at,
            compare_from={},
            settled=settled,
        )


def _what(row: Emitted) -> Any:
    record = json.loads(row.value)
    return record["y"] if row.kind == EXAMPLE else record["reason"]
