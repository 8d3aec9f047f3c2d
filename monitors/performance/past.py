"""What is usual: the newest windows of joined examples together, bounded in rows and in memory.

A pure value made of few blocks, each the sum of windows that follow each other; the oldest block is let go as a whole.
"""

from functools import reduce

import msgspec

from monitors.performance.tally import Tally, add

BLOCKS = 8


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """Sums of windows, oldest first. Without versions: nothing here asks for them."""

    blocks: list[Tally] = []

    @property
    def rows(self) -> int:
        """Examples in all blocks."""
        return sum(block.losses.rows for block in self.blocks)

    def total(self) -> Tally:
        """All blocks together."""
        return reduce(add, self.blocks, Tally())

    def then(self, window: Tally, *, rows: int) -> "Past":
        """With one more window; blocks beyond `rows` examples are let go, but at least `rows` stay once there were so many.

        A window of another kind of label begins anew: the contract has changed.
        """
        window = msgspec.structs.replace(window, versions={})
        if not window.losses.rows:
            return self
        if self.blocks and not _same(self.blocks[-1], window):
            return Past(blocks=[window])
        blocks = list(self.blocks)
        if blocks and blocks[-1].losses.rows < rows / BLOCKS:
            blocks[-1] = add(blocks[-1], window)
        else:
            blocks.append(window)
        while sum(block.losses.rows for block in blocks[1:]) >= rows:
            del blocks[0]
        return Past(blocks=blocks)


def _same(first: Tally, second: Tally) -> bool:
    return first.task == second.task and len(first.labels) == len(second.labels)
