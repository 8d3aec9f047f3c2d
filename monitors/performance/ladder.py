"""Bets on blocks of 1, 4, 16 and 64 windows: the shortest that are long enough, where windows go with their neighbours, and all longer ones.

Means of blocks that are longer than what goes together are nearly exchangeable (batch means), so the bets of `edetector` keep
their rate. Where windows are independent the long blocks find small changes that last.
"""

import math

import msgspec

from monitors.performance.edetector import EDetector, observed, stepped

SIZES = (1, 4, 16, 64)
# Neighbouring blocks of s windows correlate by about (t - 1) / 2 s where t windows say as much as one.
_NEIGHBOURS = 0.3


class Rung(msgspec.Struct, frozen=True, kw_only=True):
    """One size of blocks: the block that is being filled, and the bets on those before."""

    windows: int = 0
    total: float = 0.0
    variance: float = 0.0
    detector: EDetector = EDetector()
    trusted: bool = False

    @property
    def open(self) -> bool:
        """Whether it alarms."""
        return self.trusted and self.detector.open

    @property
    def evidence(self) -> float:
        """Of its bets, 0 while its blocks are too short."""
        return self.detector.evidence if self.trusted else 0.0


class Ladder(msgspec.Struct, frozen=True, kw_only=True):
    """One rung a size of `SIZES`."""

    rungs: list[Rung] = msgspec.field(default_factory=lambda: [Rung() for _ in SIZES])

    @property
    def open(self) -> bool:
        """Whether any alarms."""
        return any(rung.open for rung in self.rungs)

    @property
    def p_value(self) -> float:
        """The rate of alarms a window at which the evidence there is would be one."""
        best = max(rung.evidence * size for rung, size in zip(self.rungs, SIZES, strict=True))
        return len(SIZES) / max(best, float(len(SIZES)))


def climbed(ladder: Ladder, total: float, variance: float, *, rate: float, as_one: float | None) -> Ladder:
    """With one more window.

    Args:
        ladder: before it.
        total: sum of the window's errors.
        variance: that the sum should have, above 0.
        rate: alarms a window that are to be expected at most; each size has as much of it as any other.
        as_one: so many windows in a row say as much as one; None: not known, and nothing is bet.
    """
    rungs = []
    for rung, size in zip(ladder.rungs, SIZES, strict=True):
        windows, sums, variances = rung.windows + 1, rung.total + total, rung.variance + variance
        if windows < size:
            rungs.append(msgspec.structs.replace(rung, windows=windows, total=sums, variance=variances))
            continue
        trusted = as_one is not None and as_one - 1.0 <= 2.0 * size * _NEIGHBOURS
        value = sums / math.sqrt(variances)
        step = stepped(rung.detector, value, rate=min(1.0, rate * size / len(SIZES))) if trusted else None
        rungs.append(Rung(detector=step or observed(rung.detector, value), trusted=trusted))
    return Ladder(rungs=rungs)
