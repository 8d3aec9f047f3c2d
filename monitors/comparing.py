"""Do two samples come from one distribution? Answered from their counts in the same bins, without large-sample theory.

The chi-squared of the pooled bins is taken apart into 2 x 2 tables (Lancaster 1949), each of them is tested exactly
given its margins, and the parts are put together again. Whatever the sizes, however rare the bins and however small the
level asked for, `P(p_value <= a) <= a` while nothing changes. Only counts are looked at, so one value of 1e6 is one row.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from monitors.tables import deviates, p_values

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

# A table is left out when chance would put fewer rows than this into its smallest cell: it could say nothing.
MIN_EXPECTED = 5.0
# Sums over the first so many halvings of the axis, over some more, and over all.
_DEPTHS = (2, 4)
_AT_ONCE = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """What was asked of many comparisons, `[comparisons, measures]`.

    Attributes:
        statistic: chi-squared.
        freedom: its degrees of freedom; 0: not asked.
        p_value: of this measure alone; 1 where not asked.
        summed: `[measures]`, whether it is chi-squared by chance; the largest of several tables is not.
    """

    statistic: Floats
    freedom: Floats
    p_value: Floats
    summed: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparisons:
    """What many comparisons have found, one entry each.

    Attributes:
        p_value: valid at every size; 1 where no bins could be compared.
        statistic: chi-squared over the pooled bins, of the exact parts.
        freedom: how many parts it has; 0: nothing could be compared.
        measures: what the p-value is the smallest of, times their number.
    """

    p_value: Floats
    statistic: Floats
    freedom: Counts
    measures: Measures


@dataclass(frozen=True, slots=True)
class _Parts:
    """Deviates of the 2 x 2 tables that were made, 0 elsewhere: `[comparisons, tables]`, the coarsest first."""

    deviate: Floats
    made: NDArray[np.bool_]


def compare(window: Counts, reference: Counts, *, ordered: bool) -> Comparisons:
    """Compare row by row.

    Numbers: the axis is halved again and again; each table asks how the rows of one part divide into its halves. Given
    where the rows of that part are, its table is independent of all coarser ones, so squared deviates add up to
    chi-squared at most. Shifts show in the coarse tables, shapes in the fine ones, so sums over 2, 4 and all
    halvings are formed, and the smallest p-value of them and of the single tables counts, times how many were asked.
    Categories: each word against all rarer ones, most frequent first; the sum and the single tables are asked.
    Which tables are made depends on the margins only.

    Args:
        window: counts, one comparison a row, `[comparisons, bins]`.
        reference: counts in the same bins, of the same shape.
        ordered: whether neighbouring bins are alike (numbers) or not (categories).
    """
    pieces = [
        _compare(window[i : i + _AT_ONCE], reference[i : i + _AT_ONCE], ordered)
        for i in range(0, max(1, len(window)), _AT_ONCE)
    ]
    return Comparisons(
        p_value=np.concatenate([piece.p_value for piece in pieces]),
        statistic=np.concatenate([piece.statistic for piece in pieces]),
        freedom=np.concatenate([piece.freedom for piece in pieces]),
        measures=Measures(
            statistic=np.concatenate([piece.measures.statistic for piece in pieces]),
            freedom=np.concatenate([piece.measures.freedom for piece in pieces]),
            p_value=np.concatenate([piece.measures.p_value for piece in pieces]),
            summed=pieces[0].measures.summed,
        ),
    )


def compare_shares(window: Counts, rows: Counts, reference: Counts, reference_rows: Counts) -> Comparisons:
    """Compare how often something happens, exactly at any rarity (Fisher's test, twice the smaller side).

    Args:
        window: how often, any shape.
        rows: among how many.
        reference: the same of the reference.
        reference_rows: the same of the reference.
    """
    deviate = deviates(window, rows, reference, reference_rows)
    happened = window + reference
    made = (happened > 0) & (happened < rows + reference_rows) & (rows > 0) & (reference_rows > 0)
    p_value, statistic = p_values(deviate), deviate**2
    each = Measures(
        statistic=statistic,
        freedom=made.astype(np.float64),
        p_value=np.where(made, p_value, 1.0),
        summed=np.ones(made.shape[-1:], bool),
    )
    return Comparisons(p_value=p_value, statistic=statistic, freedom=made.astype(np.int64), measures=each)


def _compare(window: Counts, reference: Counts, ordered: bool) -> Comparisons:
    if ordered:
        levels = _halvings(window, reference)
        ends = np.cumsum([level.deviate.shape[1] for level in levels])
        members = [int(ends[depth - 1]) for depth in _DEPTHS if depth < len(levels)]
    else:
        levels, members = [_one_by_one(window, reference)], []
    squares = np.concatenate([level.deviate for level in levels], axis=1) ** 2
    made = np.concatenate([level.made for level in levels], axis=1)
    return _together(squares, made, [*members, squares.shape[1]])


def _together(squares: Floats, made: NDArray[np.bool_], members: list[int]) -> Comparisons:
    """The smallest p-value of the sums over the first `members` tables and of the largest table, times their number."""
    size = len(squares)
    shape = (size, len(members) + 1)
    asked = Measures(
        statistic=np.zeros(shape),
        freedom=np.zeros(shape),
        p_value=np.ones(shape),
        summed=np.arange(shape[1]) < len(members),
    )
    statistic, freedom, before = np.zeros(size), np.zeros(size), np.zeros(size)
    for place, end in enumerate(members):
        statistic, freedom = squares[:, :end].sum(axis=1), made[:, :end].sum(axis=1).astype(np.float64)
        new = freedom > before
        _put(asked, place, new, statistic, freedom, chdtrc(freedom[new], statistic[new]))
        before = freedom
    several = freedom > 1
    largest = squares.max(axis=1, initial=0.0)
    _put(asked, -1, several, largest, np.ones(size), freedom[several] * p_values(np.sqrt(largest[several])))
    number = (asked.freedom > 0).sum(axis=1)
    p_value = np.where(freedom > 0, np.minimum(1.0, asked.p_value.min(axis=1) * number), 1.0)
    return Comparisons(p_value=p_value, statistic=statistic, freedom=freedom.astype(np.int64), measures=asked)


def _put(
    asked: Measures, place: int, where: NDArray[np.bool_], statistic: Floats, freedom: Floats, p_value: Floats
) -> None:
    asked.statistic[where, place] = statistic[where]
    asked.freedom[where, place] = freedom[where]
    asked.p_value[where, place] = p_value


def _halvings(window: Counts, reference: Counts) -> list[_Parts]:
    """One entry a halving, the whole axis first."""
    bins = 1 << max(1, (window.shape[1] - 1).bit_length())
    padding = ((0, 0), (0, bins - window.shape[1]))
    now, before = np.pad(window, padding), np.pad(reference, padding)
    rows, reference_rows = window.sum(axis=1)[:, None], reference.sum(axis=1)[:, None]
    levels = []
    while bins > 1:
        left, reference_left = now[:, 0::2], before[:, 0::2]
        now, before = left + now[:, 1::2], reference_left + before[:, 1::2]
        levels.append(_parts(left, now, reference_left, before, rows, reference_rows))
        bins //= 2
    return levels[::-1]


def _one_by_one(window: Counts, reference: Counts) -> _Parts:
    """Each category against all rarer ones; the most frequent first, by the margins."""
    order = np.argsort(-(window + reference), axis=1, kind="stable")
    now, before = np.take_along_axis(window, order, axis=1), np.take_along_axis(reference, order, axis=1)
    rest, reference_rest = (np.cumsum(side[:, ::-1], axis=1)[:, ::-1] for side in (now, before))
    return _parts(now[:, :-1], rest[:, :-1], before[:, :-1], reference_rest[:, :-1], rest[:, :1], reference_rest[:, :1])


def _parts(
    left: Counts, part: Counts, reference_left: Counts, reference_part: Counts, rows: Counts, reference_rows: Counts
) -> _Parts:
    pooled_left, pooled = left + reference_left, part + reference_part
    lighter = np.minimum(pooled_left, pooled - pooled_left)
    expected = lighter * (np.minimum(rows, reference_rows) / np.maximum(rows + reference_rows, 1))
    made = expected >= MIN_EXPECTED
    deviate = np.zeros(made.shape)
    deviate[made] = deviates(left[made], part[made], reference_left[made], reference_part[made])
    return _Parts(deviate, made)
