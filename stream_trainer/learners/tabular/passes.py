"""How often a block is learned, and in what steps: small steps in log order, more often while there is little to learn from."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """Options.

    Attributes:
        rows: new rows of one step; one step a block would learn far less from the same rows.
        block: a larger block is learned in pieces of so many rows, each forecast by what has learned those before it.
        count: passes over each piece.
        most: so many more while young.
        young: `young // rows seen` more passes.
    """

    rows: int = 16
    block: int = 256
    count: int = 1
    most: int = 6
    young: int = 1_500

    def over(self, seen: int) -> int:
        """How many passes are made over a piece after which so many rows have been seen."""
        return self.count + min(self.most, self.young // max(seen, 1))

    def pieces(self, rows: int) -> Iterator[slice]:
        """The pieces of a block, in log order; a remainder is no piece of its own unless it is all there is."""
        ends = [*range(self.block, rows - self.block + 1, self.block), rows]
        yield from (slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True))
