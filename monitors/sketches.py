"""How many different values there were, from a kilobyte or two a feature: HyperLogLog (Flajolet et al. 2007) by datasketches.

Always full size and always the result of a union, so that the bytes are the same whatever the order and the grouping.
"""

from collections.abc import Iterable

import datasketches

LG_REGISTERS = 10
ERROR = 1.04 / 2 ** (LG_REGISTERS / 2)  # standard, as a share (Flajolet et al. 2007)
_DENSE = datasketches.tgt_hll_type.HLL_8


def sketch(values: Iterable[str | float]) -> bytes:
    """A sketch of the values; the error of its estimate is `ERROR`."""
    found = datasketches.hll_sketch(LG_REGISTERS, _DENSE, True)
    for value in values:
        found.update(value)
    return _united(found, found)


def add(first: bytes, second: bytes) -> bytes:
    """Of the values of both."""
    return _united(datasketches.hll_sketch.deserialize(first), datasketches.hll_sketch.deserialize(second))


def distinct(data: bytes) -> float:
    """An estimate of how many different values there were."""
    return float(datasketches.hll_sketch.deserialize(data).get_estimate())


def _united(first: datasketches.hll_sketch, second: datasketches.hll_sketch) -> bytes:
    union = datasketches.hll_union(LG_REGISTERS)
    union.update(first)
    union.update(second)
    return bytes(union.get_result(_DENSE).serialize_compact())
