"""What a lineage has learned from, by event time: a row of cells for each slot of time, the newest few of them.

`reference_hours` are cut into at most 24 slots of whole hours: what is forgotten is forgotten a slot at a time, and the
file stays small whatever the horizon. Time has come as far as the fifth highest event time says: a few clocks that are
ahead make nothing forgotten. The same rows learned in any order and in any batches give the same bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from stream_trainer.errors import Corrupt
from stream_trainer.reference.counting import Cells, Coded
from stream_trainer.reference.frozen import Reference, table_from_bytes, table_to_bytes
from stream_trainer.schema import TIMESTAMP

SLOTS = 24
SUPPORT = 5
_HOUR = 3_600_000_000
_STORED = pa.schema(
    [
        pa.field("slot", TIMESTAMP),
        pa.field("cells", pa.list_(pa.int32())),
        pa.field("counts", pa.list_(pa.int64())),
    ]
)


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """Rows of cells by the beginning of their slot, in microseconds since 1970. Never modified."""

    slots: Mapping[int, Cells] = field(default_factory=dict)

    def add(self, rows: Coded, times: pa.Array, hours: int) -> "Learned":
        """With more rows; `times` are their instants, and what is older than the newest `hours` is forgotten.

        The newest is the slot in or after which `SUPPORT` rows are, so nothing is forgotten before there are as many.
        """
        length = slot_hours(hours) * _HOUR
        starts = times.cast(pa.int64()).to_numpy(zero_copy_only=False) // length * length
        if len(starts) and starts.min() == starts.max():
            found, counted = starts[:1], rows.count()
        else:
            found, groups = np.unique(starts, return_inverse=True)
            counted = rows.count(groups.astype(np.int64), len(found))
        slots = dict(self.slots)
        for start, cells in zip(found.tolist(), counted, strict=True):
            slots[start] = slots[start] + cells if start in slots else cells.copy()
        newest = _supported(slots, rows.reference)
        if newest is None:
            return Learned(dict(sorted(slots.items())))
        oldest = newest - (-(-hours * _HOUR // length) - 1) * length
        return Learned({start: slots[start] for start in sorted(slots) if start >= oldest})

    def total(self, reference: Reference) -> Cells:
        """All slots together."""
        return sum(self.slots.values(), np.zeros(reference.cells, np.int64))

    def to_bytes(self) -> bytes:
        """An Arrow IPC file, a row a slot; cells that are 0 are left out."""
        used = [(start, cells, np.flatnonzero(cells)) for start, cells in self.slots.items()]
        columns = [
            pa.array([start for start, _, _ in used], pa.int64()).cast(TIMESTAMP),
            pa.array([at.astype(np.int32) for _, _, at in used], _STORED.field("cells").type),
            pa.array([cells[at] for _, cells, at in used], _STORED.field("counts").type),
        ]
        return table_to_bytes(pa.table(columns, schema=_STORED))

    @classmethod
    def from_bytes(cls, data: bytes, reference: Reference | None) -> "Learned":
        """The inverse of `to_bytes`; without a reference nothing was counted yet.

        Raises:
            Corrupt: it is something else, or was counted with other bins.
        """
        table = table_from_bytes(data)
        if table.schema != _STORED:
            raise Corrupt("what was learned from has other columns than it must")
        cells = 0 if reference is None else reference.cells
        starts = table.column("slot").cast(pa.int64()).to_pylist()
        places, counts = table.column("cells").to_pylist(), table.column("counts").to_pylist()
        rows = zip(starts, places, counts, strict=True)
        return cls({start: _row(at, values, cells) for start, at, values in rows})


def slot_hours(hours: int) -> int:
    """How long a slot is for such a horizon."""
    return -(-hours // SLOTS)


def _supported(slots: Mapping[int, Cells], reference: Reference) -> int | None:
    """The newest slot in or after which `SUPPORT` rows are; each row is in one fine bin of a feature."""
    place, rows = reference.places[reference.bins[0].feature, ""], 0
    for start in sorted(slots, reverse=True):
        rows += int(slots[start][place].sum())
        if rows >= SUPPORT:
            return start
    return None


def _row(places: list[int] | None, counts: list[int] | None, cells: int) -> Cells:
    if places is None or counts is None or len(places) != len(counts):
        raise Corrupt("what was learned from has places without counts")
    at = np.asarray(places, np.int64)
    if len(at) and not 0 <= at.min() <= at.max() < cells:
        raise Corrupt(f"what was learned from counts in place {at.max()} of {cells}")
    out = np.zeros(cells, np.int64)
    out[at] = counts
    return out
