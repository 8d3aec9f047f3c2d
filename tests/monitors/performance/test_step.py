"""A window after the other: findings, figures, and a state that is a function of the windows alone."""

import math
from datetime import timedelta

import msgspec
import numpy as np
import pytest

from monitors.performance.concept import COURSE
from monitors.performance.counting import figures
from monitors.performance.dependence import LEAST
from monitors.performance.edetector import MOST, EDetector
from monitors.performance.ladder import SIZES, Ladder, Rung
from monitors.performance.past import BLOCKS, Past
from monitors.performance.scores import window_scores
from monitors.performance.step import PAST_ROWS, Judged, PerformanceState, judge_labelled, judge_outputs
from monitors.performance.tally import Tally, add
from stream_trainer.monitoring import Monitoring

from .worlds import Rng, binary, binary_tally, histogram, numbers_tally

HOURLY = Monitoring(window=timedelta(hours=1), false_alarm_every=timedelta(days=10))


def run(rng: Rng, windows: int, state: PerformanceState, **shape: float) -> Judged:
    last = Judged(state=state)
    for _ in range(windows):
        last = judge_labelled(last.state, binary_tally(rng, 120, **shape), HOURLY, share=0.5)
    return last


def test_a_replay_gives_the_same_bytes() -> None:
    first, second = (run(np.random.default_rng(4), 40, PerformanceState()) for _ in range(2))
    assert msgspec.msgpack.encode(first) == msgspec.msgpack.encode(second)
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(first.state), type=PerformanceState)
    assert run(np.random.default_rng(5), 3, again) == run(np.random.default_rng(5), 3, second.state)


def test_hundreds_of_quiet_windows_alarm_at_most_as_often_as_stated() -> None:
    rng = np.random.default_rng(2)
    state, found = PerformanceState(), 0
    for _ in range(720):  # a month: three alarms are stated for all kinds together
        answers, labels = binary(rng, int(rng.integers(50, 200)))
        expected = judge_outputs(state, histogram(answers), HOURLY, share=0.5)
        found, state = found + (expected.findings[0].state == "drift"), expected.state
        tally = figures("binary", answers[:, None], labels, np.ones(len(labels), dtype=np.int64), {})
        judged = judge_labelled(state, tally, HOURLY, share=0.5)
        found += any(finding.state == "drift" for finding in judged.findings)
        state = judged.state
    assert found <= 3


def test_a_change_is_found_by_the_kind_that_it_is() -> None:
    rng = np.random.default_rng(2)
    state = run(rng, 150, PerformanceState()).state
    sudden = run(rng, 1, state, shift=0.25).findings
    slow = run(rng, 15, state, shift=0.07).findings
    assert {f.kind for f in sudden if f.state == "drift"} >= {"loss"}
    assert {f.kind for f in slow if f.state == "drift"} >= {"concept"}
    for _ in range(30):
        state = judge_outputs(state, histogram(binary(rng, 300)[0]), HOURLY, share=0.5).state
    harder = judge_outputs(state, histogram(binary(rng, 300, a=4.0, b=4.0)[0]), HOURLY, share=0.5)
    assert harder.findings[0].state == "drift"
    assert {"estimated_log_loss", "estimated_roc_auc_error"} <= harder.scores.keys()
    assert msgspec.structs.replace(harder.state, expected=state.expected) == state


def test_windows_with_few_labels_are_judged_together() -> None:
    rng = np.random.default_rng(2)
    state, windows = PerformanceState(), []
    for _ in range(6):
        judged = judge_labelled(state, binary_tally(rng, 20), HOURLY, share=0.5)
        state = judged.state
        windows += [(f.kind, f.windows, f.state) for f in judged.findings]
        assert judged.scores["labelled_rows"] == 20
    waits = [("loss", 1, "not enough data"), ("loss", 2, "not enough data")]
    assert windows[:3] == [*waits, ("loss", 3, "not enough data")]
    assert windows[3] == ("concept", 3, "not enough data")
    assert windows[4:] == [*waits, ("loss", 3, "not enough data"), ("concept", 3, "not enough data")]
    assert state.past.rows == 120
    for _ in range(3 * LEAST):
        judged = judge_labelled(judged.state, binary_tally(rng, 20), HOURLY, share=0.5)
    assert [(f.kind, f.windows, f.state) for f in judged.findings] == [("loss", 3, "quiet"), ("concept", 3, "quiet")]


def test_an_empty_window_changes_nothing_and_another_label_begins_anew() -> None:
    rng = np.random.default_rng(2)
    state = run(rng, 3, PerformanceState()).state
    assert judge_labelled(state, Tally(), HOURLY, share=0.5) == Judged(state=state)
    other = judge_labelled(state, numbers_tally(rng, 100), HOURLY, share=0.5)
    assert other.state.past.rows == 100
    assert not judge_outputs(other.state, [], HOURLY, share=0.5).scores


def test_the_past_is_bounded_and_keeps_the_newest() -> None:
    rng = np.random.default_rng(2)
    past, one = Past(), binary_tally(rng, 700)
    for _ in range(100):
        past = past.then(one, rows=PAST_ROWS)
    assert PAST_ROWS <= past.rows < PAST_ROWS * (1 + 2 / BLOCKS)
    assert len(past.blocks) <= BLOCKS + 1
    large = numbers_tally(rng, 50)
    assert past.then(large, rows=PAST_ROWS).total().losses == large.losses
    assert past.then(Tally(), rows=PAST_ROWS) is past


def test_the_state_stays_small() -> None:
    rng = np.random.default_rng(2)
    state = run(rng, 400, PerformanceState()).state
    full = Rung(detector=EDetector(values=rng.standard_normal(MOST - 1).tolist()))
    course = rng.standard_normal(COURSE).tolist()
    detectors = msgspec.structs.replace(state.concept, ladder=Ladder(rungs=[full for _ in SIZES]), course=course)
    state = msgspec.structs.replace(state, concept=detectors)
    sizes = [len(msgspec.msgpack.encode(run(rng, windows, state).state)) for windows in (1, 3)]
    assert sizes[1] < sizes[0] < 64_000


def test_baselines_are_those_of_their_labels() -> None:
    one = np.ones(4, dtype=np.int64)
    before = figures("binary", np.full((4, 1), 0.5), np.array([1.0, 1.0, 1.0, 0.0]), one, {})
    now = figures("binary", np.full((4, 1), 0.5), np.array([0.0, 0.0, 1.0, 1.0]), one, {})
    found = window_scores(now, before, add(before, now))
    assert found["log_loss"] == pytest.approx(math.log(2))
    assert found["no_change_accuracy"] == 0.5
    assert found["no_change_log_loss"] == pytest.approx(-(math.log(4 / 6) + math.log(2 / 6)) / 2)
    assert found["majority_log_loss"] == pytest.approx(-(math.log(6 / 10) + math.log(4 / 10)) / 2)
    assert "no_change_log_loss" not in window_scores(now, Tally(), Tally())
    assert window_scores(Tally(), before, before) == {}


def test_baselines_of_numbers_come_from_sums() -> None:
    one = np.ones(3, dtype=np.int64)
    before = figures("regression", np.zeros((3, 1)), np.array([1.0, 2.0, 3.0]), one, {})
    labels = np.array([4.0, 7.0, 1.0])
    found = window_scores(figures("regression", np.zeros((3, 1)), labels, one, {}), before, before)
    assert found["no_change_mse"] == pytest.approx(((labels - 2.0) ** 2).mean())
    assert found["majority_rmse"] == pytest.approx(math.sqrt(((labels - 2.0) ** 2).mean()))
    assert found["mae"] == pytest.approx(4.0)
