"""Rows to counts: one row of whole numbers for all bins of all features and segments, so that adding is adding numbers.

A row of cells holds the counts in the places that `Reference.places` names, and then, for each feature, the sum of its
values in steps (`Bins.steps`) and of their squares. Nothing here depends on the order of rows, nor on how they were grouped.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stream_trainer.contract import Contract, Numeric
from stream_trainer.errors import Corrupt
from stream_trainer.reference import pseudo
from stream_trainer.reference.bins import Column, coded_words, numbers, of_steps
from stream_trainer.reference.frozen import Reference, Segments
from stream_trainer.reference.grid import Grid

Cells = NDArray[np.int64]
Places: TypeAlias = NDArray[np.int16] | NDArray[np.int32]
_AT_ONCE = 2**15  # values


class Moments(NamedTuple):
    """Of the finite values of one feature, each taken for at most 64 spreads from the centre."""

    known: int
    mean: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Coded:
    """Rows as bins.

    Attributes:
        features: what is counted; first those that have steps.
        places: the place of each value in a row of cells, `[features, rows]`.
        steps: `Bins.steps` of the numbers, `[numbers, rows]`.
        segments: the value of each row, by segment.
    """

    reference: Reference
    rows: int
    features: tuple[str, ...]
    places: Places
    steps: NDArray[np.int32]
    segments: tuple[Cells, ...]

    def count(self, groups: Cells | None = None, many: int = 1) -> Cells:
        """The cells of each group of rows, `[many, reference.cells]`.

        Args:
            groups: the group of each row, below `many`; all rows are one group without it.
            many: how many groups there are.
        """
        out = np.zeros((many, self.reference.cells), np.int64)
        width = self.reference.fine_cells
        for part in self._parts(many * width):
            group = None if groups is None else groups[part]
            out[:, :width] += _tally(self.places[:, part], group, width, many)
            self._sum(out, part, group, many)
        if self.segments:
            for part in self._parts(many * self.reference.cells):
                self._count_segments(out, part, None if groups is None else groups[part], many)
        return out

    def count_coarse(self, groups: Cells, many: int) -> Cells:
        """The coarse cells of each group of rows, `[many, reference.coarse_cells]`; a negative group is left out."""
        out = np.zeros((many, self.reference.coarse_cells), np.int64)
        kept = groups >= 0
        every = bool(kept.all())
        for part in self._parts(out.size):
            coarse, group = self._coarse(part), groups[part]
            if not every:
                coarse, group = coarse[:, kept[part]], group[kept[part]]
            out += _tally(coarse, group, self.reference.coarse_cells, many)
        return out

    def _parts(self, cells: int) -> list[slice]:
        """Rows to be counted together: few enough to stay near the processor, not fewer than there are cells to add."""
        rows = max(_AT_ONCE, cells) // max(1, len(self.places))
        return [slice(start, start + rows) for start in range(0, self.rows, rows)]

    def _coarse(self, part: slice) -> NDArray[np.int32]:
        inside = {bins.feature for bins in self.reference.in_segments}
        chosen = [i for i, name in enumerate(self.features) if name in inside]
        return self.reference.coarse_of.take(self.places[chosen, part])

    def _sum(self, out: Cells, part: slice, groups: Cells | None, many: int) -> None:
        """Whole numbers below 2**53 in all: exact as floats."""
        at = np.array([self.reference.moments_of(name) for name in self.features[: len(self.steps)]], np.int64)
        steps = self.steps[:, part].astype(np.float64)
        if groups is None:
            out[0, at] += steps.sum(axis=1).astype(np.int64)
            out[0, at + 1] += np.einsum("ij,ij->i", steps, steps).astype(np.int64)
            return
        joint = (groups + np.arange(len(steps))[:, None] * many).ravel()
        for place, values in ((at, steps), (at + 1, steps * steps)):
            found = np.bincount(joint, values.ravel(), many * len(steps)).astype(np.int64)
            out[:, place] += found.reshape(-1, many).T

    def _count_segments(self, out: Cells, part: slice, groups: Cells | None, many: int) -> None:
        """The values of a segment stand one after the other, each with all features: one block of cells."""
        coarse, width = self._coarse(part), self.reference.coarse_cells
        at = self.reference.fine_cells
        for segments, codes in zip(self.reference.segments, self.segments, strict=True):
            values = len(segments.names)
            joint = codes[part] if groups is None else groups * values + codes[part]
            found = _tally(coarse, joint, width, many * values)
            out[:, at : at + values * width] += found.reshape(many, values * width)
            at += values * width


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
    given = _given(contract, wanted, columns)
    turned = any(name.startswith(pseudo.PROJECTION) for name in wanted)
    plain = {f.name for f in contract.features if isinstance(f, Numeric)}
    arrays = {name: numbers(column) for name, column in columns.items() if name in plain}
    project = pseudo.projector(contract, reference.by_name, {**columns, **arrays}) if turned else None
    made = set() if project is None else {f"{pseudo.PROJECTION}{i}" for i in range(pseudo.PROJECTIONS)}
    numeric = frozenset(b.feature for b in reference.bins if b.feature in {*given, *made} and not b.categorical)
    named = [b for b in reference.bins if b.feature in given and b.categorical]
    grid, rows = reference.grid(numeric), len(next(iter(columns.values())))
    small = np.int16 if reference.fine_cells < 2**15 else np.int32
    places = np.empty((len(grid.bins) + len(named), rows), small)
    steps = np.empty((len(grid.bins), rows), np.int32)
    _code_numbers(grid, given, arrays, project, places, steps)
    words = {
        name: columns[name].dictionary_encode()
        for name in {*(b.feature for b in named if b.kind == "words"), *(s.name for s in reference.segments)}
    }
    for i, bins in enumerate(named, start=len(grid.bins)):
        places[i] = bins.assign(words.get(bins.feature, given[bins.feature]))
        places[i] += reference.places[bins.feature, ""].start
    return Coded(
        reference=reference,
        rows=rows,
        features=tuple(bins.feature for bins in (*grid.bins, *named)),
        places=places,
        steps=steps,
        segments=tuple(_codes(segments, words[segments.name]) for segments in reference.segments),
    )


def _given(contract: Contract, wanted: set[str], columns: Mapping[str, pa.Array]) -> dict[str, Column]:
    given: dict[str, Column] = {name: columns[name] for name in wanted if name in columns and name != pseudo.OUTPUT}
    if pseudo.OUTPUT in wanted and pseudo.OUTPUT in columns:
        given |= pseudo.answers(contract, columns[pseudo.OUTPUT])
    return given


def _code_numbers(
    grid: Grid,
    given: Mapping[str, Column],
    known: Mapping[str, NDArray[np.float64]],
    project: pseudo.Projector | None,
    places: Places,
    steps: NDArray[np.int32],
) -> None:
    """A few rows of all features at a time, so that they stay near the processor; `known`: columns as arrays."""
    if not grid.bins:
        return
    columns = {i: given[bins.feature] for i, bins in enumerate(grid.bins) if bins.feature in given}
    arrays = {i: numbers(known.get(grid.bins[i].feature, column)) for i, column in columns.items()}
    nulls = [_nulls(columns[i]) if i in columns else None for i in range(len(grid.bins))]
    names = [bins.feature for bins in grid.bins]
    made = [] if project is None else [names.index(f"{pseudo.PROJECTION}{i}") for i in range(pseudo.PROJECTIONS)]
    rows = places.shape[1]
    size = max(1, _AT_ONCE // len(names))
    for start in range(0, rows, size):
        part = slice(start, min(start + size, rows))
        values = np.empty((len(names), part.stop - start))
        for i, array in arrays.items():
            values[i] = array[part]
        if project is not None:
            values[made] = project(part)
        missing = [null if null is None else null[part] for null in nulls]
        places[: len(names), part] = grid.places(values, missing)
        steps[:, part] = grid.steps(values)


def _nulls(column: Column) -> NDArray[np.bool_] | None:
    """Where there is no value at all; an array of numbers says so by NaN."""
    if isinstance(column, np.ndarray):
        return np.isnan(column)
    return column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None


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


def _tally(codes: Places, groups: Cells | None, size: int, many: int) -> Cells:
    """Rows by group and code, `[many, size]`; `codes` are `[features, rows]`."""
    joint = codes if groups is None else codes + groups * size
    return np.bincount(joint.ravel(), minlength=many * size).reshape(many, size)


def _codes(segments: Segments, words: pa.DictionaryArray) -> Cells:
    rest = len(segments.values)
    return coded_words(words, {value: i for i, value in enumerate(segments.values)}, rest, rest)
