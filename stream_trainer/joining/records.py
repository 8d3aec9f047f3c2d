"""Records of `P.predictions` and `P.labels` to events by join key. Total: bad data becomes an event of its own.

A prediction is kept as the values that the model saw, in the contract's order, packed: names would be half of a state.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from stream_trainer import prediction_blocks
from stream_trainer.contract import RESERVED_FIELDS, Contract
from stream_trainer.decode import MAX_JSON_BYTES, reason_of
from stream_trainer.errors import Poison
from stream_trainer.joining.join import Join, On
from stream_trainer.schema import Instant, KeyText, key_text, label_type

PREDICTION, LABEL, UNREADABLE, KEYLESS = "prediction", "label", "unreadable", "keyless"
SHADOW = "challenger"


class Event(NamedTuple):
    """One record as the matching takes it.

    Attributes:
        key: what predictions and labels are joined by.
        kind: PREDICTION, LABEL, UNREADABLE or KEYLESS (a prediction that no label can name: it is only counted).
        at: when Kafka appended it, milliseconds since 1970.
        position: `topic/partition/offset`.
        payload: a packed `Body`; the record's value for labels; the reason for what cannot be read.
    """

    key: str
    kind: str
    at: int
    position: str
    payload: bytes


class Body(msgspec.Struct, array_like=True, gc=False):
    """A prediction as state keeps it; `values` are features, plain segments, key and event time, as example fields."""

    prediction_id: str
    model_version: int | None
    output: Any
    values: list[Any]


class _Prediction(msgspec.Struct, gc=False):
    prediction_id: str
    requested_at: str
    features: dict[str, Any]
    segments: dict[str, Any]
    role: str
    output: Any = None
    model_version: int | None = None
    key: str | None = None
    event_time: str | None = None


class Label(msgspec.Struct, gc=False):
    """A parsed record of `P.labels`: of its two names for a prediction the one that the pipeline joins on is set."""

    label: Any
    prediction_id: str | None = None
    key: Any = None
    time: datetime | float | None = None


@lru_cache(maxsize=16)
def label_struct(contract: Contract, on: On) -> type[msgspec.Struct]:
    """What one label looks like: `{"prediction_id" | "<key>": …, "label": …, "time"?: …}`; attributes as `Label`."""
    named: Any = ("prediction_id", _Id) if on == "prediction_id" else ("key", KeyText)
    fields: list[Any] = [named, ("label", label_type(contract.label)), ("time", Instant | None, None)]
    return msgspec.defstruct("Label", fields, rename={"key": contract.key}, kw_only=True, gc=False)


def label_key(parsed: Any, on: On) -> str:
    """The join key that a parsed label names."""
    return str(parsed.prediction_id if on == "prediction_id" else key_text(parsed.key))


def body_fields(contract: Contract) -> tuple[str, ...]:
    """The fields of an example that `Body.values` hold, in order."""
    return (*(f.name for f in contract.features), *contract.extra_segments, contract.key, contract.event_time)


def events(contract: Contract, join: Join, labels_topic: str, batch: pa.RecordBatch) -> Iterator[Event]:
    """The events of one Arrow batch of Kafka records (`topic, partition, offset, timestamp, value`)."""
    names = ("topic", "partition", "offset", "value")
    times = pc.cast(pc.cast(batch.column("timestamp"), pa.timestamp("ms", tz="UTC"), safe=False), pa.int64())
    columns = [times.to_pylist(), *(batch.column(name).to_pylist() for name in names)]
    read = _Reader(contract, join)
    for at, topic, partition, offset, value in zip(*columns, strict=True):
        position = f"{topic}/{partition}/{offset}"
        yield from (read.label if topic == labels_topic else read.predictions)(at, position, value)


class _Reader:
    def __init__(self, contract: Contract, join: Join) -> None:
        self._contract = contract
        self._on = join.on
        self._features = [f.name for f in contract.features]
        self._predictions = msgspec.json.Decoder(_Prediction)
        self._labels = msgspec.json.Decoder(label_struct(contract, join.on))

    def predictions(self, at: int, position: str, value: bytes | None) -> Iterator[Event]:
        """The predictions of one record of `P.predictions`, one a row; a block is read as a whole or not at all."""
        try:
            if value is None:
                raise Poison("null_value: the record has no value (a tombstone)")
            parsed = [self._predictions.decode(record) for record in prediction_blocks.records(value)]
            found = [self._prediction(at, position, row) for row in parsed if row.role != SHADOW]
        except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError, Poison) as error:
            yield _unreadable(at, position, error, value)
            return
        yield from found

    def _prediction(self, at: int, position: str, row: _Prediction) -> Event:
        key = row.prediction_id if self._on == "prediction_id" else row.key
        if key is None:
            return Event("", KEYLESS, at, position, b"")
        return Event(key, PREDICTION, at, position, msgspec.msgpack.encode(self._body(row)))

    def _body(self, parsed: _Prediction) -> Body:
        values = [parsed.features.get(name) for name in self._features]
        values += [parsed.segments.get(name) for name in self._contract.extra_segments]
        values += [parsed.key or parsed.prediction_id, parsed.event_time or parsed.requested_at]
        return Body(parsed.prediction_id, parsed.model_version, parsed.output, values)

    def label(self, at: int, position: str, value: bytes | None) -> Iterator[Event]:
        """The label of one record of `P.labels`."""
        try:
            if value is None:
                raise Poison("null_value: the record has no value (a tombstone)")
            if len(value) > MAX_JSON_BYTES:
                raise Poison(f"too_large: {len(value)} bytes, at most {MAX_JSON_BYTES} are read")
            key = label_key(self._labels.decode(value), self._on)
        except (msgspec.MsgspecError, ValueError, RecursionError, Poison) as error:
            yield _unreadable(at, position, error, value)
            return
        yield Event(key, LABEL, at, position, value)


def _unreadable(at: int, position: str, error: Exception, value: bytes | None) -> Event:
    packed = msgspec.msgpack.encode((reason_of(error), (value or b"")[:MAX_JSON_BYTES]))
    return Event(position, UNREADABLE, at, position, packed)


_Id = KeyText


def example(
    contract: Contract,
    body: Body,
    label: Any,
    *,
    example_id: str,
    label_time: Any,
    weight: float | None,
    rate: float | None = None,
) -> bytes:
    """The record of `P.examples`: what the model saw, its label, and the reserved fields; `rate` where false labels are sampled."""
    reserved = (example_id, body.prediction_id, body.model_version, body.output, weight, label_time, rate)
    named = {name: value for name, value in zip(RESERVED_FIELDS, reserved, strict=True) if value is not None}
    fields = dict(zip(body_fields(contract), body.values, strict=True))
    return msgspec.json.encode({**fields, contract.label.name: label, **named})


def instant(milliseconds: int) -> datetime:
    """An append time as an instant."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
