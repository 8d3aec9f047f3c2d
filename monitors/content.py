"""What a window holds, as a value that can be added up: in any order and any grouping, to the same.

Counts are whole numbers over frozen bins. Rows that were counted with different bins cannot be put together: of a window
that has both, only their number is known.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import reduce
from typing import Any, TypeVar

import msgspec
import numpy as np
import pyarrow as pa

from monitors import sketches
from monitors.performance import tally as tallies
from monitors.performance.tally import Tally
from stream_trainer.offsets import Ranges
from stream_trainer.reference import Reference, pack, table_from_bytes, table_to_bytes, unpack
from stream_trainer.reference.counting import Cells

PRIORITY = "_priority"
KEPT_VERSIONS = 64
PARTS = 4
OLDER = 0
MIXED = "mixed"

T = TypeVar("T")
K = TypeVar("K", int, str)


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """What the rows of one window have in common; `Content()` is that of no rows.

    Attributes:
        first: with `last` the earliest and the latest event time.
        versions: rows by the version that answered: the 64 highest, `OLDER` for those before; rows that none answered
            are not in it. `parts`: the same of each quarter of the window's time.
        offsets: the records, per topic and partition `[first, next)`.
        digest: of the reference whose bins are counted, None without one, `MIXED` when there were several.
        counts: a row of cells, packed; by version coarse ones.
        missing: rows in which two features are both missing (`missing.both_missing`).
        sample: a bounded sample of rows, an Arrow file.
        sketches: how many different values, by feature.
        tally: how the answers turned out, for joined examples.
    """

    rows: int = 0
    first: datetime | None = None
    last: datetime | None = None
    versions: dict[int, int] = {}
    parts: dict[int, list[int]] = {}
    offsets: Ranges = {}
    digest: str | None = None
    counts: bytes = b""
    missing: bytes = b""
    by_version: dict[int, bytes] = {}
    sample: bytes | None = None
    sketches: dict[str, bytes] = {}
    tally: Tally = Tally()

    def cells(self, reference: Reference) -> Cells:
        """The counts, in the places of the reference that `digest` names."""
        return unpack(self.counts, reference.cells)

    @property
    def span(self) -> tuple[int, int] | None:
        """The lowest and the highest version that answered; None when none did."""
        known = [version for version in self.versions if version != OLDER]
        return (min(known), max(known)) if known else None


def add(first: Content, second: Content, *, sample_rows: int) -> Content:
    """Both together; the sample keeps the rows of the lowest priority."""
    if not (first.rows and second.rows):
        return first if first.rows else second
    same = first.digest == second.digest
    return Content(
        rows=first.rows + second.rows,
        first=_either(min, first.first, second.first),
        last=_either(max, first.last, second.last),
        versions=newest(summed(first.versions, second.versions), sum),
        parts=newest(_both(first.parts, second.parts, _each), every),
        offsets=covered(first.offsets, second.offsets),
        digest=first.digest if same else MIXED,
        counts=_added(first.counts, second.counts) if same else b"",
        missing=_added(first.missing, second.missing) if same else b"",
        by_version=newest(_both(first.by_version, second.by_version, _added), _all) if same else {},
        sample=_sampled(first.sample, second.sample, sample_rows),
        sketches=_both(first.sketches, second.sketches, sketches.add),
        tally=tallies.add(first.tally, second.tally),
    )


def slim(content: Content) -> Content:
    """Without what only a single window is asked for: what is kept to look at several windows together."""
    return msgspec.structs.replace(content, parts={}, by_version={}, sample=None, sketches={}, tally=Tally())


def newest(values: Mapping[int, T], together: Callable[[list[T]], T]) -> dict[int, T]:
    """The `KEPT_VERSIONS` highest versions, the others together under `OLDER`; the same however one got there."""
    kept = sorted((v for v in values if v != OLDER), reverse=True)[:KEPT_VERSIONS]
    others = [values[v] for v in sorted(values) if v not in set(kept)]
    return ({OLDER: together(others)} if others else {}) | {v: values[v] for v in sorted(kept)}


def lowest(sample: pa.Table, rows: int) -> pa.Table:
    """The rows of the lowest priority; a row that is there twice counts twice."""
    keys = [(PRIORITY, "ascending"), *((name, "ascending") for name in sample.column_names if name != PRIORITY)]
    return sample.sort_by(keys).slice(0, rows)


def _each(first: list[int], second: list[int]) -> list[int]:
    return [a + b for a, b in zip(first, second, strict=True)]


def every(parts: list[list[int]]) -> list[int]:
    """Part by part."""
    return [sum(part) for part in zip(*parts, strict=True)]


def _all(packed: Iterable[bytes]) -> bytes:
    return reduce(_added, packed, b"")


def _added(first: bytes, second: bytes) -> bytes:
    """Packed cells of one layout, added; nobody here needs to know how many there are."""
    if not (first and second):
        return first or second
    cells = 1 + max(_highest(first), _highest(second))
    return pack(unpack(first, cells) + unpack(second, cells))


def _highest(packed: bytes) -> int:
    return int(np.frombuffer(packed, "<i4", len(packed) // 12)[-1])


def _sampled(first: bytes | None, second: bytes | None, rows: int) -> bytes | None:
    if first is None or second is None:
        return second if first is None else first
    both = pa.concat_tables([table_from_bytes(first), table_from_bytes(second)])
    return table_to_bytes(lowest(both, rows).combine_chunks())


def covered(first: Ranges, second: Ranges) -> Ranges:
    """The records of both: ranges that hold them."""
    return _both(first, second, lambda a, b: _both(a, b, lambda x, y: (min(x[0], y[0]), max(x[1], y[1]))))


def summed(first: Mapping[K, int], second: Mapping[K, int]) -> dict[K, int]:
    """Both, key by key."""
    return _both(first, second, lambda a, b: a + b)


def _both(first: Mapping[Any, T], second: Mapping[Any, T], join: Callable[[T, T], T]) -> dict[Any, T]:
    found = {**first, **second}
    found |= {key: join(first[key], second[key]) for key in first.keys() & second.keys()}
    return dict(sorted(found.items()))


def _either(choose: Callable[[Any, Any], Any], first: Any, second: Any) -> Any:
    if first is None or second is None:
        return second if first is None else first
    return choose(first, second)
