"""Quiet and changed windows of known laws: the same for ours, which samples bin counts, and for others, which get rows.

Every number is a rising function of a hidden normal value, and every change is a change of that value, so a shift of 0.25
standard deviations means the same for all families. Rows are independent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Family = Literal["normal", "lognormal", "ties", "rare"]
Floats = NDArray[np.float64]


def _zipf(words: int) -> Floats:
    shares = 1 / np.arange(1, words + 1)
    return np.asarray(shares / shares.sum())


FAMILIES: tuple[Family, ...] = ("normal", "lognormal", "ties", "rare")
ROWS = (50, 200, 1_000, 5_000, 50_000)
FEATURES = (5, 20, 200)
REFERENCE_ROWS = 20_000
WORDS = 30
# Probabilities of words of which only some have bins, or are ever seen before a window: not among the families above.
VOCABULARIES: Mapping[str, Floats] = {
    "100 words alike": np.full(100, 1 / 100),
    "1,000 words alike": np.full(1_000, 1 / 1_000),
    "300 words, Zipf": _zipf(300),
    "ids, 1,000,000 alike": np.full(1_000_000, 1e-6),
}
_MOVED = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What happens to the hidden normal value of a number, or to the words.

    Attributes:
        shift: it is added, in standard deviations.
        spread: it is multiplied by this.
        gap: it becomes two humps so far from the middle, with mean and variance as before (0 to 1).
        mix: so much of the share of the most frequent word goes to the fourth to sixth, evenly.
    """

    name: str
    shift: float = 0.0
    spread: float = 1.0
    gap: float = 0.0
    mix: float = 0.0

    def applies(self, family: Family) -> bool:
        """Whether it changes such a feature at all."""
        return self.mix > 0 if family == "rare" else self.shift != 0 or self.spread != 1 or self.gap > 0


QUIET = Change(name="nothing")
CHANGES = (
    Change(name="shift of 0.1 deviations", shift=0.1),
    Change(name="shift of 0.25 deviations", shift=0.25),
    Change(name="shift of 0.5 deviations", shift=0.5),
    Change(name="deviation x 1.25", spread=1.25),
    Change(name="two humps, same mean and variance", gap=0.8),
    Change(name="5 points of category mix", mix=_MOVED),
)


def families(features: int) -> list[Family]:
    """The family of each feature: they take turns."""
    return [FAMILIES[i % len(FAMILIES)] for i in range(features)]


def draw(family: Family, rng: np.random.Generator, rows: int, change: Change = QUIET) -> NDArray[Any]:
    """So many values of a feature: floats, or words of the family "rare"."""
    if family == "rare":
        return np.asarray(words())[rng.choice(WORDS, rows, p=word_shares(change))]
    hidden = rng.normal(size=rows)
    if change.gap:
        hidden = hidden * (1 - change.gap**2) ** 0.5 + change.gap * rng.choice([-1.0, 1.0], rows)
    return _shown(family, hidden * change.spread + change.shift)


def frame(
    rng: np.random.Generator, rows: int, features: int, change: Change = QUIET, changed: Sequence[int] = ()
) -> Mapping[str, NDArray[Any]]:
    """A window by column name; only the features with the numbers in `changed` have changed."""
    return {
        f"{family}_{i}": draw(family, rng, rows, change if i in changed else QUIET)
        for i, family in enumerate(families(features))
    }


def words() -> list[str]:
    """Of the family "rare", the most frequent first."""
    return [f"w{i:02}" for i in range(WORDS)]


def word_shares(change: Change = QUIET) -> Floats:
    """Their probabilities: from 62 % down to 0.07 %, as one over the square of the rank."""
    shares = 1 / np.arange(1, WORDS + 1) ** 2.0
    shares /= shares.sum()
    shares[0] -= change.mix
    shares[3:6] += change.mix / 3
    return shares


def below(family: Family, cuts: Floats, change: Change = QUIET) -> Floats:
    """The probability of a value below each cut; not for words."""
    hidden = (_hidden(family, cuts) - change.shift) / change.spread
    narrow = (1 - change.gap**2) ** 0.5
    both = ndtr((hidden - change.gap) / narrow) + ndtr((hidden + change.gap) / narrow)
    return np.asarray(both / 2)


def bin_shares(family: Family, cuts: Floats, change: Change = QUIET) -> Floats:
    """The probability of each bin: `[-inf, cuts[0])`, …, `[cuts[-1], inf)`; of each word for the family "rare"."""
    if family == "rare":
        return word_shares(change)
    return np.diff(np.concatenate([[0.0], below(family, cuts, change), [1.0]]))


def _shown(family: Family, hidden: Floats) -> Floats:
    if family == "lognormal":
        return np.exp(hidden)
    if family == "ties":
        return np.maximum(0.0, np.floor(2 * hidden))
    return hidden


def _hidden(family: Family, shown: Floats) -> Floats:
    """The hidden value from which on a value of at least `shown` is seen."""
    if family == "lognormal":
        with np.errstate(divide="ignore"):
            return np.log(np.maximum(shown, 0.0))
    if family == "ties":
        return np.where(shown <= 0, -np.inf, np.ceil(shown) / 2)
    return shown
