"""Rows to counts: one row of whole numbers for all bins of all features and segments, so that adding is adding numbers.

A row of cells holds the counts in the places that `Reference.places` names, and then, for each feature, the sum of its
values in steps (`Bins.steps`) and of their squares. Nothing here depends on the order of rows, nor on how they were grouped.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stream_trainer.contract import Contract
from stream_trainer.errors import Corrupt
from stream_trainer.reference import pseudo
from stream_trainer.reference.bins import Column, of_steps
from stream_trainer.reference.frozen import Reference, Segments

Cells = NDArray[np.int64]


class Moments(NamedTuple):
    """Of the finite values of one feature, each taken for at most 64 spreads from the centre."""

    known: int
    mean: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Coded:
    """Rows as bins: the fine bin of each row by feature, the place of its value by segment, its steps by feature."""

    reference: Reference
    rows: int
    bins: Mapping[str, Cells]
    segments: tuple[Cells, ...]
    steps: Mapping[str, Cells]

    def count(self, groups: Cells | None = None, many: int = 1) -> Cells:
        """The cells of each group of rows, `[many, reference.cells]`.

        Args:
            groups: the group of each row, below `many`; all rows are one group without it.
            many: how many groups there are.
        """
        out = np.zeros((many, self.reference.cells), np.int64)
        group = np.zeros(self.rows, np.int64) if groups is None else groups
        for name, bins in self.bins.items():
            out[:, self.reference.places[name, ""]] = _tally(bins, group, self.reference.of(name).size, many)
        for segments, codes in zip(self.reference.segments, self.segments, strict=True):
            self._count_segment(out, segments, codes, group, many)
        for name, whole in self.steps.items():
            at, steps = self.reference.moments_of(name), whole.astype(np.float64)
            out[:, at] = _sum(group, steps, many)
            out[:, at + 1] = _sum(group, steps * steps, many)
        return out

    def count_coarse(self, groups: Cells, many: int) -> Cells:
        """The coarse cells of each group of rows, `[many, reference.coarse_cells]`; a negative group is left out."""
        out = np.zeros((many, self.reference.coarse_cells), np.int64)
        kept = groups >= 0
        for bins in self.reference.in_segments:
            if bins.feature in self.bins:
                coarse = bins.coarse[self.bins[bins.feature][kept]]
                out[:, self.reference.coarse_places[bins.feature]] = _tally(
                    coarse, groups[kept], bins.coarse_size, many
                )
        return out

    def _count_segment(self, out: Cells, segments: Segments, codes: Cells, group: Cells, many: int) -> None:
        """The values of a segment stand one after the other, each with all features: one block of cells."""
        reference, values = self.reference, len(segments.names)
        width = reference.coarse_cells
        first = reference.places[reference.in_segments[0].feature, segments.names[0]].start
        block = out[:, first : first + values * width].reshape(many, values, width)
        joint = group * values + codes
        for bins in reference.in_segments:
            if bins.feature in self.bins:
                found = _tally(bins.coarse[self.bins[bins.feature]], joint, bins.coarse_size, many * values)
                block[:, :, reference.coarse_places[bins.feature]] = found.reshape(many, values, bins.coarse_size)


def coded(
    contract: Contract, reference: Reference, columns: Mapping[str, pa.Array], features: Iterable[str] | None = None
) -> Coded:
    """Find the bins of rows.

    Args:
        contract: what the columns are.
        reference: the bins.
        columns: features, segments, `_label` and `_output`, as for `freeze`; equally long.
        features: names of what is counted; None: whatever the columns tell.
    """
    wanted = {bins.feature for bins in reference.bins} if features is None else set(features)
    given: dict[str, Column] = {name: columns[name] for name in wanted if name in columns and name != pseudo.OUTPUT}
    if pseudo.OUTPUT in wanted and pseudo.OUTPUT in columns:
        given |= pseudo.answers(contract, columns[pseudo.OUTPUT])
    if any(name.startswith(pseudo.PROJECTION) for name in wanted):
        known = {bins.feature: bins for bins in reference.bins}
        projected = pseudo.projections(contract, known, columns)
        given |= {f"{pseudo.PROJECTION}{i}": projected[:, i] for i in range(projected.shape[1])}
    counted = [bins for bins in reference.bins if bins.feature in given]
    return Coded(
        reference=reference,
        rows=len(next(iter(columns.values()))),
        bins={bins.feature: bins.assign(given[bins.feature]) for bins in counted},
        segments=tuple(_codes(segments, columns[segments.name]) for segments in reference.segments),
        steps={bins.feature: bins.steps(given[bins.feature]) for bins in counted if not bins.categorical},
    )


def moments(reference: Reference, cells: Cells, feature: str) -> Moments:
    """Mean and deviation of a numeric feature in a row of cells, in its own unit."""
    bins = reference.of(feature)
    at = reference.moments_of(feature)
    counts = cells[reference.places[feature, ""]]
    known = int(counts[: bins.place("above") + 1].sum())
    if not known:
        return Moments(0, float("nan"), float("nan"))
    mean = of_steps(float(cells[at])) / known
    variance = max(0.0, of_steps(of_steps(float(cells[at + 1]))) / known - mean * mean)
    return Moments(known, bins.centre + bins.spread * mean, bins.spread * float(np.sqrt(variance)))


def pack(cells: Cells) -> bytes:
    """Those cells that are not 0, as bytes: their places (int32), then their values (int64), little endian."""
    used = np.flatnonzero(cells)
    return used.astype("<i4").tobytes() + cells[used].astype("<i8").tobytes()


def unpack(data: bytes, cells: int) -> Cells:
    """The inverse of `pack`.

    Raises:
        Corrupt: it is something else.
    """
    used = len(data) // 12
    if len(data) != 12 * used:
        raise Corrupt(f"{len(data)} bytes are no counts")
    places = np.frombuffer(data, "<i4", used)
    if used and not 0 <= places.min() <= places.max() < cells:
        raise Corrupt(f"counts in place {places.max()}, of {cells}")
    out = np.zeros(cells, np.int64)
    out[places] = np.frombuffer(data, "<i8", used, 4 * used)
    return out


def _tally(codes: Cells, groups: Cells, size: int, many: int) -> Cells:
    return np.bincount(codes + groups * size, minlength=many * size).reshape(many, size)


def _sum(groups: Cells, values: NDArray[np.float64], many: int) -> Cells:
    """Whole numbers below 2**53 in all: exact as floats."""
    found: Cells = np.bincount(groups, values, many).astype(np.int64)
    return found


def _codes(segments: Segments, column: pa.Array) -> Cells:
    words = column.dictionary_encode()
    place = {value: i for i, value in enumerate(segments.values)}
    rest = len(segments.values)
    table = [place.get(word, rest) for word in words.dictionary.to_pylist()]
    codes = words.indices.fill_null(len(table)).to_numpy(zero_copy_only=False)
    places: Cells = np.asarray([*table, rest], dtype=np.int64)
    return places[np.asarray(codes, dtype=np.int64)]
