"""Concept change on the error stream: whether labels depend on what was asked in another way than before.

For classes a row's error is its *surprise*: log loss minus the loss that the answer itself expects, its entropy. While
answers are calibrated its mean is 0 whatever is asked, so harder questions alone are no change. For numbers it is the
logarithm of the absolute error, which no outlier moves far. Two detectors look at it: ADWIN at its mean, and bets on
ranks (`ladder`), which know nothing of the mean before. Both are told how many windows count as one (`dependence`).
"""

import math

import msgspec
import numpy as np

from monitors.findings import Finding, Severity
from monitors.performance.adwin import Bucket, Cut, after_cut, best_cut, bucket, extended
from monitors.performance.counting import FLOOR
from monitors.performance.dependence import LEAST, counted_as_one
from monitors.performance.exact import as_float
from monitors.performance.ladder import Ladder, climbed
from monitors.performance.tally import Tally

HOLD, COURSE = 12, 512
_OCTAVE, _FAR = 4.0, 8.0
# Rises of the mean error that are a warning and critical: nats of loss a row; of numbers octaves, so that the squared error
# is 1.4 times and twice as large.
_GRAVE, _GRAVE_OCTAVES = (0.1, 0.25), (0.25, 0.5)
_LEAST_VARIANCE, _LEAST_SPREAD = 1e-4, 0.25


class Concept(msgspec.Struct, frozen=True, kw_only=True):
    """How far both detectors are; msgpack-able, about 25 kB when full. A function of the windows, in their order.

    Attributes:
        ladder: the bets.
        buckets: of ADWIN.
        course: errors of the newest windows since ADWIN's last cut, in standard errors.
        as_one: so many windows in a row say as much as one; None: not known yet.
        held: for so many windows more a cut stays a finding; `cut`: that one.
        centre, spread: mean and standard deviation of the first window's errors in octaves, numbers only.
    """

    ladder: Ladder = Ladder()
    buckets: list[Bucket] = []
    course: list[float] = []
    as_one: float | None = None
    held: int = 0
    cut: Cut = Cut()
    centre: float | None = None
    spread: float = 1.0


def judged(concept: Concept, now: Tally, *, rate: float, windows: int = 1) -> tuple[Concept, Finding]:
    """With one more window, and kind `concept`: `drift` while errors are larger than before.

    Args:
        concept: after the window before.
        now: the window's figures, at least 1 row.
        rate: alarms a window that are to be expected at most while nothing changes; each detector has half.
        windows: how many windows of the clock `now` is.

    `p_value` is twice the smaller of both: ADWIN's, and one by the bets' evidence; `statistic` is 1 over it. `severity` goes by the rise of the mean error. There is no verdict on
    the first `dependence.LEAST` windows, because how they go together is not known.
    """
    concept = _centred(concept, now)
    rows, total, squares, variance = _sums(concept, now)
    variance = max(variance, rows * _LEAST_VARIANCE)
    as_one = _as_one(concept)
    ladder = climbed(concept.ladder, total, variance, rate=rate / 2, as_one=as_one)
    buckets = extended(concept.buckets, bucket(rows, total, squares))
    course = [*concept.course[1 - COURSE :], total / math.sqrt(variance)]
    cut = Cut() if as_one is None else best_cut(buckets, reach=_reach(now), as_one=as_one)
    held = max(concept.held - 1, 0)
    shown = concept.cut if held else Cut()
    if cut.p_value <= rate / 2:
        buckets, course = after_cut(buckets, cut), course[-cut.windows :]
        held, shown = (HOLD, cut) if cut.after > cut.before else (0, Cut())
    after = msgspec.structs.replace(
        concept, ladder=ladder, buckets=buckets, course=course, as_one=as_one, held=held, cut=shown
    )
    return after, _finding(after, now, rate, windows)


def _as_one(concept: Concept) -> float | None:
    """By the windows but for the newest quarter: a change that has just begun looks like windows that go together."""
    windows = len(concept.course)
    return concept.as_one if windows < LEAST else counted_as_one(concept.course[: windows - windows // 4])


def _finding(concept: Concept, now: Tally, rate: float, windows: int) -> Finding:
    cut, rows = concept.cut, now.losses.rows
    found = concept.ladder.open or concept.held > 0
    p = min(1.0, 2.0 * min(concept.ladder.p_value, cut.p_value))
    detail = []
    if concept.ladder.open:
        detail.append("errors of the newest windows rank high among those before")
    if concept.held:
        detail.append(f"the mean error went from {cut.before:.4g} to {cut.after:.4g}")
    if concept.as_one is None:
        detail.append(f"how windows go together is not known yet: {len(concept.course)} of {LEAST}")
    elif detail and concept.as_one >= 2.0:
        detail.append(f"{concept.as_one:.0f} windows in a row count as one")
    return Finding(
        kind="concept",
        feature="",
        against="limit",
        state="drift" if found else "not enough data" if concept.as_one is None else "quiet",
        windows=windows,
        statistic=1.0 / p,
        p_value=min(p, rate) if found else p,
        threshold=rate,
        severity=_severity(concept, now) if found else None,
        rows=rows,
        reference_rows=sum(b.rows for b in concept.buckets) - rows,
        detail="; ".join(detail),
    )


def _severity(concept: Concept, now: Tally) -> Severity:
    """By how far the mean error rose; bets on ranks alone do not say how far, and are a warning."""
    if not concept.held:
        return "warning"
    warning, critical = _GRAVE_OCTAVES if now.task == "regression" else _GRAVE
    rise = concept.cut.after - concept.cut.before
    return "critical" if rise >= critical else "warning" if rise >= warning else "info"


def _reach(now: Tally) -> float:
    """Length of the interval that a row's error lies in."""
    if now.task == "regression":
        return 2.0 * _FAR
    return -math.log(FLOOR) + math.log(max(len(now.labels), 2))


def _centred(concept: Concept, now: Tally) -> Concept:
    if now.task != "regression" or concept.centre is not None:
        return concept
    octaves, rows = _octaves(now)
    centre = float(octaves @ rows / rows.sum())
    spread = math.sqrt(float((octaves - centre) ** 2 @ rows / rows.sum()))
    return msgspec.structs.replace(concept, centre=centre, spread=max(spread, _LEAST_SPREAD))


def _sums(concept: Concept, now: Tally) -> tuple[int, float, float, float]:
    """Rows, sum of their errors, of the squares, and the variance that the sum should have."""
    count = now.losses.rows
    if now.task != "regression":
        return count, as_float(now.surprise), as_float(now.surprise_squares), as_float(now.surprise_variance)
    octaves, rows = _octaves(now)
    far = np.clip(octaves - (concept.centre or 0.0), -_FAR, _FAR)
    return count, float(far @ rows), float(far**2 @ rows), count * concept.spread**2


def _octaves(
    now: Tally,
) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.float64]]]:
    sizes = sorted(now.losses.sizes)
    return np.array(sizes) / _OCTAVE, np.array([float(now.losses.sizes[size]) for size in sizes])
