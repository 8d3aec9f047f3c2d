"""2 x 2 tables tested exactly: how far the window's count is from what chance would give, all four margins known.

Given its margins a table has one free cell, and while nothing changes that cell is hypergeometric (Fisher 1934). Tables
with a small cell are summed term by term; the others use Peizer and Pratt's normal deviate (Ling and Pratt 1984), whose error
was measured and is taken off. Never approximate in the direction that would alarm too often.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, ndtr, ndtri_exp

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

SMALL_CELL = 5
# Over 71,000 random tables with cells of SMALL_CELL or more, deviates up to 8, the formula's was at most 0.0021 too far out.
ERROR = 0.004
_TERMS = 24


def deviates(inside: Counts, rows: Counts, reference_inside: Counts, reference_rows: Counts) -> Floats:
    """How far out each table is, as the absolute normal deviate of its two-sided p-value.

    The p-value is twice the tail on the side where the table is, at most 1 (deviate 0). Arguments are broadcast: of
    `rows` rows in the window `inside` have a property, and `reference_inside` of `reference_rows` in the reference.

    Returns:
        Deviates of 0 or more; 0 where a margin is 0.
    """
    inside, rows, reference_inside, reference_rows = np.broadcast_arrays(inside, rows, reference_inside, reference_rows)
    a, b = inside.astype(np.float64), (rows - inside).astype(np.float64)
    c, d = reference_inside.astype(np.float64), (reference_rows - reference_inside).astype(np.float64)
    # Both swaps leave the table's meaning alone; afterwards there are too many in a, and the tail is X >= a.
    low = a * d < b * c
    a, b, c, d = np.where(low, b, a), np.where(low, a, b), np.where(low, d, c), np.where(low, c, d)
    found = np.zeros(a.shape)
    known = (a + b > 0) & (c + d > 0) & (a + c > 0) & (b + d > 0)
    small = np.minimum(np.minimum(a, b), np.minimum(c, d)) < SMALL_CELL
    use = known & ~small
    found[use] = peizer_pratt(a[use], b[use], c[use], d[use]) - ERROR
    use = known & small
    found[use] = -ndtri_exp(np.minimum(np.log(0.5), _log_summed(a[use], b[use], c[use], d[use])))
    return np.maximum(found, 0.0)


def p_values(deviate: Floats) -> Floats:
    """Two-sided."""
    return np.asarray(2 * ndtr(-deviate))


def summed(a: Floats, b: Floats, c: Floats, d: Floats) -> Floats:
    """The upper tail `P(X >= a)` of tables `a b / c d` with more in `a` than expected, or as many.

    The first terms are added up; as each is less than the one before by a growing factor, a geometric series bounds
    those that are left. It is never too small.
    """
    return np.asarray(np.exp(_log_summed(a, b, c, d)))


def _log_summed(a: Floats, b: Floats, c: Floats, d: Floats) -> Floats:
    """Its logarithm, so that deviates stay finite where the tail is smaller than any number."""
    first = (
        gammaln(a + b + 1)
        + gammaln(c + d + 1)
        + gammaln(a + c + 1)
        + gammaln(b + d + 1)
        - gammaln(a + b + c + d + 1)
        - gammaln(a + 1)
        - gammaln(b + 1)
        - gammaln(c + 1)
        - gammaln(d + 1)
    )
    term, total = np.ones_like(a), np.ones_like(a)
    for i in range(_TERMS):
        term = term * (np.maximum(b - i, 0) * np.maximum(c - i, 0) / ((a + i + 1) * (d + i + 1)))
        total += term
    i = _TERMS
    ratio = np.maximum(b - i, 0) * np.maximum(c - i, 0) / ((a + i + 1) * (d + i + 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        rest = np.where(ratio < 1, term * ratio / (1 - ratio), np.where(term > 0, np.inf, 0.0))
    return np.asarray(np.minimum(0.0, first + np.log(total + rest) + 1e-7))


def peizer_pratt(a: Floats, b: Floats, c: Floats, d: Floats) -> Floats:
    """The normal deviate of `P(X >= a)`, positive when that is less than a half; all cells must be 1 or more."""
    n, m, r, s = a + b, c + d, a + c, b + d
    size = n + m
    e, f, g, h = a - 0.5, b + 0.5, c + 0.5, d - 0.5
    corner = e + 1 / 6 + 0.02 / (e + 0.5) + 0.01 / (n + 1) + 0.01 / (r + 1)
    corner *= h + 1 / 6 + 0.02 / (h + 0.5) + 0.01 / (m + 1) + 0.01 / (s + 1)
    other = f + 1 / 6 + 0.02 / (f + 0.5) + 0.01 / (n + 1) + 0.01 / (s + 1)
    other *= g + 1 / 6 + 0.02 / (g + 0.5) + 0.01 / (m + 1) + 0.01 / (r + 1)
    entropy = e * np.log(e / n * (size / r)) + f * np.log(f / n * (size / s))
    entropy += g * np.log(g / m * (size / r)) + h * np.log(h / m * (size / s))
    margins = n / (n + 1 / 6) * (m / (m + 1 / 6)) * (r / (r + 1 / 6)) * (s / (s + 1 / 6)) * (1 - 1 / (6 * size))
    distance = e * h - f * g
    with np.errstate(divide="ignore", invalid="ignore"):
        deviate = (corner - other) / np.abs(distance) * np.sqrt(2 * np.maximum(entropy, 0.0) * margins)
    return np.where(distance == 0, 0.0, deviate)
