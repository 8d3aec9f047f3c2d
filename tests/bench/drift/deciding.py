"""Our monitor in the worlds of the bench: windows as bin counts, as the worker would have counted them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitors.deciding import Question, Round, decide
from monitors.scales import Blocks, advance, budgets
from tests.bench.drift.worlds import QUIET, REFERENCE_ROWS, Change, Family, bin_shares, draw, families

BINS = 128
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Learned:
    """What one feature was counted with, and its counts in the reference."""

    family: Family
    cuts: NDArray[np.float64]
    counts: Counts

    def window(self, rng: np.random.Generator, rows: int, change: Change = QUIET) -> Counts:
        """The bin counts of so many rows."""
        found: Counts = rng.multinomial(rows, bin_shares(self.family, self.cuts, change))
        return found

    def again(self, rng: np.random.Generator) -> "Learned":
        """The same bins with counts of other rows, as of another version."""
        return Learned(self.family, self.cuts, self.window(rng, REFERENCE_ROWS))


def learn(rng: np.random.Generator, features: int) -> list[Learned]:
    """Bins frozen on the rows of the reference: up to 128 quantiles of a number, every word."""
    return [_learn(family, rng) for family in families(features)]


def _learn(family: Family, rng: np.random.Generator) -> Learned:
    if family == "rare":
        return Learned(family, np.zeros(0), rng.multinomial(REFERENCE_ROWS, bin_shares(family, np.zeros(0))))
    values = draw(family, rng, REFERENCE_ROWS)
    cuts = np.unique(np.quantile(values, np.arange(1, BINS) / BINS))
    return Learned(family, cuts, np.bincount(np.searchsorted(cuts, values, side="right"), minlength=len(cuts) + 1))


def alarms(learned: Sequence[Learned], windows: Sequence[Counts], budget: float, together: int = 1) -> list[bool]:
    """Feature by feature, whether one round calls it drift."""
    questions = [
        Question(
            kind="drift",
            feature=str(i),
            against="learned",
            window=window,
            reference=one.counts,
            names=[str(j) for j in range(len(window))],
            ordered=one.family != "rare",
        )
        for i, (one, window) in enumerate(zip(learned, windows, strict=True))
    ]
    return [found.state == "drift" for found in decide(questions, Round(budget=budget, windows=together))]


def delay(
    learned: Sequence[Learned],
    rng: np.random.Generator,
    rows: int,
    change: Change,
    changed: int,
    most: int,
    per_window: float,
) -> int:
    """After how many windows feature `changed`, changed from the first on, is found at any scale; `most` + 1 if never."""
    blocks: Blocks[list[Counts]] = Blocks()
    levels = budgets(per_window)
    for index in range(most):
        drawn = [one.window(rng, rows, change if i == changed else QUIET) for i, one in enumerate(learned)]
        blocks, due = advance(blocks, index, drawn, key="", add=_add)
        if any(alarms(learned, block.content, levels[block.scale], block.windows)[changed] for block in due):
            return index + 1
    return most + 1


def _add(before: list[Counts], now: list[Counts]) -> list[Counts]:
    return [a + b for a, b in zip(before, now, strict=True)]
