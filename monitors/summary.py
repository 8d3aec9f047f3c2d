"""Prediction records to a small summary: histogram rows over the frozen bins, a bounded sample, and counts.

This is what runs in Spark's Python workers, so it imports neither torch nor Spark. It is total: a bad record is
skipped and counted by reason, it never fails a batch. Summaries add up, in any order and any grouping.
"""

import itertools
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache, reduce
from typing import Annotated, Any

import msgspec
import pyarrow as pa

from stream_trainer import prediction_blocks
from stream_trainer.contract import Categorical, Contract, Feature, Numeric
from stream_trainer.decode import reason_of
from stream_trainer.errors import Poison
from stream_trainer.reference import Reference, histogram, merge, table_from_bytes, table_to_bytes
from stream_trainer.schema import TIMESTAMP, as_datetime, struct_type, to_columns

PAYLOAD = pa.schema([pa.field("payload", pa.binary())])
PRIORITY = "_priority"
MAX_RECORD_BYTES = 2**20
_AT_ONCE = 500  # records, each perhaps a block of many rows: what is held in memory at a time
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """One record of `P.predictions`, as far as drift needs it; a null version means none was served yet."""

    prediction_id: str
    requested_at: Annotated[datetime, msgspec.Meta(tz=True)] | Annotated[float, msgspec.Meta(ge=0, le=_LAST_SECOND)]
    features: msgspec.Raw
    segments: dict[str, str | None] = {}
    model_version: int | None = None
    role: str = "champion"


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What some records hold together. `histogram` and `sample` are Arrow files, None without a reference or rows."""

    rows: int = 0
    skipped: dict[str, int] = {}
    start: datetime | None = None
    end: datetime | None = None
    version: int | None = None
    histogram: bytes | None = None
    sample: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summarise:
    """Arrow batches of Kafka records (a column `value`) to one `payload` row a batch, each an encoded `Summary`."""

    contract: Contract
    reference: Reference | None
    sample_rows: int

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """For `mapInArrow`."""
        for batch in batches:
            values = batch.column("value").to_pylist()
            parts = (self.of(values[start : start + _AT_ONCE]) for start in range(0, len(values), _AT_ONCE))
            summary = reduce(lambda a, b: add(a, b, sample_rows=self.sample_rows), parts, Summary())
            yield pa.record_batch([pa.array([msgspec.msgpack.encode(summary)], pa.binary())], schema=PAYLOAD)

    def of(self, values: Sequence[bytes | None]) -> Summary:
        """Summarise records by their values."""
        skipped: Counter[str] = Counter()
        records: list[Prediction] = []
        features: list[Any] = []
        for value in itertools.chain.from_iterable(_rows(value, skipped) for value in values):
            try:
                record, parsed = _parse(self.contract, value)
            except _UNREADABLE as error:
                skipped[_code(error)] += 1
                continue
            records.append(record)
            features.append(parsed)
        times = [as_datetime(r.requested_at) for r in records]
        summary = Summary(
            rows=len(records),
            skipped=dict(skipped),
            start=min(times, default=None),
            end=max(times, default=None),
            version=max((r.model_version for r in records if r.model_version is not None), default=None),
        )
        if self.reference is None or not records:
            return summary
        columns = _columns(self.contract, records, features)
        counted = histogram(self.contract, self.reference, columns, pa.nulls(len(records), TIMESTAMP))
        sampled = _sample(self.contract, records, columns, self.sample_rows)
        return msgspec.structs.replace(
            summary, histogram=table_to_bytes(counted), sample=table_to_bytes(sampled) if sampled.num_rows else None
        )


def without_samples(reference: Reference) -> Reference:
    """The bins alone: what travels to the workers with every micro-batch."""
    return Reference(tuple(replace(b, sample=(), sample_words=()) for b in reference.bins))


def add(first: Summary, second: Summary, *, sample_rows: int) -> Summary:
    """Both together; the sample keeps the rows of the lowest priority, so it does not depend on order or grouping."""
    return Summary(
        rows=first.rows + second.rows,
        skipped=dict(Counter(first.skipped) + Counter(second.skipped)),
        start=_either(min, first.start, second.start),
        end=_either(max, first.end, second.end),
        version=_either(max, first.version, second.version),
        histogram=_tables(first.histogram, second.histogram, merge),
        sample=_tables(first.sample, second.sample, lambda a, b: lowest(pa.concat_tables([a, b]), sample_rows)),
    )


def lowest(sample: pa.Table, rows: int) -> pa.Table:
    """The rows of the lowest priority."""
    return sample.sort_by(PRIORITY).slice(0, rows)


def _either(choose: Callable[[Any, Any], Any], first: Any, second: Any) -> Any:
    if first is None or second is None:
        return second if first is None else first
    return choose(first, second)


def _tables(first: bytes | None, second: bytes | None, join: Callable[[pa.Table, pa.Table], pa.Table]) -> bytes | None:
    if first is None or second is None:
        return second if first is None else first
    return table_to_bytes(join(table_from_bytes(first), table_from_bytes(second)))


_decoder = msgspec.json.Decoder(Prediction)
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError, Poison)


def _code(error: Exception) -> str:
    return reason_of(error).partition(":")[0]


def _rows(value: bytes | None, skipped: Counter[str]) -> Sequence[bytes | None]:
    """The rows of a block; a record of one row, whatever it is, as it stands."""
    if value is None or len(value) > MAX_RECORD_BYTES:
        return (value,)
    try:
        return prediction_blocks.records(value)
    except _UNREADABLE as error:
        skipped[_code(error)] += 1
        return ()


def _parse(contract: Contract, value: bytes | None) -> tuple[Prediction, Any]:
    if value is None:
        raise Poison("null_value: the record has no value")
    if len(value) > MAX_RECORD_BYTES:
        raise Poison(f"too_large: {len(value)} bytes")
    record = _decoder.decode(value)
    if record.role == "challenger":
        raise Poison("shadow: a challenger's word on a request that is counted with who answered it")
    return record, _features_decoder(contract).decode(record.features)


@lru_cache(maxsize=16)
def _features_decoder(contract: Contract) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(struct_type(_lenient(contract), "request"))


def _lenient(contract: Contract) -> Contract:
    """Every number and text optional and unbounded: a value that is missing or far out is to be seen, not skipped."""

    def loosened(feature: Feature) -> Feature:
        match feature:
            case Numeric(name=name):
                return Numeric(name, optional=True)
            case Categorical():
                return replace(feature, optional=True)
            case _:
                return feature

    return replace(contract, features=tuple(loosened(f) for f in contract.features))


def _columns(contract: Contract, records: Sequence[Prediction], features: Sequence[Any]) -> dict[str, pa.Array]:
    columns = to_columns(_lenient(contract), "request", features)
    for segment in contract.extra_segments:
        columns[segment] = pa.array([r.segments.get(segment) for r in records], pa.string())
    return columns


def _sample(contract: Contract, records: Sequence[Prediction], columns: dict[str, pa.Array], rows: int) -> pa.Table:
    plain = {f.name: columns[f.name] for f in contract.features if isinstance(f, Numeric | Categorical)}
    priority = pa.array([zlib.crc32(r.prediction_id.encode()) for r in records], pa.int64())
    return lowest(pa.table({**plain, PRIORITY: priority}), rows)
