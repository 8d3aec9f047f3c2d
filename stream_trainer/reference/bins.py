"""The frozen bins of one feature: which bin a value falls into.

There are fine bins, for all rows, and coarse ones that hold whole fine ones, for segments and versions. What no known
and ordinary value is (missing, NaN, infinite, beyond the contract's bounds, a word not seen before) has bins of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

FINE_IN_COARSE = 16
COARSE = 8
WORDS_IN_COARSE = 7
NUMBER_ENDS = ("below", "above", "NaN", "infinite", "missing")
WORD_ENDS = ("other", "unseen", "missing")
STEPS, FURTHEST = 1024, 64

Kind = Literal["number", "words", "index"]
Column: TypeAlias = "pa.Array | NDArray[np.float64]"


@dataclass(frozen=True, kw_only=True)
class Bins:
    """The frozen bins of one feature, the baseline's counts in them and a bounded sample of its values.

    Number: `edges` ascending, bin i holds values in `[edges[i-1], edges[i])` within `[low, high]`; then `NUMBER_ENDS`. Two edges
    that are neighbouring floats hold one value alone. Words:
    bin i is `words[i]`; then `WORD_ENDS`, of which "other" is a word that is known and not among `words`. Index: bin i is the
    number i, whose name is `words[i]`; then "missing". The last bin is always "missing".

    Attributes:
        known: words that are "other": seen when the bins were chosen, or in the vocabulary.
        centre: the median when the bins were frozen, and `spread` the deviation by the quartiles: what moments are told in.
        centres: the same for each number of a vector, with `spreads`; for a number it is one.
        counts: of the rows of the baseline, in the fine bins.
    """

    feature: str
    kind: Kind
    edges: tuple[float, ...] = ()
    low: float = -np.inf
    high: float = np.inf
    words: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    centre: float = 0.0
    spread: float = 1.0
    centres: tuple[float, ...] = ()
    spreads: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    sample: tuple[float | None, ...] = ()
    sample_words: tuple[str | None, ...] = ()

    @property
    def categorical(self) -> bool:
        """Whether its bins are names, in no order."""
        return self.kind != "number"

    @property
    def pseudo(self) -> bool:
        """Whether it is none of the contract's features."""
        return self.feature.startswith("_")

    @property
    def ordinary(self) -> int:
        """How many bins there are before those for what is out of the ordinary."""
        return len(self.words) if self.categorical else len(self.edges) + 1

    @property
    def ends(self) -> tuple[str, ...]:
        """The bins after the ordinary ones."""
        return {"number": NUMBER_ENDS, "words": WORD_ENDS, "index": ("missing",)}[self.kind]

    @property
    def size(self) -> int:
        """How many fine bins there are."""
        return self.ordinary + len(self.ends)

    @cached_property
    def coarse(self) -> NDArray[np.int64]:
        """The coarse bin of each fine one."""
        if self.kind == "words":
            few = np.minimum(np.arange(self.ordinary), WORDS_IN_COARSE)
            rest = min(self.ordinary, WORDS_IN_COARSE)
            return np.concatenate([few, [rest, rest + 1, rest + 2]]).astype(np.int64)
        inner = np.arange(self.ordinary) // self._in_coarse
        return np.concatenate([inner, inner[-1] + 1 + np.arange(len(self.ends))]).astype(np.int64)

    @property
    def coarse_size(self) -> int:
        """How many coarse bins there are; the last one is "missing"."""
        return int(self.coarse[-1]) + 1

    @cached_property
    def names(self) -> tuple[str, ...]:
        """A readable name for each fine bin."""
        if self.categorical:
            return (*self.words, *self.ends)
        return (*self._ranges(1), *self.ends)

    @cached_property
    def coarse_names(self) -> tuple[str, ...]:
        """A readable name for each coarse bin."""
        if self.kind == "index":
            return self.names
        if self.kind == "words":
            return (*self.words[:WORDS_IN_COARSE], *self.ends)
        return (*self._ranges(self._in_coarse), *self.ends)

    def place(self, end: str) -> int:
        """The fine bin of one of `ends`."""
        return self.ordinary + self.ends.index(end)

    def assign(self, column: Column) -> NDArray[np.int64]:
        """The fine bin of each value."""
        if self.kind == "words":
            return self._of_words(column)
        if self.kind == "index":
            values = numbers(column)
            return np.where(np.isnan(values), self.size - 1, np.nan_to_num(values)).astype(np.int64)
        return self._of_numbers(column, numbers(column))

    def steps(self, column: Column) -> NDArray[np.int64]:
        """Each number in 1024ths of `spread` from `centre`, at most 64 spreads away; 0 where there is none.

        Whole numbers, because their sums are the same in any order.
        """
        return in_steps(numbers(column), self.centre, self.spread, FURTHEST)

    @cached_property
    def _places(self) -> dict[str, int]:
        return dict.fromkeys(self.known, self.place("other")) | {word: i for i, word in enumerate(self.words)}

    @cached_property
    def _above_one(self) -> NDArray[np.bool_]:
        """Which edges stand just above the edge before: between the two is one value."""
        edges = np.asarray(self.edges)
        return np.concatenate([[False], edges[1:] == np.nextafter(edges[:-1], np.inf)])[: len(edges)]

    @property
    def _in_coarse(self) -> int:
        """How many ordinary bins one coarse bin holds: fewer where ties leave few bins."""
        if self.kind == "index":
            return 1
        return -(-self.ordinary // COARSE) if self._above_one.any() else FINE_IN_COARSE

    def _ranges(self, together: int) -> list[str]:
        """The names of so many ordinary bins together: `[a, b)`; `[a, a]` holds one value, `(a, b)` what is above it."""
        begins, ends = ["[-inf"], []
        for i in range(together - 1, len(self.edges), together):
            above = bool(self._above_one[i])
            name = f"{self.edges[i - above]:.6g}"
            begins.append(f"({name}" if above else f"[{name}")
            ends.append(f"{name}]" if above else f"{name})")
        return [f"{begin}, {end}" for begin, end in zip(begins, [*ends, "inf)"], strict=True)]

    def _of_words(self, column: Column) -> NDArray[np.int64]:
        words: pa.DictionaryArray = cast("pa.Array", column).dictionary_encode()
        return coded_words(words, self._places, self.place("unseen"), self.place("missing"))

    def _of_numbers(self, column: Column, values: NDArray[np.float64]) -> NDArray[np.int64]:
        bins = np.searchsorted(np.asarray(self.edges), values, side="right").astype(np.int64)
        if not len(values):
            return bins
        if not values.min() >= self.low:  # a NaN makes this true as well
            bins[values < self.low] = self.place("below")
        if not values.max() <= self.high:
            bins[values > self.high] = self.place("above")
        odd = ~np.isfinite(values)
        if odd.any():
            bins[np.isinf(values)] = self.place("infinite")
            bins[np.isnan(values)] = self.place("NaN")
            bins[_missing(column)] = self.place("missing")
        return bins


def numbers(column: Column) -> NDArray[np.float64]:
    """A numeric column as float64 with NaN for null; a vector column as the norms of its rows."""
    if isinstance(column, np.ndarray):
        return column
    if pa.types.is_list(column.type):
        return np.asarray(np.linalg.norm(vectors(column), axis=1)) if len(column) else np.zeros(0)
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)


def vectors(column: pa.Array) -> NDArray[np.float64]:
    """A column of vectors, none of them null, as `[rows, size]`."""
    if not len(column):
        return np.zeros((0, 0))
    found: NDArray[np.float64] = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
    return found


def in_steps(values: NDArray[np.float64], centre: float, spread: float, furthest: float) -> NDArray[np.int64]:
    """See `Bins.steps`."""
    with np.errstate(over="ignore", invalid="ignore"):
        far = np.clip((values - centre) / spread, -furthest, furthest)
    steps: NDArray[np.int64] = np.rint(np.nan_to_num(far, nan=0.0) * STEPS).astype(np.int64)
    return steps


def of_steps(total: float) -> float:
    """A sum of steps, in spreads."""
    return total / STEPS


def coded_words(words: pa.DictionaryArray, places: Mapping[str, int], other: int, missing: int) -> NDArray[np.int64]:
    """The place of each word; `other` of one that has none."""
    table = [missing if word is None else places.get(word, other) for word in words.dictionary.to_pylist()]
    codes = words.indices.fill_null(len(table)) if words.indices.null_count else words.indices
    found: NDArray[np.int64] = np.asarray([*table, missing], np.int64).take(codes.to_numpy(zero_copy_only=False))
    return found


def _missing(column: Column) -> NDArray[np.bool_]:
    """Where there is no value at all; an array of numbers says so by NaN."""
    if isinstance(column, np.ndarray):
        return np.isnan(column)
    missing: NDArray[np.bool_] = column.is_null().to_numpy(zero_copy_only=False)
    return missing
