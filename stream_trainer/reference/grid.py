"""Which bins many numbers fall into, all features at once and without searching the edges for each value.

Each feature's axis is cut into equal cells; a table says how many edges lie before a cell, and the few edges within it are
compared. Rounding keeps order, so a value in a lower cell than an edge is below that edge: exact, as `Bins.assign` is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream_trainer.reference.bins import FURTHEST, STEPS, Bins

Floats = NDArray[np.float64]
Places = NDArray[np.int32]
_CELLS = 1024
_DEEPEST = 4  # edges in one cell; where there are more, they are searched


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Numeric features as tables: those with most edges in one cell first.

    Attributes:
        bins: of each feature, and `first` the place of its bin 0.
        begin: where cell 0 begins, `[features, 1]`, with `scale`, cells in one unit.
        before: the place of a value before all edges of a cell, `[features * cells]`.
        edges: the first, second, ... edge in each cell, of those features that have so many; infinite where there is none.
        searched: features with too many edges in a cell.
    """

    bins: tuple[Bins, ...]
    first: NDArray[np.int64]
    begin: Floats
    scale: Floats
    before: Places
    edges: tuple[Floats, ...]
    searched: tuple[int, ...]
    low: Floats
    high: Floats
    centre: Floats
    spread: Floats

    def places(self, values: Floats, nulls: Sequence[NDArray[np.bool_] | None]) -> Places:
        """The place of each value.

        Args:
            values: `[features, rows]`; every NaN among them is replaced by the centre of its feature.
            nulls: of each feature, where nothing was said at all; None: nowhere.
        """
        if not values.size:
            return np.zeros(values.shape, np.int32)
        least, most = values.min(axis=1), values.max(axis=1)
        with np.errstate(invalid="ignore"):
            usual = (least >= self.low) & (most <= self.high) & (most - least < np.inf)
        odd = {i: _Odd.of(values[i]) for i in np.flatnonzero(~usual).tolist()}
        for i, one in odd.items():
            values[i, one.nan] = self.centre[i, 0]
        found = self._ordinary(values)
        for i, one in odd.items():
            one.mark(found[i], values[i], self.bins[i], int(self.first[i]), nulls[i])
        return found

    def steps(self, values: Floats) -> Floats:
        """`Bins.steps` of values that are no NaN, as whole floats."""
        return whole_steps(values, self.centre, self.spread, FURTHEST)

    def _ordinary(self, values: Floats) -> Places:
        with np.errstate(over="ignore"):
            at = values - self.begin
            at *= self.scale
        np.clip(at, 0, _CELLS - 1, out=at)
        cells = at.astype(np.int64)
        cells += np.arange(len(values))[:, None] * _CELLS
        found: Places = self.before.take(cells, mode="clip")
        for edges in self.edges:
            some = len(edges) // _CELLS
            edge = edges.take(cells[:some], mode="clip", out=at[:some])
            found[:some] += values[:some] >= edge
        for i in self.searched:
            found[i] = np.searchsorted(np.asarray(self.bins[i].edges), values[i], side="right") + self.first[i]
        return found


@dataclass(frozen=True, slots=True)
class _Odd:
    """Where the values of one feature are no numbers."""

    nan: NDArray[np.bool_]

    @classmethod
    def of(cls, values: Floats) -> "_Odd":
        return cls(np.isnan(values))

    def mark(self, found: Places, values: Floats, bins: Bins, first: int, nulls: NDArray[np.bool_] | None) -> None:
        found[values < bins.low] = first + bins.place("below")
        found[values > bins.high] = first + bins.place("above")
        found[np.isinf(values)] = first + bins.place("infinite")
        found[self.nan] = first + bins.place("NaN")
        if nulls is not None:
            found[nulls] = first + bins.place("missing")


def grid(features: Sequence[tuple[Bins, int]]) -> Grid:
    """Tables of some numeric features, each with the place of its bin 0."""
    cut = [(_Cut.of(np.asarray(bins.edges)), bins, first) for bins, first in features]
    cut.sort(key=lambda one: -one[0].depth if one[0].depth <= _DEEPEST else 1)
    cuts = [one[0] for one in cut]
    deep = [one.depth for one in cuts if one.depth <= _DEEPEST]
    chosen = tuple(bins for _, bins, _ in cut)
    return Grid(
        bins=chosen,
        first=np.array([first for _, _, first in cut], np.int64),
        begin=_column(one.begin for one in cuts),
        scale=_column(one.scale for one in cuts),
        before=np.concatenate(
            [np.zeros(0, np.int32), *((one.before + first).astype(np.int32) for one, _, first in cut)]
        ),
        edges=tuple(
            np.concatenate([one.level(level) for one in cuts[: sum(depth > level for depth in deep)]])
            for level in range(max(deep, default=0))
        ),
        searched=tuple(range(len(deep), len(cuts))),
        low=np.array([bins.low for bins in chosen]),
        high=np.array([bins.high for bins in chosen]),
        centre=_column(bins.centre for bins in chosen),
        spread=_column(bins.spread for bins in chosen),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    """The axis of one feature in cells: how many edges are before each, and in which cell each edge is."""

    edges: Floats
    begin: float
    scale: float
    cells: NDArray[np.int64]
    before: NDArray[np.int64]
    depth: int

    @classmethod
    def of(cls, edges: Floats) -> "_Cut":
        begin = float(edges[0]) if len(edges) else 0.0
        with np.errstate(over="ignore", divide="ignore"):
            scale = float(_CELLS / (edges[-1] - edges[0])) if len(edges) > 1 else 1.0
            scale = scale if 0.0 < scale < np.inf else 1.0
            cells = np.clip((edges - begin) * scale, 0, _CELLS - 1).astype(np.int64)
        inside = np.bincount(cells, minlength=_CELLS)
        before = np.cumsum(inside) - inside
        return cls(edges=edges, begin=begin, scale=scale, cells=cells, before=before, depth=int(inside.max()))

    def level(self, rank: int) -> Floats:
        found = np.full(_CELLS, np.inf)
        chosen = np.arange(len(self.edges)) - self.before[self.cells] == rank
        found[self.cells[chosen]] = self.edges[chosen]
        return found


def whole_steps(values: Floats, centre: Floats, spread: Floats, furthest: float) -> Floats:
    """`bins.in_steps` of values that are no NaN, as whole floats; all arguments are broadcast."""
    with np.errstate(over="ignore"):
        far = values - centre
        far /= spread
    np.clip(far, -furthest, furthest, out=far)
    far *= STEPS
    return np.rint(far, out=far)


def _column(values: object) -> Floats:
    return np.array(list(values), np.float64)[:, None]  # type: ignore[call-overload]
