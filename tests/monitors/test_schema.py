"""Records that cannot be read: more of them than before is an alert, as many as ever is none."""

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from scipy.stats import poisson

from monitors.findings import Finding
from monitors.schema import SchemaState, judge_schema
from monitors.skipped import Skipped
from stream_trainer.monitoring import Monitoring

from .worlds import WINDOW

SELDOM = Monitoring(window=WINDOW)
OFTEN = Monitoring(window=WINDOW, false_alarm_every=20 * WINDOW)
ROWS = 1_000


def skipped(**reasons: int) -> Skipped:
    offsets = {reason: {"P.predictions": {2: (70, 80)}} for reason, rows in reasons.items() if rows}
    return Skipped(rows={reason: rows for reason, rows in reasons.items() if rows}, offsets=offsets)


def walk(windows: Sequence[Skipped], monitoring: Monitoring = SELDOM, rows: int = ROWS) -> list[list[Finding]]:
    state, found = SchemaState(), []
    for window in windows:
        state, findings = judge_schema(state, window, rows - window.total, monitoring, share=0.02)
        state = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=SchemaState)
        found.append(findings)
    return found


def states(windows: Sequence[Skipped]) -> list[list[tuple[str, str]]]:
    return [[(one.feature, one.state) for one in findings] for findings in walk(windows)]


def test_a_producer_that_starts_to_send_broken_records_is_found_by_reason_share_and_place() -> None:
    found = walk([skipped(null_value=1), *[skipped(null_value=1)] * 4, skipped(null_value=1, invalid_json=50)])[-1]
    by_reason = {one.feature: one for one in found}
    assert {name: one.state for name, one in by_reason.items()} == {"null_value": "quiet", "invalid_json": "drift"}
    broken = by_reason["invalid_json"]
    assert (broken.kind, broken.against, broken.rows, broken.reference_rows) == ("schema", "limit", ROWS, 5 * ROWS)
    assert broken.p_value < broken.threshold
    assert broken.detail == "0.00% -> 5.00% of all records; P.predictions/2 from offset 70"


def test_it_lasts_as_long_as_they_come_and_ends_with_them() -> None:
    broken, good = skipped(invalid_json=50), skipped()
    said = states([good, good, *[broken] * 5, good])
    assert said[:2] == [[], []]
    assert said[2:] == [[("invalid_json", "drift")]] * 5 + [[("invalid_json", "quiet")]]


def test_fewer_is_no_finding() -> None:
    found = walk([*[skipped(invalid_json=100)] * 5, skipped(invalid_json=1)])
    assert [(one.state, one.p_value) for one in found[-1]] == [("quiet", 1.0)]


def test_what_was_broken_from_the_beginning_has_not_changed() -> None:
    assert all(state == "quiet" for said in states([skipped(invalid_json=300)] * 9)[1:] for _, state in said)


@pytest.mark.parametrize("rows", [49, 30])
def test_too_few_records_on_either_side_are_no_verdict(rows: int) -> None:
    first, second = walk([skipped(null_value=1), skipped(null_value=rows)], rows=rows)
    assert [one.state for one in (*first, *second)] == ["not enough data"] * 2
    assert str(rows) in second[0].detail


def test_a_steady_share_cries_wolf_no_more_often_than_stated() -> None:
    rng, windows = np.random.default_rng(7), 2_000
    drawn = rng.multinomial(400, [0.02, 0.005, 0.975], windows)
    found = walk([skipped(a=int(a), b=int(b)) for a, b, _ in drawn], OFTEN, rows=400)
    alarms = sum(any(one.state == "drift" for one in findings) for findings in found)
    assert alarms <= poisson.ppf(0.999, windows * OFTEN.false_alarms_per_window * 0.02)


def test_what_comes_in_bursts_is_judged_by_bursts_where_that_is_asked_for() -> None:
    rng = np.random.default_rng(1)
    bursts = [skipped(a=int(rng.gamma(0.7, 30))) for _ in range(60)]
    by_rows = walk([*bursts, skipped(a=40)])
    by_windows = walk([*bursts, skipped(a=40), skipped(a=900)], Monitoring(window=WINDOW, usual_windows=14))
    assert sum(one.state == "drift" for said in by_rows for one in said) > 10
    assert sum(one.state == "drift" for said in by_windows[14:-1] for one in said) == 0
    assert by_windows[5][0].state == "not enough data"
    assert by_windows[-1][0].state == "drift"


def test_memory_is_bounded_and_follows_slowly() -> None:
    state = SchemaState()
    for _ in range(1_000):
        state, _ = judge_schema(state, skipped(a=1), ROWS - 1, SELDOM, share=0.02)
    assert state.records <= 120 * ROWS
    assert state.rows["a"] / state.records == pytest.approx(1 / ROWS, rel=0.02)
