"""How often chance alone makes a window's scores as large as they are: bounds that hold for any sample, without draws.

Under "nothing has changed" the window's rows are a draw without replacement from the window and the past together. Hoeffding
(1963, Probability inequalities for sums of bounded random variables, theorem 4) bounds the chance of a sum as large as
the one seen by Chernoff's bound for draws with replacement.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_STEPS = 60


def p_larger(scores: Floats, window: Floats, past: Floats) -> float:
    """At most how often the window has a sum of scores this large or larger, while its rows and the past's are alike.

    Args:
        scores: of each bin `[bins]`, in [0, 1]; they may depend on window and past together, not on which is which.
        window: rows a bin `[bins]`, at least 1 in all.
        past: the same of what it is compared with.

    Returns:
        In [1e-300, 1].
    """
    chances = (window + past) / (window.sum() + past.sum())
    # The same event seen from both sides: the window's sum is large, the past's is small. Both bounds hold.
    return min(_bound(scores, chances, window), _bound(1.0 - scores, chances, past))


def _bound(scores: Floats, chances: Floats, counts: Floats) -> float:
    """Chernoff's bound of the chance that so many draws have a sum of scores in [0, 1] as large as `counts` have."""
    draws = counts.sum()
    mean = float(counts @ scores / draws)
    if mean <= chances @ scores:
        return 1.0
    low, high = -20.0, 20.0  # log2 of the tilt: any gives a bound, the best one's mean is the mean seen
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        tilted = chances * np.exp(np.exp2(middle) * (scores - 1.0))
        low, high = (middle, high) if tilted @ scores < mean * tilted.sum() else (low, middle)
    tilt = 2.0**low
    exponent = draws * (np.log(chances @ np.exp(tilt * (scores - 1.0))) + tilt * (1.0 - mean))
    return float(min(1.0, max(np.exp(exponent), 1e-300)))
