"""Evidence by betting: how much somebody would own who bet, value by value, that a bounded mean is above a bound.

Waudby-Smith and Ramdas (2024), Estimating means of bounded random variables by betting, J. R. Stat. Soc. B 86(1). If no
value's mean, given those before it, is above the bound, the wealth is a nonnegative supermartingale that begins at 1;
by Ville's inequality it ever reaches 1/alpha with probability at most alpha. So one may look after every value.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Fractions of the largest bet that can never ruin. A fixed mixture asks for no tuning, and is not less than the wealth of
# its best member times that one's share. Means of blocks vary little, so mostly the largest bet is best: it has half.
_FRACTIONS = 0.99 * 2.0 ** -np.arange(10)
_SHARES = 2.0 ** -np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 9])
_LARGEST_LOG = 700.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wealth:
    """A mixture of bets against "the mean is at most `bound`". A pure value.

    Attributes:
        bound: in [0, 1).
        logs: float64 `[bets]`, the logarithm of what each bet has made of 1.
    """

    bound: float
    logs: tuple[float, ...] = (0.0,) * len(_FRACTIONS)

    @property
    def evidence(self) -> float:
        """The e-value: 1 before any value, capped at e^700."""
        return math.exp(min(float(_mixed(np.array([self.logs]))[0]), _LARGEST_LOG))

    def path(self, values: Floats, reaches: Floats) -> tuple[Floats, Floats]:
        """The logarithm of the e-value `[values + 1]` before the first and after each, and every bet's `[values + 1, bets]`.

        Values are taken one after the other: where they are split into calls makes no difference, not even in a bit.

        Args:
            values: each in [-reach, reach].
            reaches: above 0. One that is not known before its value weighs that value: what is bounded then is the mean
                of (value - bound) / (reach + bound).
        """
        gains = np.log1p(_FRACTIONS * ((values - self.bound) / (reaches + self.bound))[:, None])
        logs = np.add.accumulate(np.concatenate([np.array([self.logs]), gains]), axis=0)
        return _mixed(logs), logs

    def at(self, logs: Floats) -> "Wealth":
        """The wealth of a row of `path`."""
        return replace(self, logs=tuple(float(x) for x in logs))


def _mixed(logs: Floats) -> Floats:
    top = logs.max(axis=1)
    mixed: Floats = top + np.log((np.exp(logs - top[:, None]) * _SHARES).sum(axis=1))
    return mixed
