"""Sums of float64 that come out the same in any order and any grouping.

A sum is a whole number of units of 2^-160, written in hexadecimal because it needs more bits than msgpack's integers
have. Shewchuk (1997) and Neal (2015) describe such accumulators; here Python's integers do the carrying.
"""

import math

import numpy as np
from numpy.typing import NDArray

Exact = str
ZERO: Exact = "0"
_UNIT_BITS = 160


def exact(values: NDArray[np.float64]) -> Exact:
    """The exact sum of `values` `[rows]`, each rounded to a multiple of 2^-160.

    Raises:
        ValueError: a value is not finite.
    """
    if not np.isfinite(values).all():
        raise ValueError("only finite numbers add up")
    mantissas, exponents = np.frexp(values)
    whole = np.ldexp(mantissas, 53).astype(np.int64)
    total = 0
    for exponent in np.unique(exponents).tolist():
        chosen = whole[exponents == exponent]
        # Halves, so that a sum of 2^31 of them stays within 64 bits.
        sums = (int((chosen >> 27).sum()) << 27) + int((chosen & (2**27 - 1)).sum())
        shift = exponent - 53 + _UNIT_BITS
        total += sums << shift if shift >= 0 else sum(int(v) >> -shift for v in chosen.tolist())
    return f"{total:x}"


def plus(first: Exact, second: Exact) -> Exact:
    """Both together."""
    return f"{int(first, 16) + int(second, 16):x}"


def as_float(total: Exact) -> float:
    """The sum, rounded once."""
    try:
        return int(total, 16) / (1 << _UNIT_BITS)
    except OverflowError:
        return math.inf if not total.startswith("-") else -math.inf
