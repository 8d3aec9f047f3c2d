"""Performance without labels: what the answers of a window are worth, if answers are worth what they were of late.

The idea is NannyML's confidence-based performance estimation: a calibrated probability says itself how often it is right.
It holds while labels depend on the answers as before; that they do not, only labels can show (`concept`). What is expected
of windows differs by more than their rows alone, so they are held among windows too (`levels`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitors.findings import Effect, Finding
from monitors.performance import levels
from monitors.performance.bounds import p_larger
from monitors.performance.calibration import CalibrationMap, calibration_map
from monitors.performance.levels import Level, Levels, Seen
from monitors.performance.tally import BINS, CALIBRATION_BINS, Tally
from stream_trainer.contract import Task

Floats = NDArray[np.float64]
LEAST_EXAMPLES = 500
_LEAST_LOSS = 1e-7  # nats


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """An expected figure.

    Attributes:
        value: what is expected.
        map_error: standard error that comes from the calibration map.
        error: the same and the chance of the window's own labels: so far from `value` the realised figure lies by chance.
    """

    value: float
    map_error: float
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Expected figures of a window; `roc_auc` None for more than two classes, or where one class is not expected."""

    log_loss: Figure
    accuracy: Figure
    roc_auc: Figure | None


def estimate(task: Task, known: CalibrationMap, outputs: Floats) -> Estimate:
    """What is to be expected of a window.

    Args:
        task: binary or multiclass.
        known: of the newest joined examples.
        outputs: rows by probability, `[100]` equal bins, at least 1 row.
    """
    rows = outputs.sum()
    shares, chance = outputs / rows, known.chance
    right = np.arange(BINS) >= BINS // 2 if task == "binary" else np.ones(BINS, dtype=np.bool_)
    sign = np.where(right, 1.0, -1.0)
    gap = known.cost_hit - known.cost_miss
    return Estimate(
        log_loss=_figure(known, float(shares @ _costs(known)), shares * gap, outputs),
        accuracy=_figure(known, float(shares @ np.where(right, chance, 1.0 - chance)), shares * sign, outputs),
        roc_auc=_roc_auc(known, outputs) if task == "binary" else None,
    )


def estimate_finding(
    past: Tally, outputs: Sequence[int], usual: Levels, *, alpha: float, min_rows: int
) -> tuple[Finding, Levels]:
    """Kind `estimate`, against `learned`: whether more log loss is to be expected than the answers of late had; and what is usual after it.

    Args:
        past: the newest joined examples.
        outputs: rows of the window by probability, `[100]`.
        usual: how much windows differ in what is expected of them, without this one.
        alpha: chance of `drift` while nothing changes.
        min_rows: with fewer rows there is no verdict, nor before `levels.LEAST` windows.

    The p-value is the largest of three: of a normal with the map's error and both samples', of `bounds.p_larger` for the
    answers alone, and of the window among windows; so neither a small window, nor a poor map, nor a day that is hard as days
    are makes an alarm.
    """
    rows, examples = sum(outputs), past.losses.rows
    why = None
    if past.task == "regression":
        why = "the loss of numbers is not estimated without labels"
    elif rows < min_rows or examples < LEAST_EXAMPLES:
        why = f"{rows} answers and {examples} joined examples; {min_rows} and {LEAST_EXAMPLES} are needed"
    if why is not None:
        return _untested(why, rows, examples), usual
    known, window = calibration_map(past), np.array(outputs, dtype=np.float64)
    costs, before = _costs(known), known.rows
    now, before_shares = window / window.sum(), before / before.sum()
    rise = float((now - before_shares) @ costs)
    spread = math.sqrt(_variance(now, costs) / rows + _variance(before_shares, costs) / examples)
    error = math.hypot(spread, known.error((now - before_shares) * (known.cost_hit - known.cost_miss)))
    p = max(_normal_tail(rise / error) if error > 0.0 else 1.0, p_larger(_unit(costs), window, before))
    level = float(before_shares @ costs)
    known_level, seen = usual.known.get("", Level()), _seen(level, rise, _variance(now, costs) / rows)
    after = levels.taught(usual, {"": seen}, {""})
    if known_level.windows < levels.LEAST:
        why = f"how much windows usually differ is not known yet: {known_level.windows} of {levels.LEAST}"
        return _untested(why, rows, examples), after
    p = max(p, levels.p_higher(known_level, seen, usual.as_one))
    finding = Finding(
        kind="estimate",
        feature="",
        against="learned",
        state="drift" if p <= alpha else "quiet",
        statistic=rise / level if level > 0.0 else 0.0,
        p_value=p,
        threshold=alpha,
        effect=Effect(psi=_stability_index(window, before)),
        rows=rows,
        reference_rows=examples,
        detail=f"log loss of {level + rise:.4g} ± {error:.2g} is to be expected, usually {level:.4g}",
    )
    return finding, after


def _seen(level: float, rise: float, variance: float) -> Seen:
    """What is expected of a window, in octaves above what answers of late had; its noise by the delta method."""
    now = max(level + rise, _LEAST_LOSS)
    return Seen(math.log2(now / max(level, _LEAST_LOSS)), variance / (now * math.log(2.0)) ** 2)


def _untested(why: str, rows: int, examples: int) -> Finding:
    return Finding(
        kind="estimate",
        feature="",
        against="learned",
        state="not enough data",
        rows=rows,
        reference_rows=examples,
        detail=why,
    )


def _costs(known: CalibrationMap) -> Floats:
    found: Floats = known.chance * known.cost_hit + (1.0 - known.chance) * known.cost_miss
    return found


def _figure(known: CalibrationMap, value: float, gradient: Floats, outputs: Floats) -> Figure:
    """`gradient`: of the figure by the chance of each bin; a label moves it by as much over the bin's rows."""
    per_row = np.divide(gradient, outputs, out=np.zeros(BINS), where=outputs > 0.0)
    own = float((outputs * known.chance * (1.0 - known.chance) * per_row**2).sum())
    map_error = known.error(gradient)
    return Figure(value=value, map_error=map_error, error=math.hypot(map_error, math.sqrt(own)))


def _roc_auc(known: CalibrationMap, outputs: Floats) -> Figure | None:
    positive, negative = outputs * known.chance, outputs * (1.0 - known.chance)
    pairs = positive.sum() * negative.sum()
    if pairs <= 0.0:
        return None
    # Of each bin: the negatives below it and the positives above, ties count half.
    below = np.cumsum(negative) - negative / 2.0
    above = positive.sum() - np.cumsum(positive) + positive / 2.0
    area = float(positive @ below / pairs)
    gradient = outputs * ((below - above) / pairs - area * (1.0 / positive.sum() - 1.0 / negative.sum()))
    return _figure(known, area, gradient, outputs)


def _variance(shares: Floats, values: Floats) -> float:
    return max(float(shares @ values**2 - (shares @ values) ** 2), 0.0)


def _unit(costs: Floats) -> Floats:
    width = costs.max() - costs.min()
    found: Floats = (costs - costs.min()) / width if width > 0.0 else np.zeros(len(costs))
    return found


def _normal_tail(z: float) -> float:
    return 0.5 * math.erfc(z / math.sqrt(2.0))


def _stability_index(window: Floats, before: Floats) -> float:
    shares = [counts.reshape(CALIBRATION_BINS, -1).sum(1) + 0.5 for counts in (window, before)]
    now, usual = (share / share.sum() for share in shares)
    return float(((now - usual) * np.log(now / usual)).sum())
