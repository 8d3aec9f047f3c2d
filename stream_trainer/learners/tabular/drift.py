"""Notices that the forecasts have become much worse than they were, and says since when.

The test compares a fast and a slow running rate of misses by the slow one's binomial deviation, in the spirit of Gama
et al. (2004). What to do about it is the learner's: forget what came before, learn the rest more often, copy the best net.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Options. Tensor: `rates [3]`, the fast and the slow rate of misses and the usual error of a number.

    Attributes:
        threshold: how many deviations above the slow rate are a drift.
        fast_rows: the fast rate's memory; a larger block is its own.
        slow_rows: the slow rate's memory.
        warm_up: rows before the first drift can be noticed.
        passes: how many more passes are made over the rows since the drift.
        margin: nets whose loss is so far above the best's then take over its weights.
    """

    threshold: float = 8.0
    fast_rows: int = 128
    slow_rows: int = 2_000
    warm_up: int = 1_000
    passes: int = 4
    margin: float = 0.03

    def fresh(self) -> dict[str, Tensor]:
        """Before the first row."""
        return {"rates": torch.tensor([0.5, 0.5, 1.0], dtype=torch.float64)}

    def judged(self, drift: Mapping[str, Tensor], misses: Tensor, error: float, seen: int) -> "Judged":
        """What a block's misses `[rows]` and mean absolute error mean, after `seen` rows before it."""
        fast, slow, usual = drift["rates"].tolist()
        rows = len(misses)
        memory = max(rows, self.fast_rows)
        rate = float(misses.mean())
        fast += (rate - fast) * rows / memory
        likely = min(0.5, max(0.02, slow))
        noticed = seen > self.warm_up and fast > slow + self.threshold * math.sqrt(likely * (1.0 - likely) / memory)
        start, keep = 0, 0
        if noticed:
            start = _start(misses - min(0.5, slow + 0.15))
            keep = max(0, memory - rows) if start == 0 else 0
            slow = fast
        weight = max(rows / self.slow_rows, min(1.0, rows / max(seen, rows)))
        weight = min(1.0, weight)
        rates = torch.tensor(
            [fast, slow + (rate - slow) * weight, usual + (error - usual) * weight], dtype=torch.float64
        )
        return Judged(noticed=noticed, start=start, keep=keep, after={"rates": rates})


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Whether there is a drift.

    Attributes:
        start: the block's first row after it.
        keep: how many of the newest rows from before the block belong to the time after it.
        after: the detector's tensors after the block.
    """

    noticed: bool
    start: int
    keep: int
    after: dict[str, Tensor]


NO_DRIFT = Judged(noticed=False, start=0, keep=0, after={})


def _start(excess: Tensor) -> int:
    """Where the largest sum of what follows begins; at least 16 rows are left."""
    following = excess.flip(0).cumsum(0).flip(0)
    return int(following[: max(1, len(excess) - 15)].argmax())
