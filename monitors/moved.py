"""Which bins moved, in words: the few whose share of the rows changed most."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from monitors.comparing import Counts

_MOST = 3
_RANGES = 8


def moved_bins(names: Sequence[str], bins: Counts, window: Counts, reference: Counts, ordered: bool) -> str:
    """Where values went, by share: ranges of neighbouring bins for numbers, words for categories.

    Args:
        names: of all bins.
        bins: which of them are counted in `window` and `reference`.
        window: counts.
        reference: counts.
        ordered: whether bins are ranges of numbers.
    """
    if not ordered or len(bins) <= _RANGES:
        chosen = [names[i] for i in bins]
    else:
        starts = np.arange(_RANGES) * len(bins) // _RANGES
        ends = np.append(starts[1:], len(bins)) - 1
        chosen = [_range(names[bins[i]], names[bins[j]]) for i, j in zip(starts, ends, strict=True)]
        window, reference = np.add.reduceat(window, starts), np.add.reduceat(reference, starts)
    return moved_shares(chosen, np.arange(len(chosen)), window / window.sum(), reference / reference.sum())


def moved_shares(
    names: Sequence[str], bins: Counts, window: NDArray[np.float64], reference: NDArray[np.float64]
) -> str:
    """The shares that changed most, before and now; `names[bins[i]]` belongs to `window[i]`."""
    most = np.argsort(-np.abs(window - reference), kind="stable")[:_MOST]
    return ", ".join(
        f"{names[bins[i]]}: {reference[i]:.2%} -> {window[i]:.2%}" for i in most if window[i] != reference[i]
    )


def _range(first: str, last: str) -> str:
    """`[a, b)` and `[c, d)` as `[a, d)`; other names with dots between them."""
    if ", " in first and ", " in last:
        return f"{first.split(', ', maxsplit=1)[0]}, {last.split(', ')[1]}"
    return f"{first} ... {last}"
