"""Which value of each segment a row has, as small numbers beside its scores.

The first values seen of a segment get a number each; what comes after the bound counts as `OTHER`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

OTHER, NONE = "(other)", "(none)"
MOST_VALUES = 64

Codes = NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Segments:
    """The values known of each segment, in the order in which they came; number 0 is `OTHER`. A pure value."""

    values: tuple[tuple[str, ...], ...]

    @classmethod
    def fresh(cls, count: int) -> "Segments":
        """Of so many segments, before any row."""
        return cls(((OTHER,),) * count)

    def encode(self, columns: Sequence[Sequence[str | None]]) -> "tuple[Segments, Codes]":
        """The numbers of some rows, `[rows, segments]`, and the values known afterwards."""
        known, codes = [], []
        for values, column in zip(self.values, columns, strict=True):
            numbers: dict[str | None, int] = dict(zip(values, range(len(values)), strict=True))
            for word in dict.fromkeys(column):
                name = NONE if word is None else word
                if name not in numbers and len(numbers) <= MOST_VALUES:
                    numbers[name] = len(numbers)
            known.append(tuple(str(name) for name in numbers))
            codes.append([numbers.get(NONE if word is None else word, 0) for word in column])
        rows = len(columns[0]) if columns else 0
        return Segments(tuple(known)), np.array(codes, dtype=np.int16).reshape(len(known), rows).T

    def to_bytes(self) -> bytes:
        """As JSON."""
        return json.dumps(self.values, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Segments":
        """The inverse of `to_bytes`.

        Raises:
            ValueError: it is something else.
        """
        found = json.loads(data)
        if not isinstance(found, list) or not all(isinstance(v, list) and v[:1] == [OTHER] for v in found):
            raise ValueError("not a list of the values of each segment")
        return cls(tuple(tuple(str(value) for value in values) for values in found))
