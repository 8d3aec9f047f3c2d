"""From a contract to the typed structs that parse its JSON, and from parsed structs to Arrow columns.

The same structs and the same columns serve Kafka records in training and requests in serving, so that a value
cannot mean two things. Parsing and validation are one pass in C (msgspec).
"""

import struct
from array import array
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from itertools import accumulate, chain
from typing import Annotated, Any, Literal, cast

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import Meta
from numpy.typing import NDArray

from stream_trainer.contract import (
    FLOAT32_MAX,
    MAX_KEY,
    MAX_TEXT,
    RESERVED_FIELDS,
    BinaryLabel,
    Categorical,
    ClassLabel,
    Contract,
    Feature,
    Label,
    Numeric,
    Vector,
)

Kind = Literal["example", "request"]
Columns = Sequence[Sequence[Any] | NDArray[np.float64]]

TIMESTAMP = pa.timestamp("us", tz="UTC")
_Weight = Annotated[float, Meta(ge=0, le=FLOAT32_MAX)] | None
_Rate = Annotated[float, Meta(gt=0, le=1)] | None
_RESERVED_TYPES = {"_weight": _Weight, "_negative_rate": _Rate}
WEIGHT_ATTRIBUTE, RATE_ATTRIBUTE = (f"r{RESERVED_FIELDS.index(name)}" for name in _RESERVED_TYPES)
_NUMBER = pa.float64()
_VECTOR = pa.list_(_NUMBER)
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z
_Text = Annotated[str, Meta(max_length=MAX_TEXT)]
KeyText = Annotated[str, Meta(min_length=1, max_length=MAX_KEY)] | int
Instant = Annotated[datetime, Meta(tz=True)] | Annotated[float, Meta(ge=0, le=_LAST_SECOND)]


def _feature_type(feature: Feature) -> Any:
    match feature:
        case Numeric(low=low, high=high, optional=optional):
            bounded: Any = Annotated[float, Meta(ge=low, le=high)]
            return bounded | None if optional else bounded
        case Categorical(optional=optional):
            return _Text | None if optional else _Text
        case Vector(size=size):
            number: Any = Annotated[float, Meta(ge=-FLOAT32_MAX, le=FLOAT32_MAX)]
            return Annotated[list[number], Meta(min_length=size, max_length=size)]


def label_type(label: Label) -> Any:
    """What msgspec takes a label's JSON value for."""
    match label:
        case BinaryLabel():
            return bool | Literal[0, 1]
        case ClassLabel(classes=classes):
            return Literal[tuple(classes)]
        case _:
            return Annotated[float, Meta(ge=-FLOAT32_MAX, le=FLOAT32_MAX)]


def _given_types(contract: Contract) -> tuple[Any, ...]:
    return (*(_Text for _ in contract.extra_segments), KeyText, Instant)


def _example_types(contract: Contract) -> tuple[Any, ...]:
    return (*map(_feature_type, contract.features), *_given_types(contract), label_type(contract.label))


def field_names(contract: Contract, kind: Kind) -> tuple[str, ...]:
    """The fields a struct of this kind holds, in order; attribute `f<i>` of the struct is field `i`."""
    names = (*(f.name for f in contract.features), *contract.extra_segments, contract.key, contract.event_time)
    return (*names, contract.label.name) if kind == "example" else names


def request_types(contract: Contract) -> tuple[Any, ...]:
    """What msgspec takes as a value of each field of a request, in the order of `field_names`; None where it may be absent."""
    return (*map(_feature_type, contract.features), *(given | None for given in _given_types(contract)))


@lru_cache(maxsize=64)
def struct_type(contract: Contract, kind: Kind, *, strict: bool = False) -> type[msgspec.Struct]:
    """The struct that parses one JSON object of the contract.

    `example`: everything the contract names; only optional features may be null or absent. `request`: no
    label, and key, event time and plain segments may be absent. `strict` refuses unknown fields instead of
    skipping them, which is how they are counted.
    """
    whole = kind == "example"
    types = _example_types(contract) if whole else request_types(contract)
    names = field_names(contract, kind)
    required = [not getattr(f, "optional", False) for f in contract.features]
    required += [whole] * (len(names) - len(required))
    fields: list[Any] = [
        (f"f{i}", kind_of) if needed else (f"f{i}", kind_of, None)
        for i, (kind_of, needed) in enumerate(zip(types, required, strict=True))
    ]
    rename = {f"f{i}": name for i, name in enumerate(names)}
    if whole:
        fields += [(f"r{i}", _RESERVED_TYPES.get(name, Any), None) for i, name in enumerate(RESERVED_FIELDS)]
        rename |= {f"r{i}": name for i, name in enumerate(RESERVED_FIELDS)}
    return msgspec.defstruct(kind.title(), fields, rename=rename, kw_only=True, forbid_unknown_fields=strict, gc=False)


def as_datetime(value: datetime | float) -> datetime:
    """An event time as an aware UTC datetime; numbers are epoch seconds.

    An instant that only its own offset keeps within the years 1 to 9999 loses that offset rather than raising.
    """
    if not isinstance(value, datetime):
        return datetime.fromtimestamp(value, UTC)
    try:
        return value.astimezone(UTC)
    except OverflowError:
        return value.replace(tzinfo=UTC)


def label_numbers(label: Label, values: Iterable[Any]) -> list[float]:
    """Labels as the numbers they are learned as: 0/1, the index of the class, or themselves."""
    if isinstance(label, ClassLabel):
        index = {name: float(i) for i, name in enumerate(label.classes)}
        return [index[v] for v in values]
    return [float(v) for v in values]


def feature_arrow_type(feature: Feature) -> pa.DataType:
    """The Arrow type of a feature's column."""
    match feature:
        case Numeric():
            return _NUMBER
        case Categorical():
            return pa.string()
        case Vector():
            return _VECTOR


@lru_cache(maxsize=64)
def arrow_fields(contract: Contract, kind: Kind) -> tuple[pa.Field, ...]:
    """The contract's columns: features, plain segments, key, event time and, for examples, the label (a number)."""
    fields = [pa.field(f.name, feature_arrow_type(f)) for f in contract.features]
    fields += [pa.field(s, pa.string()) for s in contract.extra_segments]
    fields += [pa.field(contract.key, pa.string()), pa.field(contract.event_time, TIMESTAMP)]
    if kind == "example":
        fields.append(pa.field(contract.label.name, pa.float64()))
    return tuple(fields)


def key_text(value: Any) -> str | None:
    """A parsed key as the text it is stored as."""
    return None if value is None else str(value)


def to_columns(contract: Contract, kind: Kind, rows: Sequence[msgspec.Struct]) -> dict[str, pa.Array]:
    """Parsed structs as Arrow columns, one per field of `arrow_fields`, each as long as `rows`."""
    fields = arrow_fields(contract, kind)
    by_field: Sequence[Sequence[Any]] = list(zip(*map(msgspec.structs.astuple, rows), strict=True)) or [()] * len(
        fields
    )
    columns: dict[str, pa.Array] = {}
    for field, values in zip(fields, by_field, strict=False):  # an example's reserved fields come after these
        converted: Sequence[Any] = values
        if field.name == contract.key:
            converted = [key_text(v) for v in values]
        elif field.name == contract.event_time:
            converted = [None if v is None else as_datetime(v) for v in values]
        elif kind == "example" and field.name == contract.label.name:
            converted = label_numbers(contract.label, values)
        columns[field.name] = _column(converted, field.type)
    return columns


def feature_columns(contract: Contract, by_field: Columns) -> dict[str, pa.Array | NDArray[np.float64]]:
    """The features' columns alone, of values by field, for `features.encode`: numbers as arrays, which cost less than Arrow's."""
    return {
        feature.name: _encodable(feature, values) for feature, values in zip(contract.features, by_field, strict=False)
    }


def _encodable(feature: Feature, values: Sequence[Any] | NDArray[np.float64]) -> pa.Array | NDArray[np.float64]:
    match feature:
        case Numeric():
            return numbers(values)
        case Vector(size=size):
            return vectors(values, size)
        case Categorical():
            return _column(cast("Sequence[Any]", values), pa.string())


def numbers(values: Sequence[float | None] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Numbers as an array; a missing one is NaN."""
    if isinstance(values, np.ndarray):
        return values
    try:
        return np.frombuffer(doubles(values))
    except struct.error:  # a gap
        return np.array(values, np.float64)


def vectors(values: Sequence[Sequence[float]] | NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Rows of numbers as an array `[rows, size]`."""
    if isinstance(values, np.ndarray):
        return values
    return np.frombuffer(doubles(list(chain.from_iterable(values)))).reshape(-1, size)


def _column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """`pa.array(values, kind)`, quicker for numbers without gaps, for vectors, and for what nobody gave."""
    if kind == _VECTOR and len(values):
        return _vectors(values)
    if kind == _NUMBER:
        with suppress(struct.error):  # a gap
            return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(doubles(values))])
    if values and values[0] is None and values.count(None) == len(values):
        return pa.nulls(len(values), kind)
    return pa.array(values, kind)


def doubles(values: Sequence[Any]) -> bytes:
    """Numbers as the bytes of float64, little endian.

    Three times as quick as `array` and `numpy`, which look at each number's type.

    Raises:
        struct.error: one is not a number.
    """
    return struct.pack(f"<{len(values)}d", *values)


def _vectors(values: Sequence[Sequence[float]]) -> pa.Array:
    flat = doubles(list(chain.from_iterable(values)))
    ends = array("i", accumulate(map(len, values), initial=0))
    children = [pa.Array.from_buffers(_NUMBER, ends[-1], [None, pa.py_buffer(flat)])]
    return pa.Array.from_buffers(_VECTOR, len(values), [None, pa.py_buffer(ends)], children=children)
