"""`Matching` inside `transformWithState`: the join keys of a bucket share its calls, its timers and its rows.

Spark pays about a millisecond for each group it hands to Python, whatever is in it; so a group is a bucket of many join
keys, whose events come in as one packed value and leave as one. Which keys share a bucket changes nothing of what is
joined. `BUCKETS` is fixed with the first batch of a checkpoint.
"""

import itertools
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import Row
from pyspark.sql.streaming.stateful_processor import StatefulProcessor

from stream_trainer.contract import Contract
from stream_trainer.joining.clock import CLOCK, slot_width
from stream_trainer.joining.join import Join
from stream_trainer.joining.matching import COUNTED, Emitted, KeyState, Matching, dump, load
from stream_trainer.joining.records import Event
from stream_trainer.joining.state import Agenda, Bucket, MapState

BUCKETS = 64
# A record may be a block of 100 predictions: about so many events are packed together, and so many taken together.
PACK_EVENTS = 10_000
PIECE_EVENTS = 2_000
PACKED = pa.schema([pa.field("bucket", pa.int64()), pa.field("packed", pa.binary())])
OUT = "packed binary"

_EVENTS = msgspec.msgpack.Decoder(list[Event])
_EMITTED = msgspec.msgpack.Decoder(list[Emitted])


def bucket_of(key: str) -> int:
    """The bucket that a join key belongs to, the same in every process."""
    return zlib.crc32(key.encode()) % BUCKETS


def pack(events: Iterable[Event]) -> Iterator[pa.RecordBatch]:
    """Events as rows of `PACKED`, of each `PACK_EVENTS` one a bucket: memory is bounded by them, not by a micro-batch."""
    left = iter(events)
    while piece := list(itertools.islice(left, PACK_EVENTS)):
        by_bucket: defaultdict[int, list[Event]] = defaultdict(list)
        for event in piece:
            by_bucket[bucket_of(event.key)].append(event)
        packed = [msgspec.msgpack.encode(found) for found in by_bucket.values()]
        columns = [pa.array(list(by_bucket), pa.int64()), pa.array(packed, pa.binary())]
        yield pa.RecordBatch.from_arrays(columns, schema=PACKED)


def unpack(packed: Iterable[bytes]) -> list[Emitted]:
    """What buckets gave out."""
    return [emitted for one in packed for emitted in _EMITTED.decode(one)]


class JoinBucket:
    """The join keys of one bucket against a state; no Spark. Returns what they emit, and at which instants to be woken.

    Keys are listed by the slot of append time that they are due in. Instants are of the time of day: one that comes
    before the log was read as far as its slot moves on, at no cost for the keys.
    """

    def __init__(self, matching: Matching, bucket: Bucket) -> None:
        self._matching = matching
        self._bucket = bucket
        self._width = slot_width(matching.horizon)

    def take(self, events: Iterable[Event], now: int) -> tuple[list[Emitted], list[int]]:
        """New records of the bucket's keys, in any order; `now` is the time of day in milliseconds."""
        by_key: defaultdict[str, list[Event]] = defaultdict(list)
        for event in events:
            by_key[event.key].append(event)
        keys = list(by_key)
        states = {key: load(stored) for key, stored in zip(keys, self._bucket.load(keys), strict=True)}
        emitted = [e for key, state in states.items() for e in self._matching.take(state, by_key[key])]
        added = self._keep(states)
        return _summed(emitted), self._wake(self._bucket.agenda(), added, now) if added else []

    def expire(self, timer: int, now: int, clock: int) -> tuple[list[Emitted], list[int]]:
        """The keys whose slot has passed by `clock`, see `Matching.expire`; a timer has woken the bucket."""
        agenda = self._bucket.agenda()
        before = {timer} if self._bucket.lists(timer) else set()  # a state of before there was an agenda
        slots = agenda.slots | before
        emitted: list[Emitted] = []
        added: set[int] = set()
        for slot in sorted(slot for slot in slots if slot <= clock):
            keys = self._bucket.due(slot)
            found = zip(keys, self._bucket.load(keys), strict=True)
            states = {key: load(stored) for key, stored in found if stored is not None}
            for state in states.values():
                if state.timer <= slot:
                    state.timer = 0
                emitted += self._matching.expire(state, clock)
            added.update(self._keep(states))
        left = frozenset(slot for slot in slots if slot > clock)
        to_come = frozenset(instant for instant in agenda.timers if instant > now)
        return _summed(emitted), self._wake(Agenda(left, to_come), added, now)

    def _keep(self, states: dict[str, KeyState]) -> list[int]:
        """Store them; the slots that are new."""
        due: defaultdict[int, list[str]] = defaultdict(list)
        for key, state in states.items():
            slot = -(-state.due // self._width) * self._width
            if slot and (not state.timer or slot < state.timer):
                state.timer = slot
                due[slot].append(key)
        return self._bucket.save({key: dump(state) for key, state in states.items()}, due)

    def _wake(self, agenda: Agenda, added: Iterable[int], now: int) -> list[int]:
        """Note slots, and see to it that each has a timer to come; those that are new."""
        slots = agenda.slots.union(added)
        wanted = {-(-max(slot + self._matching.patience, now + 1) // self._width) * self._width for slot in slots}
        self._bucket.intend(Agenda(slots, agenda.timers | wanted))
        return sorted(wanted - agenda.timers)


class JoinProcessor(StatefulProcessor):
    """`JoinBucket` as Spark calls it; at most one timer a slot."""

    def __init__(self, contract: Contract, join: Join) -> None:
        self._contract = contract
        self._join = join

    def init(self, handle: Any) -> None:
        """See `StatefulProcessor.init`."""
        self._handle = handle
        stored = MapState(handle.getMapState("bucket", "packed binary", "packed binary"))
        self._keys = JoinBucket(Matching(self._contract, self._join), Bucket(stored))

    def handleInputRows(self, key: Any, rows: Any, timerValues: Any) -> Iterator[Row]:  # noqa: ARG002, N802, N803
        """New records of a bucket."""
        now = timerValues.getCurrentProcessingTimeInMs()
        return itertools.chain.from_iterable([self._out(self._keys.take(piece, now)) for piece in _pieces(rows)])

    def handleExpiredTimer(self, key: Any, timerValues: Any, expiredTimerInfo: Any) -> Iterator[Row]:  # noqa: ARG002, N802, N803
        """A slot of a bucket may have passed."""
        now = timerValues.getCurrentProcessingTimeInMs()
        return self._out(self._keys.expire(expiredTimerInfo.getExpiryTimeInMs(), now, _clock()))

    def close(self) -> None:
        """See `StatefulProcessor.close`."""

    def _out(self, done: tuple[list[Emitted], list[int]]) -> Iterator[Row]:
        emitted, slots = done
        for slot in slots:
            self._handle.registerTimer(slot)
        return iter([Row(packed=msgspec.msgpack.encode(emitted))] if emitted else [])


def _clock() -> int:
    """What the driver has told this batch, see `clock`."""
    context = TaskContext.get()
    told = None if context is None else context.getLocalProperty(CLOCK)
    if told is None:
        raise RuntimeError(f"a batch of the joiner was not told {CLOCK}: nothing can be said to be over")
    return int(told)


def _pieces(rows: Iterable[Any]) -> Iterator[list[Event]]:
    """The events of packed rows, in few pieces that are not too long."""
    events: list[Event] = []
    for row in rows:
        events += _EVENTS.decode(row.packed)
        if len(events) >= PIECE_EVENTS:
            yield events
            events = []
    if events:
        yield events


def _summed(emitted: list[Emitted]) -> list[Emitted]:
    """What is only counted: a row a kind and slice of time, instead of one a prediction."""
    counts: Counter[tuple[str, int]] = Counter()
    for row in emitted:
        if row.kind in COUNTED:
            counts[row.kind, row.bucket] += row.amount
    changed = [Emitted(kind, amount=amount, bucket=bucket) for (kind, bucket), amount in counts.items() if amount]
    return [*(row for row in emitted if row.kind not in COUNTED), *changed]
