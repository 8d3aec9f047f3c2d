"""Records of `P.predictions` to rows: single ones and blocks, whatever their values are. Total: a bad one has a reason.

A value that is missing or far out is to be seen, not skipped; so numbers and texts are taken without the contract's bounds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any, NamedTuple

import msgspec
import pyarrow as pa
from msgspec import Meta

from stream_trainer import prediction_blocks
from stream_trainer.contract import FLOAT32_MAX, Categorical, Contract, Feature, Numeric
from stream_trainer.decode import MAX_AHEAD, reason_of
from stream_trainer.errors import Poison
from stream_trainer.reference import OUTPUT
from stream_trainer.reference.pseudo import outputs_type
from stream_trainer.schema import Instant, as_datetime, struct_type, to_columns

MAX_RECORD_BYTES = 2**20
SHADOW = "shadow"
_Version = Annotated[int, Meta(ge=1, lt=2**53)]
_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Of event times, in microseconds since 1970: a window that holds one begins within the calendar.
EARLIEST = (datetime(1900, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """One record of `P.predictions`, as far as the monitor needs it; a null version means none was served yet."""

    prediction_id: str
    requested_at: Instant
    features: msgspec.Raw
    event_time: Instant | None = None
    output: Any = None
    segments: dict[str, str | None] = {}
    model_version: _Version | None = None
    role: str = "champion"


@dataclass(frozen=True, slots=True)
class Kafka:
    """One Kafka record: where it stands, when it was appended, and its value."""

    topic: str
    partition: int
    offset: int
    appended: datetime
    value: bytes | None


class Skip(NamedTuple):
    """One record, or one row of a block, that was not looked at."""

    where: Kafka
    reason: str


@dataclass(frozen=True, slots=True)
class Asked:
    """One prediction that can be counted.

    `at` is its event time, else the time of the request, in microseconds since 1970: no later than when Kafka got it.
    """

    where: Kafka
    at: int
    prediction: Prediction
    features: Any


def asked(contract: Contract, records: Sequence[Kafka], skipped: list[Skip]) -> Iterator[Asked]:
    """The rows that can be counted; others go to `skipped`."""
    for where in records:
        for value in _rows(where, skipped):
            try:
                yield _parse(contract, where, value)
            except _UNREADABLE as error:
                skipped.append(Skip(where, _code(error)))


def columns(contract: Contract, rows: Sequence[Asked]) -> dict[str, pa.Array]:
    """Features, plain segments and `_output`."""
    found = to_columns(_lenient(contract), "request", [row.features for row in rows])
    kept = {f.name: found[f.name] for f in contract.features}
    for segment in contract.extra_segments:
        kept[segment] = pa.array([row.prediction.segments.get(segment) for row in rows], pa.string())
    outputs = [_output(contract, row.prediction.output) for row in rows]
    return kept | {OUTPUT: pa.array(outputs, outputs_type())}


_decoder = msgspec.json.Decoder(Prediction)
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError, OverflowError, Poison)


def micros(instant: datetime) -> int:
    """Microseconds since 1970."""
    return (instant - _EPOCH) // _MICROSECOND


def _code(error: Exception) -> str:
    return reason_of(error).partition(":")[0]


def _rows(where: Kafka, skipped: list[Skip]) -> Sequence[bytes | None]:
    """The rows of a block; a record of one row, whatever it is, as it stands."""
    value = where.value
    if value is None or len(value) > MAX_RECORD_BYTES:
        return (value,)
    try:
        return prediction_blocks.records(value)
    except _UNREADABLE as error:
        skipped.append(Skip(where, _code(error)))
        return ()


def _parse(contract: Contract, where: Kafka, value: bytes | None) -> Asked:
    if value is None:
        raise Poison("null_value: the record has no value")
    if len(value) > MAX_RECORD_BYTES:
        raise Poison(f"too_large: {len(value)} bytes")
    record = _decoder.decode(value)
    if record.role == "challenger":
        raise Poison(f"{SHADOW}: a challenger's word on a request that is counted with who answered it")
    at = micros(as_datetime(record.requested_at if record.event_time is None else record.event_time))
    appended = micros(where.appended)
    if at - appended > MAX_AHEAD // _MICROSECOND:
        raise Poison(f"out_of_range: the event time lies more than {MAX_AHEAD} after the record was appended")
    if at < EARLIEST:
        raise Poison("out_of_range: the event time lies before the year 1900")
    return Asked(where, min(at, appended), record, _features_decoder(contract).decode(record.features))


@lru_cache(maxsize=16)
def _features_decoder(contract: Contract) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(struct_type(_lenient(contract), "request"))


@lru_cache(maxsize=16)
def _lenient(contract: Contract) -> Contract:
    def loosened(feature: Feature) -> Feature:
        match feature:
            case Numeric(name=name):
                return Numeric(name, optional=True)
            case Categorical():
                return replace(feature, optional=True)
            case _:
                return feature

    return replace(contract, features=tuple(loosened(f) for f in contract.features))


def _output(contract: Contract, said: Any) -> list[float] | None:
    """What was answered; None where it makes no sense for the contract's label."""
    values = said if isinstance(said, list) else [said]
    numbers = [float(v) for v in values if isinstance(v, int | float) and abs(v) <= FLOAT32_MAX]
    whole = len(numbers) == len(values) == contract.label.outputs
    return numbers if whole else None
