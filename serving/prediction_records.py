"""Answered rows as records of `P.predictions`: one a row, or one block for many; see `docs/schemas/`.

Features are written as they were parsed, so training can be shown exactly what serving saw.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET

from serving.rows import Matrix, Rows, listed
from stream_trainer.contract import Categorical, Contract, Feature, Numeric, Vector
from stream_trainer.schema import as_datetime, field_names, key_text, numbers, vectors

Role = Literal["champion", "challenger", "canary"]

# Fewer rows are a record each: they lie in the partition of their own id, and to find one is to read one.
BLOCK_ROWS = 9
# Kafka takes 1 MB by default; a record's headers and the batch around it are not counted here.
_MOST_BYTES = 512 * 1024
_MOST_ROWS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One request's rows, parsed, and what a version said; version and outputs None when there was none."""

    ids: Sequence[str]
    requested_at: datetime
    rows: Rows
    outputs: Sequence[Any] | None
    model_version: int | None
    role: Role = "champion"


class _Record(msgspec.Struct, gc=False):
    prediction_id: str
    requested_at: datetime
    segments: msgspec.Struct
    features: msgspec.Struct
    output: Any
    model_version: int | None
    role: str
    key: Any = UNSET
    event_time: Any = UNSET


class _Packed(msgspec.Struct, gc=False, omit_defaults=True):
    """A column of numbers as base64: JSON's digits cost three times the time, and twice the bytes."""

    float64: memoryview
    size: int | None = None


class _Block(msgspec.Struct, gc=False):
    """See `stream_trainer.prediction_blocks`; `rows` is the first field, by which a block is known."""

    rows: int
    requested_at: datetime
    model_version: int | None
    role: str
    prediction_id: Sequence[str]
    output: Sequence[Any]
    segments: msgspec.Struct
    features: msgspec.Struct
    key: Any = UNSET
    event_time: Any = UNSET


class Message(NamedTuple):
    """A record to be produced, and how many rows it holds."""

    key: bytes
    value: bytes
    rows: int


class RecordEncoder:
    """Encodes the rows of one contract; not safe to call from several threads."""

    def __init__(self, contract: Contract, *, most_bytes: int = _MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        names = field_names(contract, "request")
        features = [f.name for f in contract.features]
        self._packs = [_pack(feature) for feature in contract.features]
        self._width = len(features)
        self._features = _struct("Features", features)
        self._segments = _struct("Segments", contract.segments)
        self._segment_at = [names.index(name) for name in contract.segments]
        self._key_at = names.index(contract.key)
        self._time_at = names.index(contract.event_time)
        self._encode = msgspec.json.Encoder().encode

    def messages(self, answered: Answered) -> Iterator[Message]:
        """The records of a request: one for each row, or blocks of up to 100 rows when there are many."""
        if len(answered.ids) < BLOCK_ROWS:
            yield from self._records(answered)
            return
        for start in range(0, len(answered.ids), _MOST_ROWS):
            yield from self._blocks(_part(answered, start, start + _MOST_ROWS))

    def _blocks(self, answered: Answered) -> Iterator[Message]:
        rows = len(answered.ids)
        columns = answered.rows.columns
        keys, times = listed(columns[self._key_at]), listed(columns[self._time_at])
        block = _Block(
            rows,
            answered.requested_at,
            answered.model_version,
            answered.role,
            answered.ids,
            [None] * rows if answered.outputs is None else answered.outputs,
            self._segments(*[listed(columns[i]) for i in self._segment_at]),
            self._features(*[pack(column) for pack, column in zip(self._packs, columns, strict=False)]),
            UNSET if all(key is None for key in keys) else [key_text(key) for key in keys],
            UNSET
            if all(time is None for time in times)
            else [None if time is None else as_datetime(time) for time in times],
        )
        value = self._encode(block)
        if len(value) > self._most_bytes and rows > 1:
            yield from self._blocks(_part(answered, 0, rows // 2))
            yield from self._blocks(_part(answered, rows // 2, rows))
            return
        yield Message(answered.ids[0].encode(), value, rows)

    def _records(self, answered: Answered) -> Iterator[Message]:
        outputs = [None] * len(answered.ids) if answered.outputs is None else answered.outputs
        for prediction_id, values, output in zip(answered.ids, answered.rows.tuples(), outputs, strict=True):
            key, time = values[self._key_at], values[self._time_at]
            record = _Record(
                prediction_id,
                answered.requested_at,
                self._segments(*[values[i] for i in self._segment_at]),
                self._features(*values[: self._width]),
                output,
                answered.model_version,
                answered.role,
                UNSET if key is None else key_text(key),
                UNSET if time is None else as_datetime(time),
            )
            yield Message(prediction_id.encode(), self._encode(record), 1)


def _part(answered: Answered, start: int, end: int) -> Answered:
    outputs = None if answered.outputs is None else answered.outputs[start:end]
    return replace(answered, ids=answered.ids[start:end], rows=answered.rows.part(start, end), outputs=outputs)


def _pack(feature: Feature) -> Callable[[Sequence[Any] | Matrix], Any]:
    """How a column of the feature stands in a block."""
    match feature:
        case Numeric():
            return _numbers
        case Vector(size=size):
            return partial(_vectors, size)
        case Categorical():
            return listed


def _numbers(column: Sequence[Any] | Matrix) -> _Packed:
    return _Packed(numbers(column).astype("<f8", copy=False).data)


def _vectors(size: int, column: Sequence[Any] | Matrix) -> _Packed:
    return _Packed(vectors(column, size).astype("<f8", order="C", copy=False).data, size)


def _struct(name: str, fields: Sequence[str]) -> type[msgspec.Struct]:
    rename = {f"f{i}": field for i, field in enumerate(fields)}
    return msgspec.defstruct(name, [(f"f{i}", Any) for i in range(len(fields))], rename=rename, gc=False)
