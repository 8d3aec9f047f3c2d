"""What the windows show, one after the other: the map of this package, and what the monitor calls."""

from collections.abc import Sequence

import msgspec
import numpy as np

from monitors.findings import Finding
from monitors.performance import concept
from monitors.performance.calibration import calibration_map
from monitors.performance.concept import Concept
from monitors.performance.estimate import LEAST_EXAMPLES, estimate, estimate_finding
from monitors.performance.levels import Levels
from monitors.performance.past import Past
from monitors.performance.realised import loss_findings
from monitors.performance.scores import estimated_scores, window_scores
from monitors.performance.tally import Losses, Tally, add
from stream_trainer.monitoring import Monitoring

PAST_ROWS = 20_000


class PerformanceState(msgspec.Struct, frozen=True, kw_only=True):
    """What is usual, and how far the detectors are. `PerformanceState()` is the beginning; msgpack-able, bounded.

    A function of the closed windows alone, in their order.

    Attributes:
        past: the newest `PAST_ROWS` joined examples, or a few more.
        levels: how much the losses of windows usually differ; `expected`: what is expected of them without labels.
        concept: the detectors.
        before: labels of the window that was judged last.
        pending: windows with too few rows, together; `waiting`: how many.
    """

    past: Past = Past()
    levels: Levels = Levels()
    expected: Levels = Levels()
    concept: Concept = Concept()
    before: Tally = Tally()
    pending: Tally = Tally()
    waiting: int = 0


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What a closed window showed: the state after it, its findings, and figures for `WindowRecord.scores`."""

    state: PerformanceState
    findings: list[Finding] = []
    scores: dict[str, float] = {}


def judge_labelled(state: PerformanceState, window: Tally, monitoring: Monitoring, *, share: float) -> Judged:
    """A window of joined examples has closed: kinds `loss` and `concept`; afterwards it belongs to what is usual.

    Windows with fewer than `monitoring.min_rows` rows wait and are judged together, so few labels a window are no
    reason never to judge.

    Args:
        state: after the window before. One of another kind of label begins anew.
        window: its figures; an empty one changes nothing.
        monitoring: the stated rate and the least rows.
        share: of `monitoring.false_alarms_per_window` that these kinds may use; each has half.
    """
    if not window.losses.rows:
        return Judged(state=state)
    if not all(_same(tally, window) for tally in (state.pending, state.before)):
        state = PerformanceState()
    past = state.past.total()
    scores = window_scores(window, state.before, past)
    now, windows = add(state.pending, msgspec.structs.replace(window, versions={})), state.waiting + 1
    if now.losses.rows < monitoring.min_rows:
        waiting = msgspec.structs.replace(state, pending=now, waiting=windows, before=_labels(window))
        return Judged(state=waiting, findings=[_waits(now, windows, monitoring)], scores=scores)
    rate = share * monitoring.false_alarms_per_window / 2
    losses, levels = loss_findings(now, past, state.levels, alpha=rate, min_rows=monitoring.min_rows)
    detectors, changed = concept.judged(state.concept, now, rate=rate, windows=windows)
    after = PerformanceState(
        past=state.past.then(now, rows=PAST_ROWS),
        levels=levels,
        expected=state.expected,
        concept=detectors,
        before=_labels(window),
    )
    findings = [*(msgspec.structs.replace(finding, windows=windows) for finding in losses), changed]
    return Judged(state=after, findings=findings, scores=scores)


def judge_outputs(state: PerformanceState, outputs: Sequence[int], monitoring: Monitoring, *, share: float) -> Judged:
    """A window of predictions has closed: kind `estimate`; of the state only what is expected of windows changes.

    Args:
        state: its calibration comes from the joined examples so far.
        outputs: rows by the probability answered (of true; of the likeliest class), `[100]` equal bins; empty for
            numbers, whose loss is not estimated.
        monitoring: the stated rate and the least rows.
        share: of `monitoring.false_alarms_per_window` that this kind may use.
    """
    past = state.past.total()
    rows = sum(outputs)
    alpha = share * monitoring.false_alarms_per_window
    finding, expected = estimate_finding(past, outputs, state.expected, alpha=alpha, min_rows=monitoring.min_rows)
    scores: dict[str, float] = {}
    if past.task in ("binary", "multiclass") and past.losses.rows >= LEAST_EXAMPLES and rows:
        found = estimate(past.task, calibration_map(past), np.array(outputs, dtype=np.float64))
        scores = estimated_scores(found)
    return Judged(state=msgspec.structs.replace(state, expected=expected), findings=[finding], scores=scores)


def _same(first: Tally, second: Tally) -> bool:
    return not first.losses.rows or (first.task == second.task and len(first.labels) == len(second.labels))


def _labels(window: Tally) -> Tally:
    """What the baseline of the next window needs."""
    return Tally(
        task=window.task,
        losses=Losses(rows=window.losses.rows),
        labels=window.labels,
        label_sums=window.label_sums,
    )


def _waits(now: Tally, windows: int, monitoring: Monitoring) -> Finding:
    return Finding(
        kind="loss",
        feature="",
        against="learned",
        state="not enough data",
        windows=windows,
        rows=now.losses.rows,
        detail=f"{now.losses.rows} rows with a label wait for {monitoring.min_rows}",
    )
