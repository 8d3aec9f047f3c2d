"""Notices that the forecasts have become much worse than they were, and says since when.

The test compares a fast and a slow running rate of misses by the slow one's binomial deviation, in the spirit of Gama
et al. (2004). What to do about it is the learner's: forget what came before, learn the rest more often, copy the best net.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from stream_trainer.learners.tabular.heads import Head
from stream_trainer.learners.tabular.trial import Trial

# Of excess misses; more would take too long to go away.
_MOST = 128.0
# A number is not missed by less, however good the forecasts have been: in standard deviations.
_LEAST_ERROR = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Options. Tensor: `rates [6]`.

    Those are the fast and the slow rate of misses, the usual error of a number, rows since an alarm, the sum of excess
    misses and over how many rows.

    Attributes:
        threshold: how many deviations above the slow rate are a drift.
        fast_rows: the fast rate's memory; a larger block is its own.
        slow_rows: the slow rate's memory.
        warm_up: rows before the first drift can be noticed.
        passes: how many more passes are made over the rows since the drift.
        fewest: rows since its beginning before a drift can be answered.
        margin: nets whose loss is so far above the best's then take over its weights.
        trial: what a response has to show before it is made; None makes it at every alarm.
    """

    threshold: float = 5.0
    fast_rows: int = 128
    slow_rows: int = 2_000
    warm_up: int = 1_000
    passes: int = 4
    fewest: int = 50
    margin: float = 0.03
    trial: Trial | None = field(default_factory=Trial)

    def fresh(self) -> dict[str, Tensor]:
        """Before the first row."""
        return {"rates": torch.tensor([0.5, 0.5, 1.0, 1e9, 0.0, 0.0], dtype=torch.float64)}

    def judged(self, drift: Mapping[str, Tensor], misses: Tensor, counts: Tensor, error: float, seen: int) -> "Judged":
        """What a block means after `seen` rows before it: misses `[rows]`, what each counts `[rows]`, mean absolute error."""
        fast, slow, usual, quiet, excess, run = drift["rates"].tolist()
        rows = len(misses)
        memory = max(rows, self.fast_rows)
        rate = float((misses * counts).sum() / counts.sum())
        fast += (rate - fast) * rows / memory
        quiet += rows
        likely = min(0.5, max(0.02, slow))
        above = fast > slow + self.threshold * math.sqrt(likely * (1.0 - likely) / memory)
        excess, run = _since((misses - min(0.5, slow + 0.15)) * counts, excess, run)
        start, keep = max(0, rows - int(run)), max(0, int(run) - rows)
        noticed = above and seen > self.warm_up and quiet >= memory and run >= self.fewest
        quiet = 0.0 if noticed else quiet
        weight = min(1.0, max(rows / self.slow_rows, rows / max(seen, rows)))
        usual += (error - usual) * weight

        def rates(before: float) -> dict[str, Tensor]:
            known = [fast, before + (rate - before) * weight, usual, quiet, excess, run]
            return {"rates": torch.tensor(known, dtype=torch.float64)}

        return Judged(
            noticed=noticed, start=start, keep=keep, after=rates(fast if noticed else slow), denied=rates(slow)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Whether there is a drift.

    Attributes:
        noticed: there is.
        start: the block's first row after it.
        keep: how many of the newest rows from before the block belong to the time after it.
        after: the detector's tensors after the block.
        denied: the same if a drift that was noticed turns out to be none.
        new_concept: it was shown to be one, and not the old concept under other labels.
    """

    noticed: bool
    start: int
    keep: int
    after: dict[str, Tensor]
    denied: dict[str, Tensor]
    new_concept: bool = False

    def none(self) -> "Judged":
        """No drift after all."""
        return replace(self, noticed=False, after=self.denied)


NO_DRIFT = Judged(noticed=False, start=0, keep=0, after={}, denied={})


def judged_by(
    drift: Drift, tensors: dict[str, Tensor], head: Head, mixture: Tensor, codes: Tensor, counts: Tensor, seen: int
) -> Judged:
    """What a block means, by its forecast and its coded labels `[rows, size]`; the first, forecast by nothing, means nothing."""
    if not seen:
        return replace(NO_DRIFT, after=tensors)
    usual = max(float(tensors["rates"][2]), _LEAST_ERROR)
    error = float((mixture - codes).abs().clamp(max=3.0 * usual).mean()) if head.size == 1 else 1.0
    return drift.judged(tensors, head.misses(mixture, codes, usual), counts, error, seen)


def _since(excess: Tensor, carried: float, run: float) -> tuple[float, float]:
    """The largest sum of excess misses that ends here, and over how many rows (Page 1954); both go on over blocks."""
    sums = excess.double().cumsum(0)
    least = int(sums.argmin())
    if carried + float(sums[least]) > 0.0:
        return min(carried + float(sums[-1]), _MOST), run + len(excess)
    return min(float(sums[-1] - sums[least]), _MOST), float(len(excess) - 1 - least)
