"""The frozen reference of a pipeline as a value and as bytes, and where each count stands in one row of cells.

It is written once, under its own digest, and never changes; every count that was made with it can be added to any other.
"""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stream_trainer import ipc
from stream_trainer.errors import Corrupt
from stream_trainer.reference.bins import Bins
from stream_trainer.reference.grid import Grid, grid

OTHER = "*"
_SEGMENT = "segment"
_FLOATS, _TEXTS = pa.list_(pa.float64()), pa.list_(pa.string())
_STORED = pa.schema(
    [
        pa.field("feature", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("edges", _FLOATS),
        pa.field("low", pa.float64()),
        pa.field("high", pa.float64()),
        pa.field("words", _TEXTS),
        pa.field("known", _TEXTS),
        pa.field("centre", pa.float64()),
        pa.field("spread", pa.float64()),
        pa.field("centres", _FLOATS),
        pa.field("spreads", _FLOATS),
        pa.field("counts", pa.list_(pa.int64())),
        pa.field("sample", _FLOATS),
        pa.field("sample_words", _TEXTS),
    ]
)
_TEN_BINS = ("feature", "edges", "words", "counts", "sample", "sample_words")


class Outdated(Corrupt):
    """It was written by a release that counted otherwise: nothing can be added to it or compared with it."""


@dataclass(frozen=True, slots=True)
class Segments:
    """The values of one segment that have a name; all others, and none at all, count as `name=*`."""

    name: str
    values: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """`name=value` for each, `name=*` the last."""
        return tuple(f"{self.name}={value}" for value in (*self.values, OTHER))


@dataclass(frozen=True)
class Reference:
    """The frozen bins of a pipeline by feature, the pseudo-features among them, and the named values of its segments."""

    bins: tuple[Bins, ...]
    segments: tuple[Segments, ...] = ()

    def of(self, feature: str) -> Bins:
        """The bins of a feature.

        Raises:
            KeyError: there is no such feature.
        """
        return self.by_name[feature]

    @cached_property
    def by_name(self) -> dict[str, Bins]:
        """All bins by their feature."""
        return {bins.feature: bins for bins in self.bins}

    @cached_property
    def places(self) -> dict[tuple[str, str], slice]:
        """Where the counts of a (feature, segment) stand in a row of cells: fine bins for segment "", else coarse ones.

        Random projections are counted for all rows only: a direction has no meaning by itself.
        """
        found: dict[tuple[str, str], slice] = {}
        at = 0
        for bins in self.bins:
            found[bins.feature, ""] = slice(at, at + bins.size)
            at += bins.size
        for segment in (name for segments in self.segments for name in segments.names):
            for bins in self.in_segments:
                found[bins.feature, segment] = slice(at, at + bins.coarse_size)
                at += bins.coarse_size
        return found

    @cached_property
    def in_segments(self) -> tuple[Bins, ...]:
        """Those that are counted by segment and version too."""
        return tuple(bins for bins in self.bins if not bins.feature.startswith("_projection/"))

    @cached_property
    def coarse_places(self) -> dict[str, slice]:
        """Where the coarse counts of a feature stand in a row of coarse cells: that of one version."""
        found, at = {}, 0
        for bins in self.in_segments:
            found[bins.feature] = slice(at, at + bins.coarse_size)
            at += bins.coarse_size
        return found

    @cached_property
    def coarse_of(self) -> NDArray[np.int32]:
        """The place in a row of coarse cells of each fine bin, of those that are counted by segment; -1 for others."""
        found = np.full(self.fine_cells, -1, np.int32)
        for bins in self.in_segments:
            found[self.places[bins.feature, ""]] = bins.coarse + self.coarse_places[bins.feature].start
        return found

    @cached_property
    def fine_cells(self) -> int:
        """How many cells the fine bins have: they are the first ones of a row."""
        return sum(bins.size for bins in self.bins)

    def grid(self, names: frozenset[str]) -> Grid:
        """How some of the numbers find their bins; made once."""
        if names not in self._grids:
            chosen = [b for b in self.bins if b.feature in names]
            self._grids[names] = grid([(b, self.places[b.feature, ""].start) for b in chosen])
        return self._grids[names]

    @cached_property
    def _grids(self) -> dict[frozenset[str], Grid]:
        return {}

    def __reduce__(self) -> tuple[type["Reference"], tuple[object, ...]]:
        """Without what can be made again: it travels to the workers."""
        return Reference, (self.bins, self.segments)

    @cached_property
    def coarse_cells(self) -> int:
        """How many cells a row of coarse counts has."""
        return sum(bins.coarse_size for bins in self.in_segments)

    def moments_of(self, feature: str) -> int:
        """Where the sum of a feature's steps stands in a row of cells; that of their squares is the next."""
        return self._counts + 2 * self._order[feature]

    @cached_property
    def cells(self) -> int:
        """How many cells a row has: all counts, then the sums."""
        return self._counts + 2 * len(self.bins)

    @cached_property
    def _counts(self) -> int:
        return max((place.stop for place in self.places.values()), default=0)

    @cached_property
    def _order(self) -> dict[str, int]:
        return {bins.feature: i for i, bins in enumerate(self.bins)}

    def without_samples(self) -> "Reference":
        """The bins alone: what travels to the workers with every micro-batch."""
        kept = ({f.name: getattr(b, f.name) for f in fields(Bins)} for b in self.bins)
        return Reference(tuple(Bins(**(k | {"sample": (), "sample_words": ()})) for k in kept), self.segments)

    def to_bytes(self) -> bytes:
        """One Arrow IPC file, a row per feature and segment."""
        rows: list[dict[str, Any]] = [{f.name: getattr(b, f.name) for f in fields(Bins)} for b in self.bins]
        rows += [{"feature": s.name, "kind": _SEGMENT, "words": s.values} for s in self.segments]
        columns = [pa.array([row.get(field.name) for row in rows], field.type) for field in _STORED]
        return table_to_bytes(pa.table(columns, schema=_STORED))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Reference":
        """The inverse of `to_bytes`.

        Raises:
            Outdated: it is of a release that had ten bins a feature.
            Corrupt: it is something else.
        """
        table = table_from_bytes(data)
        if tuple(table.column_names) == _TEN_BINS:
            raise Outdated("the drift reference is of an older release, which had other bins")
        if table.schema != _STORED:
            raise Corrupt("a drift reference has other columns than it must")
        rows: list[dict[str, Any]] = table.to_pylist()
        try:
            bins = tuple(Bins(**_values(row)) for row in rows if row["kind"] != _SEGMENT)
            segments = tuple(Segments(row["feature"], tuple(row["words"])) for row in rows if row["kind"] == _SEGMENT)
            known = all(b.kind in ("number", "words", "index") and b.size == len(b.counts) for b in bins)
        except (TypeError, KeyError) as error:
            raise Corrupt(f"a drift reference is incomplete: {error}") from error
        if not known:
            raise Corrupt("a drift reference has bins without counts, or of no known kind")
        return cls(bins, segments)


def _values(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value if isinstance(value, str | float) else tuple(value) for name, value in row.items()}


def table_to_bytes(table: pa.Table) -> bytes:
    """An Arrow IPC file, Zstandard-compressed."""
    return ipc.write_file(table)


def table_from_bytes(data: bytes, limits: ipc.Limits = ipc.FILE_LIMITS) -> pa.Table:
    """Read an Arrow IPC file.

    Raises:
        Corrupt: it is not one, or would unpack to more than the limits.
    """
    return ipc.read_file(data, "an Arrow file of the store", limits)
