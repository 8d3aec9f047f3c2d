"""The two rules of thumb: PSI over ten quantile bins, and a test of each column at 5 %."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tests.bench.drift import worker
from tests.bench.drift.detectors import Rows, categorical

_BINS = 10
_MOST_PSI, _LEAST_P = 0.1, 0.05
_LEAST_SHARE = 1e-4  # of an empty bin, as it is usually done: its logarithm must exist
Values = NDArray[Any]


def psi(reference: Values, window: Values) -> bool:
    """Population stability index above 0.1; deciles of the reference, or each of its words."""
    if categorical(reference):
        before, now = _words(reference, window)
    else:
        edges = np.unique(np.quantile(reference, np.arange(1, _BINS) / _BINS))
        before, now = (np.bincount(np.searchsorted(edges, v, side="right"), minlength=len(edges) + 1)
                       for v in (reference, window))  # fmt: skip
    p, q = (np.maximum(counts / counts.sum(), _LEAST_SHARE) for counts in (before, now))
    return float(np.sum((q - p) * np.log(q / p))) > _MOST_PSI


def significance(reference: Values, window: Values) -> bool:
    """Kolmogorov and Smirnov's p-value below 5 %, or that of chi-squared for words."""
    if not categorical(reference):
        return float(stats.ks_2samp(reference, window).pvalue) < _LEAST_P
    counts = np.array(_words(reference, window))
    return float(stats.chi2_contingency(counts[:, counts.sum(axis=0) > 0], correction=False).pvalue) < _LEAST_P


def _words(reference: Values, window: Values) -> tuple[Values, Values]:
    names, codes = np.unique(np.concatenate([reference, window]), return_inverse=True)
    first, second = codes[: len(reference)], codes[len(reference) :]
    return np.bincount(first, minlength=len(names)), np.bincount(second, minlength=len(names))


class Rule:
    """Every column by itself."""

    remembers = False

    def __init__(self, changed: Callable[[Values, Values], bool]) -> None:
        self._changed = changed
        self._reference: Rows = {}

    def fit(self, reference: Rows) -> None:
        self._reference = reference

    def alarm(self, window: Rows) -> set[str]:
        return {name for name, values in window.items() if self._changed(self._reference[name], values)}


def build(name: str, rows: int) -> Rule:
    return Rule({"psi": psi, "significance": significance}[name])


if __name__ == "__main__":
    worker.main(sys.argv[1], build)
