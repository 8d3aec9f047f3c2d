"""Several rows of one request in one record of `P.predictions`: the fields of a record, each a list.

A request of a hundred rows would otherwise be a hundred records, which cost the service and the broker more than the
predictions did. `records` gives back the rows as the records that they would have been, so a reader knows one form only.
A column of numbers is base64 of its float64, little endian: twice as short as its digits, and quicker to write. All
else is copied as it stands in the JSON. See `docs/schemas/prediction-block.json`.
"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from msgspec import UNSET, Raw, UnsetType

MAX_ROWS = 10_000
MAX_COPIED = 32  # times a block's own length: its names, and what its rows share, are copied to each row
_MARK = b'{"rows":'
_NULL = b"null"


class _Packed(msgspec.Struct):
    """Numbers: `size` a row, in a list, or one a row where there is none; NaN is one that is missing."""

    float64: bytes
    size: int | None = None


class _Block(msgspec.Struct):
    rows: int
    requested_at: Raw
    model_version: Raw
    role: Raw
    prediction_id: list[Raw]
    output: list[Raw]
    segments: dict[str, list[Raw]]
    features: dict[str, list[Raw] | _Packed]
    key: list[Raw] | UnsetType = UNSET
    event_time: list[Raw] | UnsetType = UNSET


class _Record(msgspec.Struct):
    prediction_id: Raw
    requested_at: Raw
    segments: dict[str, Raw]
    features: dict[str, Raw]
    output: Raw
    model_version: Raw
    role: Raw
    key: Raw | UnsetType = UNSET
    event_time: Raw | UnsetType = UNSET


_decoder = msgspec.json.Decoder(_Block)
_values = msgspec.json.Decoder(list[Raw])
_encoder = msgspec.json.Encoder()


def is_block(value: bytes) -> bool:
    """Whether a record's value is of several rows; their number is its first field."""
    return value.startswith(_MARK)


def records(value: bytes) -> Sequence[bytes]:
    """The value of each row's record, in the request's order; a record of one row is itself.

    Raises:
        ValueError: a block's lists are not all as long as it says, its rows would be far longer than itself, or it is not
            JSON of a block (`msgspec.DecodeError` is one).
    """
    if not is_block(value):
        return (value,)
    block = _decoder.decode(value)
    rows = block.rows
    if not 1 <= rows <= MAX_ROWS:
        raise ValueError(f"a block of {rows} rows; 1 to {MAX_ROWS} are read")
    _refuse_long(block, len(value))
    nulls = [Raw(_NULL)] * rows
    keys = nulls if block.key is UNSET else block.key
    times = nulls if block.event_time is UNSET else block.event_time
    named = [block.prediction_id, block.output, keys, times]
    features = {name: _unpacked(name, values, rows) for name, values in block.features.items()}
    if any(len(values) != rows for values in (*named, *block.segments.values(), *features.values())):
        raise ValueError(f"a block says that it has {rows} rows, and one of its lists is of another length")
    found = zip(*named, _by_row(block.segments, rows), _by_row(features, rows), strict=True)
    return [
        _encoder.encode(
            _Record(
                prediction_id=prediction_id,
                requested_at=block.requested_at,
                segments=segments,
                features=features,
                output=output,
                model_version=block.model_version,
                role=block.role,
                key=_given(key),
                event_time=_given(event_time),
            )
        )
        for prediction_id, output, key, event_time, segments, features in found
    ]


def _refuse_long(block: _Block, length: int) -> None:
    shared = sum(len(bytes(raw)) for raw in (block.requested_at, block.model_version, block.role))
    copied = block.rows * (shared + sum(len(name.encode()) for name in (*block.segments, *block.features)))
    if copied > MAX_COPIED * length:
        raise ValueError(
            f"{length} bytes of a block would be {copied} in its rows; {MAX_COPIED} times as many are read"
        )


def _unpacked(name: str, column: list[Raw] | _Packed, rows: int) -> list[Raw]:
    """The values as JSON would have said them."""
    if isinstance(column, list):
        return column
    size = column.size
    if (size is not None and size < 1) or len(column.float64) != 8 * rows * (size or 1):
        raise ValueError(
            f"{name} has {len(column.float64)} bytes, {rows} rows of {size or 1} numbers have another number"
        )
    numbers = np.frombuffer(column.float64, "<f8")
    if np.isinf(numbers).any():
        raise ValueError(f"{name} holds a number that is not finite")
    return _values.decode(_encoder.encode((numbers if size is None else numbers.reshape(rows, size)).tolist()))


def _by_row(columns: Mapping[str, list[Raw]], rows: int) -> list[dict[str, Raw]]:
    if not columns:
        return [{}] * rows
    names = tuple(columns)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _given(value: Raw) -> Raw | UnsetType:
    return UNSET if bytes(value) == _NULL else value
