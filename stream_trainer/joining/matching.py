"""The state machine of one join key: events and timers in, examples and unmatched labels out. Pure.

What is joined depends on the log alone: a label and a prediction belong together when they were appended at most the
horizon apart. What is over is decided by the log as well: time is how far it has been read, see `clock`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import msgspec

from stream_trainer.contract import Contract
from stream_trainer.joining.join import Join, milliseconds
from stream_trainer.joining.records import (
    KEYLESS,
    LABEL,
    PREDICTION,
    UNREADABLE,
    Body,
    Event,
    example,
    instant,
    label_struct,
)
from stream_trainer.joining.weights import importance, sampled

Reason = Literal["late", "orphan", "duplicate", "unreadable"]

EXAMPLE, UNMATCHED, WAITING, SKIPPED, EXPIRED = "example", "unmatched", "waiting", "skipped", "expired"
JOINED, CORRECTED, LATE_TAUGHT, TIMEOUT = "joined", "corrected", "late_taught", "timeout"
REPEATED = "repeated"
COUNTED = frozenset((WAITING, SKIPPED, EXPIRED, REPEATED, KEYLESS))
OUTCOMES = (JOINED, CORRECTED, LATE_TAUGHT, TIMEOUT, EXPIRED, SKIPPED, REPEATED, KEYLESS, *get_args(Reason))
_BUCKETS = 60


class Emitted(NamedTuple):
    """What a key gives out.

    Attributes:
        kind: EXAMPLE, UNMATCHED; or what is only counted: SKIPPED (a false label that was sampled out), EXPIRED (a
            prediction whose horizon passed without a label), REPEATED (one whose id is there already), KEYLESS (one
            that no label can name), WAITING (how many predictions wait has changed).
        id: of an example its prediction id, `:`, and its label's position or "timeout"; of an unmatched label its position.
        key: the record's key.
        value: the record's value.
        amount: of an example the milliseconds between prediction and label, -1 for a timeout; of what is counted the change.
        bucket: of WAITING the beginning of the slice of append time that the prediction lies in, milliseconds.
        outcome: of an example JOINED, CORRECTED, LATE_TAUGHT or TIMEOUT; of an unmatched label its reason.
    """

    kind: str
    id: str = ""
    key: str = ""
    value: bytes = b""
    amount: int = 0
    bucket: int = 0
    outcome: str = ""


class Seen(msgspec.Struct, array_like=True, gc=False):
    """A prediction in state.

    Attributes:
        id: the prediction's.
        at: when it was appended.
        due: when its timer is due.
        body: a packed `Body`; empty once no example can come of it.
        over: whether its horizon has passed.
        assumed: whether the label of `on_timeout` was taught.
        labelled: whether a label has come.
        label: the newest that has.
    """

    id: str
    at: int
    due: int
    body: bytes
    over: bool = False
    assumed: bool = False
    labelled: bool = False
    label: Any = None


class Early(msgspec.Struct, array_like=True, gc=False):
    """A label whose prediction has not been seen."""

    position: str
    at: int
    due: int
    value: bytes


class KeyState(msgspec.Struct, array_like=True, gc=False):
    """All that is known of a key; `timer` is the slot that it is listed in, 0 for none."""

    seen: list[Seen] = []
    early: list[Early] = []
    timer: int = 0

    @property
    def due(self) -> int:
        """The next instant at which a timer has to be served, 0 for none."""
        return min([*(seen.due for seen in self.seen), *(label.due for label in self.early)], default=0)


_STATES = msgspec.msgpack.Decoder(KeyState)
_BODIES = msgspec.msgpack.Decoder(Body)
_UNREADABLE = msgspec.msgpack.Decoder(tuple[str, bytes])


def load(stored: bytes | None) -> KeyState:
    """A state from its bytes; None is the empty one."""
    return KeyState([], []) if stored is None else _STATES.decode(stored)


def dump(state: KeyState) -> bytes | None:
    """The bytes of a state, None when nothing is left of it."""
    return msgspec.msgpack.encode(state) if state.seen or state.early else None


def in_order(events: Iterable[Event]) -> list[Event]:
    """Predictions first, then by partition and offset: Spark hands the rows of a key over in any order."""

    def place(event: Event) -> tuple[int, str, int, int]:
        topic, partition, offset = event.position.rsplit("/", 2)
        return 0 if event.kind == PREDICTION else 1, topic, int(partition), int(offset)

    return sorted(events, key=place)


@dataclass(slots=True)
class Matching:
    """The rules of one pipeline. Each method changes the state it is given and returns what it emits."""

    contract: Contract
    join: Join
    horizon: int = field(init=False)
    kept: int = field(init=False)
    patience: int = field(init=False)
    _parse: Callable[[bytes], Any] = field(init=False)

    def __post_init__(self) -> None:
        lengths = self.join.horizon, self.join.kept, self.join.slack
        self.horizon, self.kept, self.patience = map(milliseconds, lengths)
        self._parse = msgspec.json.Decoder(label_struct(self.contract, self.join.on)).decode

    def take(self, state: KeyState, events: Iterable[Event]) -> list[Emitted]:
        """New records of the key, in any order."""
        out: list[Emitted] = []
        for event in in_order(events):
            match event.kind:
                case kind if kind == PREDICTION:
                    out += self._predicted(state, event)
                case kind if kind == LABEL:
                    label = Early(event.position, event.at, event.at + self.horizon + 1, event.payload)
                    out += self._labelled(state, label)
                case kind if kind == KEYLESS:
                    out.append(Emitted(KEYLESS, amount=1))
                case _:
                    reason, value = _UNREADABLE.decode(event.payload)
                    out.append(unmatched(event.key, event.position, event.at, UNREADABLE, value, detail=reason))
        return out

    def expire(self, state: KeyState, clock: int) -> list[Emitted]:
        """Whatever is due: predictions without a label, what is to be forgotten, labels nobody was waiting for.

        Args:
            state: of the key.
            clock: all that was appended before has been taken, milliseconds; never the time of day, which runs on
                while nobody reads.
        """
        out: list[Emitted] = []
        ended = [seen for seen in state.seen if seen.due <= clock and not seen.over]
        for seen in ended:
            out += self._end(seen)
            seen.due += self.kept
        if ended:
            out += self._again(state)
        state.seen = [seen for seen in state.seen if not (seen.over and seen.due <= clock)]
        for label in [label for label in state.early if label.due <= clock]:
            state.early.remove(label)
            out.append(self._unmatched(label, "orphan"))
        return out

    def _predicted(self, state: KeyState, event: Event) -> list[Emitted]:
        body = _BODIES.decode(event.payload)
        if any(seen.id == body.prediction_id for seen in state.seen):
            return [Emitted(REPEATED, amount=1)]
        seen = Seen(body.prediction_id, event.at, event.at + self.horizon + 1, event.payload)
        state.seen.append(seen)
        return [self._waiting(seen, 1), *self._again(state)]

    def _again(self, state: KeyState) -> list[Emitted]:
        """The labels that have waited, now that the predictions have changed."""
        early, state.early = state.early, []
        return [emitted for label in early for emitted in self._labelled(state, label)]

    def _labelled(self, state: KeyState, label: Early) -> list[Emitted]:
        near = [seen for seen in state.seen if abs(label.at - seen.at) <= self.horizon]
        if near:
            return self._join(_choose(near, label.at), label)
        past = [seen for seen in state.seen if self.horizon < label.at - seen.at <= self.horizon + self.kept]
        newest = max(past, key=_newest, default=None)
        if newest is None or (self.join.late_share is not None and not newest.over):
            state.early.append(
                label
            )  # of the second kind: whether it is taught depends on what the horizon's end taught
            return []
        return self._late(newest, label)

    def _join(self, seen: Seen, label: Early) -> list[Emitted]:
        if seen.over:
            return self._late(seen, label)  # the clock was wrong: see `Join.patience`
        value = self._parse(label.value).label
        if seen.labelled and seen.label == value:
            return [self._unmatched(label, "duplicate")]
        out, outcome = ([], CORRECTED) if seen.labelled else ([self._waiting(seen, -1)], JOINED)
        seen.labelled, seen.label = True, value
        return [*out, *self._teach(seen, label, value, outcome)]

    def _late(self, seen: Seen, label: Early) -> list[Emitted]:
        value = self._parse(label.value).label
        if seen.labelled and seen.label == value:
            return [self._unmatched(label, "duplicate")]
        if self.join.late_share is not None and seen.assumed and value and seen.body:
            seen.labelled, seen.label = True, value
            return self._teach(seen, label, value, LATE_TAUGHT)
        return [self._unmatched(label, "late")]

    def _end(self, seen: Seen) -> list[Emitted]:
        """The horizon of a prediction has passed."""
        seen.over = True
        out: list[Emitted] = []
        if not seen.labelled:
            out += [self._waiting(seen, -1), Emitted(EXPIRED, amount=1)]
            if self.join.on_timeout is not None:
                seen.assumed = True
                out += self._teach(seen, None, self.join.on_timeout, TIMEOUT)
        if not (seen.assumed and self.join.late_share is not None):
            seen.body = b""
        return out

    def _teach(self, seen: Seen, label: Early | None, value: Any, outcome: str) -> list[Emitted]:
        body = _BODIES.decode(seen.body)
        if value in (False, 0) and not sampled(seen.id, self.join.negative_rate):
            return [Emitted(SKIPPED, amount=1)]
        example_id = f"{seen.id}:{TIMEOUT if label is None else label.position}"
        time = None
        if label is not None:
            time = self._parse(label.value).time
            time = instant(label.at) if time is None else time
        weight, rate = self._weight(body, value), self.join.negative_rate
        record = example(
            self.contract,
            body,
            value,
            example_id=example_id,
            label_time=time,
            weight=weight,
            rate=rate if rate < 1 else None,
        )
        key = str(body.values[-2])
        delay = -1 if label is None else max(0, label.at - seen.at)
        return [Emitted(EXAMPLE, example_id, key, record, amount=delay, outcome=outcome)]

    def _weight(self, body: Body, value: Any) -> float | None:
        if self.join.late_share is None:
            return None
        probability = float(body.output) if isinstance(body.output, int | float) else 0.0
        return importance(bool(value), probability, self.join.late_share)

    def _waiting(self, seen: Seen, change: int) -> Emitted:
        slice_ = max(1, self.horizon // _BUCKETS)
        return Emitted(WAITING, amount=change, bucket=seen.at - seen.at % slice_)

    def _unmatched(self, label: Early, reason: Reason) -> Emitted:
        parsed = self._parse(label.value)
        key = parsed.prediction_id if self.join.on == "prediction_id" else parsed.key
        return unmatched(str(key), label.position, label.at, reason, label.value)


def _newest(seen: Seen) -> tuple[int, str]:
    return seen.at, seen.id


def _choose(near: list[Seen], at: int) -> Seen:
    """The newest prediction that was there when the label came; else the first that followed."""
    before = [seen for seen in near if seen.at <= at]
    return max(before, key=_newest) if before else min(near, key=_newest)


def unmatched(key: str, position: str, at: int, reason: str, value: bytes, detail: str | None = None) -> Emitted:
    """The record of `P.unmatched` of what teaches nothing."""
    topic, partition, offset = position.rsplit("/", 2)
    record = {
        "topic": topic,
        "partition": int(partition),
        "offset": int(offset),
        "reason": reason,
        "appended_at": instant(at),
        "value": value.decode(errors="replace"),
        **({} if detail is None else {"detail": detail}),
    }
    return Emitted(UNMATCHED, position, key, msgspec.json.encode(record), outcome=reason)
