"""A detector that bets, window after window, that the newest value is unusually high among those before.

The rank of a value among those before it is uniform while values are exchangeable, whatever their distribution (Vovk,
Gammerman, Shafer 2005), so `e = k p^(k-1)` is at most 1 on average. Shin, Ramdas and Rinaldo (2024), E-detectors: the
Shiryaev-Roberts sum of such bets, begun at every window, reaches 1/a on average no sooner than after 1/a windows. CUSUM's
maximum, Page-Hinkley's form, is never above that sum, so never sooner. Nothing has to be known of the mean before.

Values that go with their neighbours are not exchangeable: at an autocorrelation of 0.3 the rate is about as stated, at
0.6 three times that. So `ladder` bets on blocks of windows that are long enough.
"""

import math

import msgspec
import numpy as np

# Among so many newest values a value is ranked. Once the older half is let go ranks are no longer independent of each
# other; what that does to the rate is simulated in the tests.
MOST = 512
_POWERS = (0.1, 0.3, 0.6)
_HEADROOM = 10.0


class EDetector(msgspec.Struct, frozen=True, kw_only=True):
    """A pure value, about 5 kB when full.

    Attributes:
        values: the newest values, oldest first, at most `MOST`.
        sums: the Shiryaev-Roberts sum of each bet.
        open: from an alarm until the evidence is below the root of 1/rate; then the bets begin anew.
    """

    values: list[float] = []
    sums: list[float] = msgspec.field(default_factory=lambda: [0.0] * len(_POWERS))
    open: bool = False

    @property
    def evidence(self) -> float:
        """The mean of the sums: an alarm at 1/rate."""
        return sum(self.sums) / len(self.sums)


def stepped(detector: EDetector, value: float, *, rate: float) -> EDetector:
    """With one more value.

    Args:
        detector: before it.
        value: of a window; ties count as higher, which makes fewer alarms.
        rate: alarms a window that are to be expected at most while values are exchangeable, in (0, 1].

    Raises:
        ValueError: the value is not finite.
    """
    before = np.array(detector.values)
    after = observed(detector, value)
    p = (1 + int((before >= value).sum())) / (1 + len(before))
    # Without an upper bound, evidence of a long change would take as long to go.
    sums = [min((s + 1.0) * k * p ** (k - 1.0), _HEADROOM / rate) for s, k in zip(detector.sums, _POWERS, strict=True)]
    after = msgspec.structs.replace(after, sums=sums)
    if after.evidence >= 1.0 / rate:
        return msgspec.structs.replace(after, open=True)
    if after.open and after.evidence <= math.sqrt(1.0 / rate):
        return msgspec.structs.replace(after, open=False, sums=[0.0] * len(_POWERS))
    return after


def observed(detector: EDetector, value: float) -> EDetector:
    """With one more value, on which nothing is bet: later ones are ranked among it.

    Raises:
        ValueError: the value is not finite.
    """
    if not math.isfinite(value):
        raise ValueError("only finite values have a rank")
    kept = detector.values if len(detector.values) < MOST else detector.values[MOST // 2 :]
    return msgspec.structs.replace(detector, values=[*kept, value])
