"""Concept change: the stated rate over years without change, the delay after one, and memory."""

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from monitors.performance import concept
from monitors.performance.adwin import PER_LEVEL, Bucket, after_cut, best_cut, bucket, extended
from monitors.performance.concept import Concept
from monitors.performance.dependence import LEAST
from monitors.performance.edetector import MOST, EDetector, stepped

from .worlds import Rng, binary_tally, numbers_tally

YEAR = 365 * 24  # windows of an hour
MONTHLY = 1 / (30 * 24)


def alarms(opens: list[bool]) -> int:
    return sum(now and not before for before, now in zip([False, *opens], opens, strict=False))


def run(rng: Rng, windows: int, *, draw: str) -> list[bool]:
    detector, opens = EDetector(), []
    for value in getattr(rng, draw)(size=windows).tolist():
        detector = stepped(detector, value, rate=MONTHLY)
        opens.append(detector.open)
    return opens


@pytest.mark.parametrize("draw", ["standard_normal", "standard_cauchy", "standard_exponential"])
def test_years_of_quiet_windows_have_at_most_the_stated_alarms(draw: str) -> None:
    found = sum(alarms(run(np.random.default_rng(seed), YEAR, draw=draw)) for seed in range(4))
    # 48.7 in four years are stated. A detector that kept to nothing would have hundreds.
    assert 0 < found <= 48


def test_ties_make_no_alarms() -> None:
    detector = EDetector()
    for _ in range(3_000):
        detector = stepped(detector, 1.0, rate=MONTHLY)
        assert not detector.open


@pytest.mark.parametrize(("shift", "most"), [(1.0, 40), (2.0, 10), (4.0, 5)])
def test_a_shift_is_found_within_a_few_windows(shift: float, most: int) -> None:
    delays = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        detector = EDetector(values=rng.standard_normal(400).tolist())
        for _ in range(100):
            detector = stepped(detector, shift + rng.standard_normal(), rate=MONTHLY)
            if detector.open:
                break
        delays.append(len(detector.values) - 400)
    assert max(delays) <= most


def test_an_alarm_is_over_when_values_are_as_before() -> None:
    rng = np.random.default_rng(1)
    detector = EDetector(values=rng.standard_normal(400).tolist())
    for _ in range(20):
        detector = stepped(detector, 5.0, rate=MONTHLY)
    assert detector.open
    for _ in range(60):
        detector = stepped(detector, rng.standard_normal(), rate=MONTHLY)
    assert not detector.open
    assert detector.evidence < 1.0 / MONTHLY


def test_memory_is_bounded() -> None:
    detector = EDetector()
    buckets: list[Bucket] = []
    for i in range(5_000):
        detector = stepped(detector, math.sin(i), rate=MONTHLY)
        buckets = extended(buckets, bucket(10, 0.0, 10.0))
    assert len(detector.values) <= MOST
    assert len(buckets) <= PER_LEVEL * (math.log2(5_000) + 1)
    assert sum(b.windows for b in buckets) == 5_000


def test_a_value_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        stepped(EDetector(), math.nan, rate=0.1)
    with pytest.raises(ValueError, match="finite"):
        bucket(1, math.inf, 1.0)


def adwin(rng: Rng, windows: int, *, wander: float = 0.0, shift_at: int = 10**9, shift: float = 0.0) -> list[int]:
    """Windows at which means of 100 uniform rows, with means that wander between windows, were cut."""
    buckets: list[Bucket] = []
    found = []
    for i in range(windows):
        rows = rng.random(100) - 0.5 + wander * rng.standard_normal() + (shift if i >= shift_at else 0.0)
        buckets = extended(buckets, bucket(100, float(rows.sum()), float((rows**2).sum())))
        cut = best_cut(buckets, reach=1.0)
        if cut.p_value <= MONTHLY:
            found.append(i)
            buckets = after_cut(buckets, cut)
    return found


@pytest.mark.parametrize("wander", [0.0, 0.1])
def test_adwin_does_not_cut_quiet_years_even_when_windows_wander(wander: float) -> None:
    found = sum(len(adwin(np.random.default_rng(seed), YEAR // 2, wander=wander)) for seed in range(2))
    assert found <= 12


def test_adwin_cuts_where_the_mean_changed() -> None:
    (found,) = adwin(np.random.default_rng(3), 600, shift_at=500, shift=0.1)
    assert 500 <= found <= 510


def test_adwin_keeps_what_is_new() -> None:
    buckets: list[Bucket] = []
    for i in range(300):
        buckets = extended(buckets, bucket(50, 50.0 * (i >= 290), 50.0 * (i >= 290)))
    cut = best_cut(buckets, reach=1.0)
    kept = after_cut(buckets, cut)
    assert cut.after > 0.5 > cut.before
    assert 8 <= sum(b.windows for b in kept) == cut.windows <= 16


def test_concept_change_is_found_and_harder_questions_are_none() -> None:
    rng = np.random.default_rng(7)
    state = Concept()
    for i in range(300):
        state, finding = concept.judged(state, binary_tally(rng, 200), rate=MONTHLY)
        assert finding.state == ("not enough data" if i < LEAST else "quiet")
    harder, moved = state, state
    for _ in range(100):
        harder, finding = concept.judged(harder, binary_tally(rng, 200, a=4.0, b=4.0), rate=MONTHLY)
        assert finding.state == "quiet"
    windows = 0
    while finding.state == "quiet" and windows < 30:
        moved, finding = concept.judged(moved, binary_tally(rng, 200, shift=0.1), rate=MONTHLY)
        windows += 1
    assert windows <= 5
    assert (finding.kind, finding.against) == ("concept", "limit")
    assert finding.p_value <= finding.threshold


def test_errors_of_numbers_are_watched_and_one_outlier_is_no_change() -> None:
    rng = np.random.default_rng(7)
    state = Concept()
    for i in range(300):
        state, finding = concept.judged(state, numbers_tally(rng, 100, outliers=int(i % 50 == 49)), rate=MONTHLY)
        assert finding.state != "drift"
    windows = 0
    while finding.state == "quiet" and windows < 40:
        state, finding = concept.judged(state, numbers_tally(rng, 100, spread=1.4), rate=MONTHLY)
        windows += 1
    assert windows <= 10


@pytest.mark.parametrize(
    ("draw", "change", "severity"),
    [
        (binary_tally, {"shift": 0.03}, "info"),
        (binary_tally, {"shift": 0.15}, "warning"),
        (binary_tally, {"shift": 0.4}, "critical"),
        (numbers_tally, {"spread": 1.1}, "info"),
        (numbers_tally, {"spread": 1.3}, "warning"),
        (numbers_tally, {"spread": 2.0}, "critical"),
    ],
)
def test_the_severity_of_a_change_is_that_of_the_errors_rise(
    draw: Any, change: dict[str, float], severity: str
) -> None:
    rng, state = np.random.default_rng(7), Concept()
    for _ in range(100):
        state, finding = concept.judged(state, draw(rng, 500), rate=MONTHLY)
        assert finding.severity is None
    while not state.held:
        state, finding = concept.judged(state, draw(rng, 500, **change), rate=MONTHLY)
        assert finding.severity in {None, "warning"} or state.held
    assert finding.severity == severity, state.cut


def test_the_state_survives_msgpack_and_goes_on_the_same() -> None:
    rng = np.random.default_rng(7)
    state = Concept()
    for _ in range(40):
        state, _ = concept.judged(state, binary_tally(rng, 60), rate=MONTHLY)
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=Concept)
    window = binary_tally(rng, 60)
    assert concept.judged(again, window, rate=MONTHLY) == concept.judged(state, window, rate=MONTHLY)
