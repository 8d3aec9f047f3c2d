"""Evidence by betting: how much somebody would own who bet, row by row, that a bounded mean is above a bound.

Waudby-Smith and Ramdas (2024), Estimating means of bounded random variables by betting, J. R. Stat. Soc. B 86(1). If no
row's mean, given the rows before it, is above the bound, the wealth is a nonnegative supermartingale that begins at 1;
by Ville's inequality it ever reaches 1/alpha with probability at most alpha. So one may look after every row.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Fractions of the largest bet that can never ruin. A fixed mixture asks for no tuning, and is not less than the wealth
# of its best member divided by how many they are.
_FRACTIONS = np.array([0.9 * 2.0**-k for k in range(10)])
_LARGEST_LOG = 700.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wealth:
    """An even mixture of constant bets against "the mean is at most `bound`", of values in [-1, 1]. A pure value.

    Attributes:
        bound: in [-1, 1).
        logs: float64 `[bets]`, the logarithm of what each bet has made of 1.
    """

    bound: float
    logs: tuple[float, ...] = (0.0,) * len(_FRACTIONS)

    @property
    def evidence(self) -> float:
        """The e-value: 1 before any row, capped at e^700."""
        return math.exp(min(float(_mixed(np.array([self.logs]))[0]), _LARGEST_LOG))

    def path(self, values: Floats) -> tuple[Floats, Floats]:
        """The logarithm of the e-value `[rows]` after each of the values, and every bet's `[rows, bets]`.

        Values are taken one after the other: where they are split into calls makes no difference, not even in a bit.
        """
        bets = _FRACTIONS / (1.0 + self.bound)
        gains = np.log1p(bets * (values[:, None] - self.bound))
        logs = np.add.accumulate(np.concatenate([np.array([self.logs]), gains]), axis=0)[1:]
        return _mixed(logs), logs

    def at(self, logs: Floats) -> "Wealth":
        """The wealth after a row of `path`."""
        return replace(self, logs=tuple(float(x) for x in logs))


def _mixed(logs: Floats) -> Floats:
    top = logs.max(axis=1)
    mixed: Floats = top + np.log(np.exp(logs - top[:, None]).mean(axis=1))
    return mixed
