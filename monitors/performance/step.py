"""What the windows show, one after the other: the map of this package, and what the monitor calls."""

from collections.abc import Sequence

import msgspec

from monitors.findings import Finding
from monitors.performance.tally import Tally
from stream_trainer.monitoring import Monitoring


class PerformanceState(msgspec.Struct, frozen=True, kw_only=True):
    """What is usual, and how far the detectors are. `PerformanceState()` is the beginning; msgpack-able, bounded.

    A function of the closed windows alone, in their order.
    """


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What a closed window showed: the state after it, its findings, and figures for `WindowRecord.scores`."""

    state: PerformanceState
    findings: list[Finding]
    scores: dict[str, float]


def judge_labelled(state: PerformanceState, window: Tally, monitoring: Monitoring, *, share: float) -> Judged:
    """A window of joined examples has closed: kinds `loss` and `concept`; afterwards it belongs to what is usual.

    Args:
        state: after the window before.
        window: its figures; an empty one changes nothing.
        monitoring: the stated rate and the least rows.
        share: of `monitoring.false_alarms_per_window` that these kinds may use.
    """
    raise NotImplementedError


def judge_outputs(state: PerformanceState, outputs: Sequence[int], monitoring: Monitoring, *, share: float) -> Judged:
    """A window of predictions has closed: kind `estimate`; the state stays as it is.

    Args:
        state: its calibration comes from the joined examples so far.
        outputs: rows by the probability answered (of true; of the likeliest class), `[100]` equal bins; empty for numbers.
        monitoring: the stated rate and the least rows.
        share: of `monitoring.false_alarms_per_window` that this kind may use.
    """
    raise NotImplementedError
