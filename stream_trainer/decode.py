"""Kafka bytes to Arrow columns plus rejections with reasons. Total: bad data never raises here.

One bad record costs itself and nothing else. A value is JSON, one object a record, or (with the header
`content-type: application/vnd.apache.arrow.stream`) one Arrow IPC stream of many rows. The unit of accounting is
(topic, partition, offset, row).
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from stream_trainer import ipc
from stream_trainer.contract import FLOAT32_MAX, RESERVED_FIELDS, Contract
from stream_trainer.errors import Poison
from stream_trainer.schema import (
    RATE_ATTRIBUTE,
    TIMESTAMP,
    WEIGHT_ATTRIBUTE,
    arrow_fields,
    as_datetime,
    field_names,
    struct_type,
    to_columns,
)

ARROW_CONTENT_TYPE = b"application/vnd.apache.arrow.stream"
MAX_JSON_BYTES = 2**20
MAX_ARROW_BYTES = 16 * 2**20
MAX_ARROW_ROWS = 100_000
ARROW_LIMITS = ipc.Limits(unpacked=4 * MAX_ARROW_BYTES, cells=4_000_000)
KEPT_BYTES = 64 * 2**10
MAX_AHEAD = timedelta(days=1)

_ANSWER = attrgetter(*(f"r{RESERVED_FIELDS.index(name)}" for name in ("_model_version", "_output")))
_NOT_PYTHON = (ArithmeticError, LookupError, TypeError, ValueError, RecursionError, pa.ArrowException)

ACCOUNTING = [
    pa.field("_topic", pa.string()),
    pa.field("_partition", pa.int32()),
    pa.field("_offset", pa.int64()),
    pa.field("_row", pa.int32()),
    pa.field("_append_time", TIMESTAMP),
    pa.field("_unknown_fields", pa.int32()),
    pa.field("_weight", pa.float64()),
    pa.field("_negative_rate", pa.float64()),
    pa.field("_reason", pa.string()),
    pa.field("_bytes", pa.binary()),
    pa.field("_length", pa.int64()),
    pa.field("_sha256", pa.string()),
]
ANSWERED = [pa.field("_model_version", pa.int64()), pa.field("_output", pa.list_(pa.float64()))]


class Position(NamedTuple):
    """Where one record stands in the log, and when the broker appended it."""

    topic: str
    partition: int
    offset: int
    append_time: datetime


@dataclass(slots=True)
class _Row:
    position: Position
    row: int
    parsed: Any = None
    unknown_fields: int = 0
    reason: str | None = None
    raw: bytes = b""


def decoded_schema(contract: Contract) -> pa.Schema:
    """The schema of `decode`: accounting, what serving had answered (`_` begins their names), then the contract's."""
    return pa.schema([*ACCOUNTING, *ANSWERED, *arrow_fields(contract, "example")])


def decode(contract: Contract, batch: pa.RecordBatch) -> pa.RecordBatch:
    """Decode one Arrow batch of Kafka records.

    Args:
        contract: what a record must look like.
        batch: columns `topic, partition, offset, timestamp, value` and optionally `headers`, as Spark's Kafka
            source names them.

    Returns:
        Rows of `decoded_schema`: a rejected row has `_reason`, `_bytes` (the first 64 KiB), `_length` and
        `_sha256`, and nulls in the contract's columns; a good row has them the other way round.
    """
    rows: list[_Row] = []
    positions = zip(
        batch.column("topic").to_pylist(),
        batch.column("partition").to_pylist(),
        batch.column("offset").to_pylist(),
        batch.column("timestamp").to_pylist(),
        strict=True,
    )
    arrow_marks = _arrow_marks(batch)
    parse = _parser(contract)
    for i, (value, position) in enumerate(zip(batch.column("value").to_pylist(), positions, strict=True)):
        where = Position(*position)
        if arrow_marks is not None and arrow_marks[i]:
            rows.extend(_arrow_rows(contract, where, value))
        else:
            rows.append(_json_row(parse, where, value))
    return _assemble(contract, rows)


def _arrow_marks(batch: pa.RecordBatch) -> list[bool] | None:
    if "headers" not in batch.schema.names or batch.column("headers").null_count == batch.num_rows:
        return None
    return [
        any(h["key"] == "content-type" and h["value"] == ARROW_CONTENT_TYPE for h in headers or ())
        for headers in batch.column("headers").to_pylist()
    ]


class _Parser(NamedTuple):
    strict: msgspec.json.Decoder[Any]
    lenient: msgspec.json.Decoder[Any]
    known: frozenset[str]
    event_time: Callable[[Any], datetime | float]


@lru_cache(maxsize=16)
def _parser(contract: Contract) -> _Parser:
    strict = struct_type(contract, "example", strict=True)
    event_time = field_names(contract, "example").index(contract.event_time)
    return _Parser(
        msgspec.json.Decoder(strict),
        msgspec.json.Decoder(struct_type(contract, "example")),
        frozenset(strict.__struct_encode_fields__),
        attrgetter(f"f{event_time}"),
    )


def _json_row(parse: _Parser, where: Position, value: bytes | None) -> _Row:
    if value is None:
        return _Row(where, 0, reason="null_value: the record has no value (a tombstone)")
    try:
        if len(value) > MAX_JSON_BYTES:
            raise Poison(f"too_large: {len(value)} bytes, at most {MAX_JSON_BYTES} are read")
        row = _parse_json(parse, where, value)
        _refuse_future(parse, row)
    except (msgspec.MsgspecError, ValueError, RecursionError, Poison) as error:
        return _Row(where, 0, reason=reason_of(error), raw=value)
    return row


def _parse_json(parse: _Parser, where: Position, value: bytes) -> _Row:
    try:
        return _Row(where, 0, parse.strict.decode(value))
    except msgspec.ValidationError as error:
        if "unknown field" not in str(error):
            raise
        return _Row(where, 0, parse.lenient.decode(value), _count_unknown(parse, value))


def _refuse_future(parse: _Parser, row: _Row) -> None:
    """One event time of the year 9999 would make all that was learned before look too old to be kept."""
    ahead = as_datetime(parse.event_time(row.parsed)) - row.position.append_time
    if ahead > MAX_AHEAD:
        raise Poison(f"out_of_range: the event time lies {ahead} after the record was appended; at most {MAX_AHEAD}")


def _count_unknown(parse: _Parser, value: bytes) -> int:
    return len(msgspec.json.decode(value, type=dict[str, msgspec.Raw]).keys() - parse.known)


def reason_of(error: Exception) -> str:
    """`code: detail` for a record that cannot be used; the code is one of a small fixed set, without values."""
    text = str(error)
    if isinstance(error, Poison):
        return error.reason
    if isinstance(error, UnicodeDecodeError):
        return "bad_utf8: the text is not UTF-8"
    if isinstance(error, RecursionError):
        return "too_deep: the value is nested too deeply"
    if not isinstance(error, msgspec.ValidationError):
        return f"invalid_json: {text}"
    if "missing required field" in text:
        return f"missing_field: {text}"
    if "got `null`" in text:
        return f"null_field: {text}"
    if "out of range" in text or "<=" in text or ">=" in text:
        return f"out_of_range: {text}"
    return f"wrong_type: {text}"


def _arrow_rows(contract: Contract, where: Position, value: bytes | None) -> Iterator[_Row]:
    if value is None:
        yield _Row(where, 0, reason="null_value: the record has no value (a tombstone)")
        return
    try:
        if len(value) > MAX_ARROW_BYTES:
            raise Poison(f"too_large: {len(value)} bytes, at most {MAX_ARROW_BYTES} are read")
        records = _read_arrow(value)
    except (pa.ArrowException, OSError, ValueError, Poison) as error:
        reason = error.reason if isinstance(error, Poison) else f"invalid_arrow: {ipc.first_line(error)}"
        yield _Row(where, 0, reason=reason, raw=value)
        return
    parse = _parser(contract)
    struct = struct_type(contract, "example")
    for i, record in enumerate(records):
        try:
            _refuse_nan(record, parse.known)
            row = _Row(where, i, msgspec.convert(record, struct), len(record.keys() - parse.known))
            _refuse_future(parse, row)
            yield row
        except (msgspec.MsgspecError, ValueError, Poison) as error:
            yield _Row(where, i, reason=reason_of(error), raw=msgspec.json.encode(record, enc_hook=str))


def _read_arrow(value: bytes) -> list[dict[str, Any]]:
    try:
        ipc.check_stream(pa.py_buffer(value), ARROW_LIMITS)
    except ipc.TooLarge as error:
        raise Poison(f"too_large: {error}") from error
    texts = 0
    with pa.ipc.open_stream(value) as reader:
        records: list[dict[str, Any]] = []
        for batch in reader:
            if len(records) + batch.num_rows > MAX_ARROW_ROWS:
                raise Poison(f"too_large: more than {MAX_ARROW_ROWS} rows in one message")
            batch.validate(full=True)
            texts += sum(ipc.text_bytes(column) for column in batch.columns)
            if texts > ARROW_LIMITS.unpacked:
                raise Poison(f"too_large: more than {ARROW_LIMITS.unpacked} bytes of text in one message")
            records += _to_records(_to_microseconds(batch))
    return records


class _Unreadable:
    """Stands for a value that Arrow holds and Python cannot, such as the year 10000."""

    def __str__(self) -> str:
        return "unreadable"


def _to_microseconds(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Nanoseconds, which is how pandas writes instants, would come as a type that JSON does not know."""
    columns = [
        column.cast(pa.timestamp("us", column.type.tz), safe=False)
        if pa.types.is_timestamp(column.type) and column.type.unit == "ns"
        else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _to_records(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = batch.to_pylist()
    except _NOT_PYTHON:  # one value is enough: find out which, and lose only that one
        columns = [(name, [_value(v) for v in column]) for name, column in zip(batch.schema.names, batch, strict=True)]
        return [{name: values[i] for name, values in columns} for i in range(batch.num_rows)]
    return found


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except _NOT_PYTHON:
        return _Unreadable()


def _refuse_nan(record: dict[str, Any], known: frozenset[str]) -> None:
    for name in known & record.keys():
        value = record[name]
        numbers: Sequence[Any] = value if isinstance(value, list) else (value,)
        if any(isinstance(v, float) and not math.isfinite(v) for v in numbers):
            raise Poison(f"out_of_range: not a finite number - at `$.{name}`")


def _assemble(contract: Contract, rows: Sequence[_Row]) -> pa.RecordBatch:
    good = [r for r in rows if r.reason is None]
    bad = [r for r in rows if r.reason is not None]
    columns = to_columns(contract, "example", [r.parsed for r in good])
    tables = [
        [*_accounting(good), *_answered(contract, good), *(columns[f.name] for f in arrow_fields(contract, "example"))],
        [*_accounting(bad), *(pa.nulls(len(bad), f.type) for f in [*ANSWERED, *arrow_fields(contract, "example")])],
    ]
    schema = decoded_schema(contract)
    merged = [pa.concat_arrays([a, b]) for a, b in zip(*tables, strict=True)]
    return pa.RecordBatch.from_arrays(merged, schema=schema)


def _answered(contract: Contract, rows: Sequence[_Row]) -> list[pa.Array]:
    """Which version answered the row's request, and what; null where none did, or where it makes no sense."""
    said = [_answer(contract, *_ANSWER(row.parsed)) for row in rows]
    return [pa.array([one[i] for one in said], f.type) for i, f in enumerate(ANSWERED)]


def _answer(contract: Contract, version: Any, output: Any) -> tuple[int | None, list[float] | None]:
    values = output if isinstance(output, list) else [output]
    numbers = [float(v) for v in values if isinstance(v, int | float) and abs(v) <= FLOAT32_MAX]
    whole = type(version) is int and 0 < version < 2**53 and len(numbers) == len(values) == contract.label.outputs
    if not whole or (contract.label.task != "regression" and not all(0.0 <= v <= 1.0 for v in numbers)):
        return None, None
    return version, numbers


def _accounting(rows: Sequence[_Row]) -> list[pa.Array]:
    rejected = [r.reason is not None for r in rows]
    values: list[list[Any]] = [
        [r.position.topic for r in rows],
        [r.position.partition for r in rows],
        [r.position.offset for r in rows],
        [r.row for r in rows],
        [r.position.append_time for r in rows],
        [r.unknown_fields for r in rows],
        [getattr(r.parsed, WEIGHT_ATTRIBUTE, None) for r in rows],
        [getattr(r.parsed, RATE_ATTRIBUTE, None) for r in rows],
        [r.reason for r in rows],
        [r.raw[:KEPT_BYTES] if bad else None for r, bad in zip(rows, rejected, strict=True)],
        [len(r.raw) if bad else None for r, bad in zip(rows, rejected, strict=True)],
        [hashlib.sha256(r.raw).hexdigest() if bad else None for r, bad in zip(rows, rejected, strict=True)],
    ]
    return [pa.array(v, f.type) for v, f in zip(values, ACCOUNTING, strict=True)]
