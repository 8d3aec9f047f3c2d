"""Do two samples come from one distribution? Answered from their counts in the same bins, without large-sample theory.

The chi-squared of the pooled bins is taken apart into 2 x 2 tables (Lancaster 1949), each of them is tested exactly
given its margins, and the parts are put together again. Whatever the sizes, however rare the bins and however small the
level asked for, `P(p_value <= a) <= a` while nothing changes. Only counts are looked at, so one value of 1e6 is one row.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparisons:
    """What many comparisons have found, one entry each.

    Attributes:
        p_value: valid at every size; 1 where no bins could be compared.
        statistic: chi-squared over the pooled bins, of the exact parts.
        freedom: how many parts it has; 0: nothing could be compared.
    """

    p_value: Floats
    statistic: Floats
    freedom: Counts


def compare(window: Counts, reference: Counts, *, ordered: bool) -> Comparisons:
    """Compare row by row.

    Args:
        window: counts, one comparison a row, `[comparisons, bins]`.
        reference: counts in the same bins, of the same shape.
        ordered: whether neighbouring bins are alike (numbers) or not (categories).
    """
    raise NotImplementedError


def compare_shares(window: Counts, rows: Counts, reference: Counts, reference_rows: Counts) -> Comparisons:
    """Compare how often something happens, exactly at any rarity (Fisher's test, both sides).

    Args:
        window: how often, any shape.
        rows: among how many.
        reference: the same of the reference.
        reference_rows: the same of the reference.
    """
    raise NotImplementedError
