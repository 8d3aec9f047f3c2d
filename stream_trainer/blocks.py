"""Rows to blocks: means of consecutive rows, in constant memory, and the same however the rows are split into calls.

The first quarter of every block is passed over. So rows that go together over at most a quarter of a block never reach
from one mean into the next.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenBlock:
    """The block that is not full yet. A pure value.

    Attributes:
        size: rows of a block, at least 1.
        rows: rows in it so far, below `size`.
        sums: of its rows behind the first quarter; two columns.
    """

    size: int
    rows: int = 0
    sums: tuple[float, float] = (0.0, 0.0)

    @property
    def gap(self) -> int:
        """Rows at the beginning of every block that count in no mean."""
        return self.size // 4

    def add(self, values: Floats) -> tuple[Floats, "OpenBlock"]:
        """The means float64 `[blocks, 2]` of the blocks that `values` `[rows, 2]` fill, and the block that is open then.

        Sums are taken one row after the other: where rows are split makes no difference, not even in a bit.
        """
        end = self.rows + len(values)
        full, rest = divmod(end, self.size)
        padded = np.zeros(((full + 1) * self.size, 2))
        padded[self.rows : end] = values
        if self.rows > self.gap:
            padded[self.rows - 1] = self.sums
        sums = np.add.accumulate(padded.reshape(full + 1, self.size, 2)[:, self.gap :], axis=1)[:, -1]
        first, second = sums[-1]
        return sums[:-1] / (self.size - self.gap), replace(self, rows=rest, sums=(float(first), float(second)))
