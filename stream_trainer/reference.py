"""Frozen bins and the histograms over them: what a version has learned from, and what a window of requests looks like.

Training and monitoring count with the same bins, so the two can be compared and merged by addition. A numeric
feature has deciles, a category its most frequent words; both have a bin for missing values. A vector is
binned by its length (Euclidean norm).
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stream_trainer import ipc
from stream_trainer.contract import Categorical, Contract, Vector
from stream_trainer.errors import Corrupt
from stream_trainer.schema import TIMESTAMP

DECILES = 10
MAX_WORDS = 30
MAX_SEGMENTS = 64
OTHER = "*"

HISTOGRAM = pa.schema(
    [
        pa.field("hour", TIMESTAMP),
        pa.field("feature", pa.string()),
        pa.field("segment", pa.string()),
        pa.field("bin", pa.int32()),
        pa.field("count", pa.int64()),
        pa.field("sum", pa.float64()),
        pa.field("sum_of_squares", pa.float64()),
    ]
)
_REFERENCE = pa.schema(
    [
        pa.field("feature", pa.string()),
        pa.field("edges", pa.list_(pa.float64())),
        pa.field("words", pa.list_(pa.string())),
        pa.field("counts", pa.list_(pa.int64())),
        pa.field("sample", pa.list_(pa.float64())),
        pa.field("sample_words", pa.list_(pa.string())),
    ]
)
_KEYS = ["hour", "feature", "segment", "bin"]
_SUMS = ["count", "sum", "sum_of_squares"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bins:
    """The frozen bins of one feature, the baseline's counts in them and a bounded sample of its values.

    Numeric: `edges` ascending, bin i holds values in `[edges[i-1], edges[i])`. Category: bin i is `words[i]`, the
    next one is any other word. The last bin is always "missing".
    """

    feature: str
    edges: tuple[float, ...] = ()
    words: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    sample: tuple[float | None, ...] = ()
    sample_words: tuple[str | None, ...] = ()

    @property
    def categorical(self) -> bool:
        """Whether the feature is a text."""
        return bool(self.words)

    @property
    def size(self) -> int:
        """How many bins there are, "other" and "missing" included."""
        return len(self.words) + 2 if self.categorical else len(self.edges) + 2

    @property
    def names(self) -> tuple[str, ...]:
        """A readable name for each bin."""
        if self.categorical:
            return (*self.words, OTHER, "missing")
        bounds = ("-inf", *(f"{e:.6g}" for e in self.edges), "inf")
        pairs = itertools.pairwise(bounds)
        return (*(f"[{low}, {high})" for low, high in pairs), "missing")

    def assign(self, column: pa.Array) -> NDArray[np.int64]:
        """The bin of each value."""
        if self.categorical:
            words = column.dictionary_encode()
            place = {word: i for i, word in enumerate(self.words)}
            table = [place.get(w, len(self.words)) for w in words.dictionary.to_pylist()]
            codes = words.indices.fill_null(len(table)).to_numpy(zero_copy_only=False)
            places: NDArray[np.int64] = np.asarray([*table, self.size - 1], dtype=np.int64)
            return places[np.asarray(codes, dtype=np.int64)]
        values = numbers(column)
        bins = np.searchsorted(np.asarray(self.edges), values, side="right").astype(np.int64)
        bins[np.isnan(values)] = self.size - 1
        return bins


@dataclass(frozen=True, slots=True)
class Reference:
    """The frozen bins of a pipeline, by feature."""

    bins: tuple[Bins, ...]

    def to_bytes(self) -> bytes:
        """One Arrow IPC file, a row per feature."""
        columns = [pa.array([getattr(b, field.name) for b in self.bins], field.type) for field in _REFERENCE]
        return table_to_bytes(pa.table(columns, schema=_REFERENCE))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Reference":
        """The inverse of `to_bytes`.

        Raises:
            Corrupt: it is something else.
        """
        table = table_from_bytes(data)
        if table.schema != _REFERENCE:
            raise Corrupt("a drift reference has other columns than it must")
        rows: list[dict[str, Any]] = table.to_pylist()
        parts: list[dict[str, Any]] = [
            {name: value if isinstance(value, str) else tuple(value) for name, value in row.items()} for row in rows
        ]
        return cls(tuple(Bins(**part) for part in parts))


def numbers(column: pa.Array) -> NDArray[np.float64]:
    """A numeric column as float64 with NaN for null; a vector column as the norms of its rows."""
    if pa.types.is_list(column.type):
        if not len(column):
            return np.zeros(0)
        flat = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
        return np.asarray(np.linalg.norm(flat, axis=1))
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)


def freeze(contract: Contract, columns: Mapping[str, pa.Array]) -> Reference:
    """Freeze bins over the first learned rows: deciles of numbers, the most frequent words of categories."""
    found = []
    for feature in contract.features:
        column = columns[feature.name]
        if isinstance(feature, Categorical):
            counted = sorted(column.value_counts().to_pylist(), key=lambda c: (-c["counts"], c["values"] or ""))
            words = tuple(c["values"] for c in counted if c["values"] is not None)[:MAX_WORDS] or (OTHER,)
            bins = Bins(feature=feature.name, words=words, sample_words=tuple(column.to_pylist()))
        else:
            values = numbers(column)
            known = values[~np.isnan(values)]
            cuts = np.quantile(known, np.arange(1, DECILES) / DECILES) if len(known) else np.zeros(1)
            edges = tuple(float(e) for e in np.unique(cuts))
            sample = () if isinstance(feature, Vector) else tuple(None if np.isnan(v) else float(v) for v in values)
            bins = Bins(feature=feature.name, edges=edges, sample=sample)
        counts = np.bincount(bins.assign(column), minlength=bins.size)
        found.append(_with_counts(bins, counts))
    return Reference(tuple(found))


def _with_counts(bins: Bins, counts: NDArray[np.int64]) -> Bins:
    return Bins(
        feature=bins.feature,
        edges=bins.edges,
        words=bins.words,
        counts=tuple(int(c) for c in counts),
        sample=bins.sample,
        sample_words=bins.sample_words,
    )


def histogram(contract: Contract, reference: Reference, columns: Mapping[str, pa.Array], hours: pa.Array) -> pa.Table:
    """Count rows by hour, feature, segment and bin, with sums and sums of squares of numbers.

    Args:
        contract: names the segments.
        reference: the bins.
        columns: feature and segment columns, as long as `hours`.
        hours: an instant per row; it is floored to the hour. Null counts as the epoch.

    Returns:
        A table of `HISTOGRAM`; segment `""` is all rows, others are `name=value`.
    """
    floored = pc.floor_temporal(pc.fill_null(hours, pa.scalar(0, TIMESTAMP)), unit="hour")
    hour_codes = floored.dictionary_encode()
    pieces = [
        _count(bins, columns[bins.feature], hour_codes, names, codes)
        for names, codes in _segmentations(contract, columns)
        for bins in reference.bins
    ]
    return pa.concat_tables(pieces)


def _segmentations(
    contract: Contract, columns: Mapping[str, pa.Array]
) -> list[tuple[list[str], NDArray[np.int64] | None]]:
    found: list[tuple[list[str], NDArray[np.int64] | None]] = [([""], None)]
    for segment in contract.segments:
        words = pc.fill_null(columns[segment], OTHER).dictionary_encode()
        names = [f"{segment}={word}" for word in words.dictionary.to_pylist()]
        found.append((names, words.indices.to_numpy(zero_copy_only=False).astype(np.int64)))
    return found


def _count(
    bins: Bins, column: pa.Array, hours: pa.DictionaryArray, segments: Sequence[str], codes: NDArray[np.int64] | None
) -> pa.Table:
    hour = hours.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    cell = hour * len(segments) * bins.size + bins.assign(column)
    if codes is not None:
        cell += codes * bins.size
    cells = len(hours.dictionary) * len(segments) * bins.size
    values = np.zeros(len(column)) if bins.categorical else np.nan_to_num(numbers(column))
    counts = np.bincount(cell, minlength=cells)
    used = np.flatnonzero(counts)
    rest, place = np.divmod(used, bins.size)
    at_hour, at_segment = np.divmod(rest, len(segments))
    return pa.table(
        [
            hours.dictionary.take(pa.array(at_hour)),
            pa.array([bins.feature] * len(used), pa.string()),
            pa.array([segments[i] for i in at_segment], pa.string()),
            pa.array(place, pa.int32()),
            pa.array(counts[used], pa.int64()),
            pa.array(np.bincount(cell, values, cells)[used]),
            pa.array(np.bincount(cell, values**2, cells)[used]),
        ],
        schema=HISTOGRAM,
    )


def merge(first: pa.Table, second: pa.Table, *, hours: int | None = None) -> pa.Table:
    """Add two histograms; with `hours`, keep only the newest so many hours. Rows come out sorted.

    Only the `MAX_SEGMENTS` largest values of a segment keep a name; the others become `name=*`.
    """
    grouped = _sum(_bound_segments(pa.concat_tables([first, second])))
    if hours is not None and grouped.num_rows:
        newest = pc.max(grouped.column("hour")).as_py()
        first_of_all = datetime.min.replace(tzinfo=UTC)
        oldest = pa.scalar(newest - min(timedelta(hours=hours - 1), newest - first_of_all), TIMESTAMP)
        grouped = grouped.filter(pc.greater_equal(grouped.column("hour"), oldest))
    return grouped.sort_by([(key, "ascending") for key in _KEYS])


def over_hours(table: pa.Table) -> pa.Table:
    """The histogram with all hours added up (hour = the newest)."""
    if not table.num_rows:
        return table
    newest = pa.array([pc.max(table.column("hour")).as_py()] * table.num_rows, TIMESTAMP)
    return _sum(table.set_column(0, HISTOGRAM.field("hour"), newest))


def _sum(table: pa.Table) -> pa.Table:
    grouped = table.group_by(_KEYS, use_threads=False).aggregate([(name, "sum") for name in _SUMS])
    return grouped.rename_columns([*_KEYS, *_SUMS] if grouped.column_names[0] == "hour" else [*_SUMS, *_KEYS]).select(
        HISTOGRAM.names
    )


def _bound_segments(table: pa.Table) -> pa.Table:
    names = set(table.column("segment").unique().to_pylist())
    by_segment: dict[str, list[str]] = {}
    for name in names - {""}:
        by_segment.setdefault(name.split("=", 1)[0], []).append(name)
    if all(len(values) <= MAX_SEGMENTS for values in by_segment.values()):
        return table
    sizes = table.group_by("segment").aggregate([("count", "sum")]).to_pylist()
    weight = {row["segment"]: row["count_sum"] for row in sizes}
    renamed: dict[str, str] = {}
    for segment, values in by_segment.items():
        kept = sorted(values, key=lambda v: (-weight[v], v))[: MAX_SEGMENTS - 1]
        renamed |= {v: f"{segment}={OTHER}" for v in values if v not in kept}
    column = [renamed.get(v, v) for v in table.column("segment").to_pylist()]
    return table.set_column(2, HISTOGRAM.field("segment"), pa.array(column, pa.string()))


def table_to_bytes(table: pa.Table) -> bytes:
    """An Arrow IPC file, Zstandard-compressed."""
    return ipc.write_file(table)


def table_from_bytes(data: bytes, limits: ipc.Limits = ipc.FILE_LIMITS) -> pa.Table:
    """Read an Arrow IPC file.

    Raises:
        Corrupt: it is not one, or would unpack to more than the limits.
    """
    return ipc.read_file(data, "an Arrow file of the store", limits)
