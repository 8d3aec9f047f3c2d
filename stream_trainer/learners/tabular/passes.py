"""How often a block is learned, and in what steps: small steps in log order, more often while there is little to learn from."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """Options.

    Attributes:
        rows: new rows of one step; one step a block would learn far less from the same rows.
        count: passes over each block.
        most: so many more while young.
        young: `young // rows seen` more passes.
    """

    rows: int = 16
    count: int = 1
    most: int = 6
    young: int = 1_500

    def over(self, seen: int) -> int:
        """How many passes are made over a block after which so many rows have been seen."""
        return self.count + min(self.most, self.young // max(seen, 1))
