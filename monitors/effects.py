"""How large a difference between two sets of counts is, whatever its p-value.

PSI and Jensen-Shannon are taken over at most 16 groups of bins and less what chance alone adds to them: of raw bins they
grow without bound as windows get smaller, and no limit on them would mean the same twice.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

GROUPS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """One entry a comparison; `kolmogorov_smirnov` and `wasserstein` are None for categories.

    `kolmogorov_smirnov` is the largest difference of the cumulative shares at the bins' edges: that of the values
    themselves is at most the largest share of one bin above it.
    """

    psi: Floats
    jensen_shannon: Floats
    kolmogorov_smirnov: Floats | None = None
    wasserstein: Floats | None = None


def effects(window: Counts, reference: Counts, *, ordered: bool, places: Floats | None = None) -> Effects:
    """The sizes of many differences, row by row.

    Args:
        window: counts, `[comparisons, bins]`.
        reference: counts in the same bins.
        ordered: whether bins are ranges of numbers.
        places: where each bin is on the axis, `[comparisons, bins]`; None: bins are one apart.
    """
    now, before = groups(window, reference, ordered=ordered)
    used = np.count_nonzero(now + before, axis=1)
    n, m = now.sum(axis=1), before.sum(axis=1)
    chance = np.maximum(used - 1, 0) * (1 / np.maximum(n, 1) + 1 / np.maximum(m, 1))
    return Effects(
        psi=np.maximum(0.0, psi(now, before) - chance),
        jensen_shannon=np.maximum(0.0, jensen_shannon(now, before) - chance / (8 * np.log(2))),
        kolmogorov_smirnov=kolmogorov_smirnov(window, reference) if ordered else None,
        wasserstein=wasserstein(window, reference, places) if ordered else None,
    )


def groups(window: Counts, reference: Counts, *, ordered: bool) -> tuple[Counts, Counts]:
    """Both in at most 16 groups: neighbours together, or the 15 most frequent categories and all others."""
    bins = window.shape[1]
    if bins <= GROUPS:
        return window, reference
    if ordered:
        starts = np.arange(GROUPS) * bins // GROUPS
        return np.add.reduceat(window, starts, axis=1), np.add.reduceat(reference, starts, axis=1)
    order = np.argsort(-(window + reference), axis=1, kind="stable")
    starts = np.arange(GROUPS)
    now, before = np.take_along_axis(window, order, axis=1), np.take_along_axis(reference, order, axis=1)
    return np.add.reduceat(now, starts, axis=1), np.add.reduceat(before, starts, axis=1)


def psi(window: Counts, reference: Counts) -> Floats:
    """The population stability index: the symmetrised Kullback-Leibler divergence of the shares, in nats."""
    p, q, _ = _shares(window, reference)
    return np.asarray(np.sum((p - q) * np.log(p / q), axis=1))


def jensen_shannon(window: Counts, reference: Counts) -> Floats:
    """The Jensen-Shannon divergence of the shares, in bits: 0 for equal, 1 for disjoint."""
    p, q, used = _shares(window, reference)
    middle = (p + q) / 2
    return np.asarray(np.sum(np.where(used, p * np.log2(p / middle) + q * np.log2(q / middle), 0.0), axis=1) / 2)


def kolmogorov_smirnov(window: Counts, reference: Counts) -> Floats:
    """The largest difference of the cumulative shares at the bins' edges."""
    return np.asarray(np.abs(_cumulative(window) - _cumulative(reference)).max(axis=1))


def wasserstein(window: Counts, reference: Counts, places: Floats | None = None) -> Floats:
    """The distance between the binned distributions, in standard deviations of the reference; 0 when that has none."""
    at = np.broadcast_to(np.arange(float(window.shape[1])), window.shape) if places is None else places
    share = reference / np.maximum(1, reference.sum(axis=1, keepdims=True))
    mean = np.sum(share * at, axis=1, keepdims=True)
    deviation = np.sqrt(np.sum(share * (at - mean) ** 2, axis=1))
    moved = np.sum(np.abs(_cumulative(window) - _cumulative(reference))[:, :-1] * np.diff(at, axis=1), axis=1)
    return np.asarray(np.divide(moved, deviation, out=np.zeros(len(moved)), where=deviation > 0))


def _cumulative(counts: Counts) -> Floats:
    return np.asarray(np.cumsum(counts, axis=1) / np.maximum(1, counts.sum(axis=1, keepdims=True)))


def _shares(window: Counts, reference: Counts) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Shares of each bin; half a row is added to each that any side uses, so that none of them is zero."""
    used = (window + reference) > 0
    now, before = np.where(used, window + 0.5, 0.0), np.where(used, reference + 0.5, 0.0)
    p = now / np.maximum(now.sum(axis=1, keepdims=True), 1.0)
    q = before / np.maximum(before.sum(axis=1, keepdims=True), 1.0)
    return np.where(used, p, 1.0), np.where(used, q, 1.0), used
