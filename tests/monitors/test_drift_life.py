"""The life of a drift alert as it was: it opens late, repeats seldom and is resolved late."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from monitors.alerts import Alert, WindowSpan, with_report
from monitors.drift import AlertPolicy, Evidence, FeatureDrift, Streak, Verdict, step

from .worlds import START

POLICY = AlertPolicy(open_after=2, resolve_after=2, repeat_after=10)


def evidence(number: int) -> Evidence:
    at = START + timedelta(minutes=number)
    window = WindowSpan(start=at, end=at + timedelta(minutes=1), rows=2_000)
    return Evidence(pipeline="flights", window=window, model_version=number + 1)


def verdict(kind: Verdict, *, critical: bool = False) -> FeatureDrift:
    return FeatureDrift(feature="x", verdict=kind, detail="moved", psi=0.3, critical=critical)


def walk(kinds: list[FeatureDrift]) -> list[tuple[int, Alert]]:
    open_alerts: dict[str, Alert] = {}
    streaks: dict[str, Streak] = {}
    found = []
    for number, one in enumerate(kinds):
        open_alerts, streaks, events = step(open_alerts, streaks, [one], evidence(number), POLICY)
        found += [(number, event) for event in events]
    return found


DRIFT, QUIET, NOTHING = verdict("drift"), verdict("quiet"), verdict("insufficient data")


def test_an_alert_opens_at_the_second_drifted_window_and_is_resolved_at_the_second_quiet_one() -> None:
    found = walk([QUIET, DRIFT, DRIFT, DRIFT, QUIET, DRIFT, QUIET, QUIET, QUIET])

    assert [(n, e.status) for n, e in found] == [(2, "opened"), (7, "resolved")]
    opened, resolved = (event for _, event in found)
    assert opened.alert_key == resolved.alert_key == "drift/x"
    assert resolved.opened_at == opened.opened_at == evidence(2).window.end
    assert "version 3" in opened.message


def test_one_drifted_window_is_not_enough() -> None:
    assert walk([DRIFT, QUIET] * 20) == []


def test_a_window_with_too_little_data_changes_nothing() -> None:
    found = walk([DRIFT, NOTHING, NOTHING, DRIFT, QUIET, NOTHING, QUIET])

    assert [(n, e.status) for n, e in found] == [(3, "opened"), (6, "resolved")]


def test_a_lasting_alert_is_repeated_seldom() -> None:
    found = walk([DRIFT] * 32)

    assert [(n, e.status) for n, e in found] == [(1, "opened"), (11, "updated"), (21, "updated"), (31, "updated")]


def test_a_change_of_severity_is_told_at_once() -> None:
    found = walk([DRIFT, DRIFT, verdict("drift", critical=True), verdict("drift", critical=True)])

    assert [(n, e.status, e.severity) for n, e in found] == [(1, "opened", "warning"), (2, "updated", "critical")]


@given(st.lists(st.sampled_from([DRIFT, QUIET, NOTHING, verdict("drift", critical=True)]), max_size=60))
def test_a_life_is_opened_updates_resolved_in_that_order(kinds: list[FeatureDrift]) -> None:
    is_open = False
    for _, event in walk(kinds):
        assert (event.status == "opened") != is_open
        is_open = event.status != "resolved"
        assert event.updated_at >= event.opened_at


@given(st.lists(st.sampled_from([DRIFT, QUIET, NOTHING]), max_size=40))
def test_two_quiet_windows_always_end_an_alert(kinds: list[FeatureDrift]) -> None:
    found = walk([*kinds, QUIET, QUIET])

    assert not found or found[-1][1].status == "resolved"


def test_a_window_judged_again_yields_the_same_events() -> None:
    open_alerts, streaks, _ = step({}, {}, [DRIFT], evidence(0), POLICY)
    once = step(open_alerts, streaks, [DRIFT], evidence(1), POLICY)

    assert step(open_alerts, streaks, [DRIFT], evidence(1), POLICY) == once
    # The event had reached the topic before the crash: the alert is open, and does not open again.
    assert step(once[0], streaks, [DRIFT], evidence(1), POLICY)[2] == []


def test_a_report_is_added_only_to_the_alert_it_was_made_for() -> None:
    [(_, opened)] = walk([DRIFT, DRIFT])
    held = {opened.alert_key: opened}

    updated = with_report(held, "drift/x", opened.opened_at, "report.html")
    assert updated is not None
    assert (updated.status, updated.report) == ("updated", "report.html")
    assert with_report(held, "drift/x", opened.opened_at + timedelta(1), "report.html") is None
    assert with_report({}, "drift/x", opened.opened_at, "report.html") is None
