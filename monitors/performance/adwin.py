"""ADWIN: a window of the past that is cut where its two parts cannot have the same mean.

Bifet and Gavaldà (2007), Learning from time-changing data with adaptive windowing, with the bound of their section 3.1 that
knows the variance. Here an element is a window of rows: buckets hold the sums of 1, 2, 4, … windows, so memory is
logarithmic. Windows may differ more from each other than their rows do, and go together for a while; the larger of both
variances counts, with the tail that a variance estimated from so few windows asks for.
"""

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
PER_LEVEL = 5
_LEAST_WINDOWS = 4


class Bucket(msgspec.Struct, frozen=True, array_like=True):
    """Sums over windows that follow each other.

    Attributes:
        windows: how many; `rows`: in them.
        total: sum of the rows' values; `squares`: of their squares.
        between: sum over windows of (window's total)² / rows.
    """

    windows: int
    rows: int
    total: float
    squares: float
    between: float


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """The boundary with the strongest evidence.

    Attributes:
        p_value: at most so likely while the mean stays, over all boundaries that were looked at.
        before, after: mean of the older and of the newer part.
        windows: of the newer part.
    """

    p_value: float = 1.0
    before: float = 0.0
    after: float = 0.0
    windows: int = 0


def extended(buckets: list[Bucket], newest: Bucket) -> list[Bucket]:
    """The buckets, oldest first, with one window more; at most `PER_LEVEL` of each size."""
    found = [*buckets, newest]
    level = 1
    while True:
        of_level = [i for i, bucket in enumerate(found) if bucket.windows == level]
        if len(of_level) <= PER_LEVEL:
            return found
        first = of_level[0]
        found[first : first + 2] = [_together(found[first], found[first + 1])]
        level *= 2


def best_cut(buckets: list[Bucket], *, reach: float, as_one: float = 1.0) -> Cut:
    """Where the two parts differ most surely.

    Args:
        buckets: oldest first.
        reach: values lie in an interval of this length.
        as_one: so many windows in a row say as much as one (`dependence`).
    """
    if sum(bucket.windows for bucket in buckets) < _LEAST_WINDOWS:
        return Cut()
    table = np.array([msgspec.structs.astuple(bucket) for bucket in buckets], dtype=np.float64)
    older = np.cumsum(table, axis=0)[:-1]
    newer = table.sum(0) - older
    gaps = newer[:, 2] / newer[:, 1] - older[:, 2] / older[:, 1]
    p_values = _p_values(np.abs(gaps), older, newer, reach, as_one)
    best = int(p_values.argmin())
    return Cut(
        p_value=float(p_values[best]),
        before=float(older[best, 2] / older[best, 1]),
        after=float(newer[best, 2] / newer[best, 1]),
        windows=int(newer[best, 0]),
    )


def after_cut(buckets: list[Bucket], cut: Cut) -> list[Bucket]:
    """The buckets of the newer part."""
    kept = list(buckets)
    while sum(bucket.windows for bucket in kept) > cut.windows:
        del kept[0]
    return kept


def _p_values(gaps: Floats, older: Floats, newer: Floats, reach: float, as_one: float) -> Floats:
    """The bound solved for its error: gap = sqrt(2 s L) + 2 reach L / (3 m), s the variance of the gap, L = ln(2 boundaries / p).

    `exp(-L)` is the bound of a normal tail at sqrt(2 L); that of Student's density takes its place.
    """
    rows = 1.0 / older[:, 1] + 1.0 / newer[:, 1]
    # The mean of m windows never varies by more than one of them.
    together = sum(np.minimum(part[:, 0], as_one) / part[:, 1] for part in (older, newer))
    variance = np.maximum(_of_rows(older + newer) * rows, _of_windows(older, newer) * together)
    freedom = np.maximum((older[:, 0] + newer[:, 0]) / as_one - 2.0, 1.0)
    linear, root = 2.0 * reach * rows / 3.0, np.sqrt(2.0 * variance)
    roots = (np.sqrt(root**2 + 4.0 * linear * gaps) - root) / (2.0 * linear)
    tails = (1.0 + 2.0 * roots**2 / freedom) ** (-(freedom + 1.0) / 2.0)
    found: Floats = np.clip(2.0 * len(gaps) * tails, 1e-300, 1.0)
    return found


def _of_rows(sums: Floats) -> Floats:
    found: Floats = np.maximum(sums[:, 3] / sums[:, 1] - (sums[:, 2] / sums[:, 1]) ** 2, 0.0)
    return found


def _of_windows(older: Floats, newer: Floats) -> Floats:
    """Variance a row that the windows' means speak of, within the two parts."""
    within = sum(np.maximum(part[:, 4] - part[:, 2] ** 2 / part[:, 1], 0.0) for part in (older, newer))
    found: Floats = within / np.maximum(older[:, 0] + newer[:, 0] - 2.0, 1.0)
    return found


def _together(first: Bucket, second: Bucket) -> Bucket:
    values = (a + b for a, b in zip(msgspec.structs.astuple(first), msgspec.structs.astuple(second), strict=True))
    return Bucket(*values)


def bucket(rows: int, total: float, squares: float) -> Bucket:
    """One window of at least 1 row."""
    if rows < 1 or not (math.isfinite(total) and math.isfinite(squares)):
        raise ValueError("a window has rows and finite sums")
    return Bucket(1, rows, total, squares, total * total / rows)
