"""Silence and age by a clock of the test's own; and something that looks at it without any data."""

import itertools
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitors.performance.presence import Labelling, Presence, Seen, look
from monitors.performance.ticker import Ticker
from stream_trainer.monitoring import Monitoring

START = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = Monitoring(silence=timedelta(seconds=100), unlabelled=None, staleness=timedelta(seconds=1_000))
LATE = "late"


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def asked(when: datetime, **fields: Any) -> Seen:
    return Seen(came=when, read=when, **fields)


def states(presence: Presence, seen: Seen, seconds: float) -> tuple[Presence, dict[str, str]]:
    after, findings = look(presence, seen, at(seconds), LIMITS, label=LATE)
    return after, {finding.kind: finding.state for finding in findings}


def test_a_monitor_that_has_just_started_is_not_alarmed() -> None:
    old = Seen(covered=at(-9_000), version=3)
    presence, found = states(Presence(began=START), old, 1)
    assert found == {"silence": "quiet", "freshness": "quiet"}
    presence, found = states(presence, old, 100)
    assert found["silence"] == "quiet"
    presence, found = states(presence, old, 101)
    assert found == {"silence": "drift", "freshness": "quiet"}
    _, found = states(presence, old, 1_001)
    assert found == {"silence": "drift", "freshness": "drift"}


def test_what_lasts_for_three_limits_is_critical() -> None:
    presence, seen, found = Presence(began=START), Seen(covered=at(0), version=3), []
    for seconds in (101, 299, 300, 1_001, 2_999, 3_000):
        presence, findings = look(presence, seen, at(seconds), LIMITS, label="late")
        found.append({finding.kind: finding.severity for finding in findings if finding.state == "drift"})
    assert [one["silence"] for one in found] == ["warning", "warning", *["critical"] * 4]
    assert [one.get("freshness") for one in found] == [None, None, None, "warning", "warning", "critical"]


def test_silence_is_over_when_somebody_asks_and_does_not_flap() -> None:
    presence = Presence(began=START, silent=True)
    for seconds in (200, 201, 300):
        presence, found = states(presence, asked(at(seconds - 60)), seconds)
        assert found["silence"] == "drift"
    presence, found = states(presence, asked(at(255)), 300)
    assert found["silence"] == "quiet"
    presence, found = states(presence, asked(at(255)), 355)
    assert found["silence"] == "quiet"
    _, found = states(presence, asked(at(255)), 356)
    assert found["silence"] == "drift"


@given(st.lists(st.floats(51, 149), max_size=40))
def test_an_age_around_the_limit_changes_at_most_once(ages: list[float]) -> None:
    presence, changes = Presence(began=at(-10_000)), 0
    for age in ages:
        before = presence.silent
        presence, _ = look(presence, asked(at(-age)), START, LIMITS, label=LATE)
        changes += presence.silent != before
    assert changes <= 1


def test_an_open_alert_survives_a_restart() -> None:
    presence = Presence(began=START, silent=True, stale=True)
    presence, found = states(presence, Seen(), 1)
    assert found == {"silence": "drift", "freshness": "drift"}
    presence, found = states(presence, asked(at(-500), covered=at(-800), version=1), 2)
    assert found == {"silence": "drift", "freshness": "drift"}
    _, found = states(presence, asked(at(2), covered=at(2), version=2), 3)
    assert found == {"silence": "quiet", "freshness": "quiet"}


def test_without_a_version_there_is_no_verdict_on_its_age() -> None:
    _, found = states(Presence(began=START), asked(at(9_999)), 10_000)
    assert found == {"silence": "quiet", "freshness": "not enough data"}


def test_what_has_no_limit_is_not_looked_at() -> None:
    limits = Monitoring(silence=None, unlabelled=None, staleness=None)
    assert look(Presence(began=START), Seen(), at(10**6), limits, label=LATE) == (Presence(began=START), [])


LOG = st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=40)


@given(LOG, st.data())
def test_for_how_long_labels_are_missing_is_what_the_log_says(log: list[tuple[bool, int]], data: st.DataObject) -> None:
    times = list(itertools.accumulate((step for _, step in log), initial=0))[1:]
    labels = [t for t, (label, _) in zip(times, log, strict=True) if label]
    later = [t for t, (label, _) in zip(times, log, strict=True) if not label and t > max(labels, default=-1)]
    found = Labelling()
    for t, (label, _) in zip(times, log, strict=True):
        found = found.after(None if label else at(t), at(t) if label else None)
    assert found.unlabelled == timedelta(seconds=later[-1] - later[0] if later else 0)
    ahead = Labelling().after(None, at(labels[-1]) if labels else None)  # labels were read first
    for t, (label, _) in zip(times, log, strict=True):
        ahead = ahead if label else ahead.after(at(t), None)
    assert ahead.unlabelled == found.unlabelled


@pytest.mark.parametrize(
    ("labelling", "was", "state"),
    [
        (None, False, "not enough data"),
        (None, True, "drift"),
        (Labelling(since=START, until=at(500)), False, "not enough data"),
        (Labelling(label=START, since=at(1), until=at(101)), False, "quiet"),
        (Labelling(label=START, since=at(1), until=at(102)), False, "drift"),
        (Labelling(label=START, since=at(1), until=at(52)), True, "drift"),
        (Labelling(label=START, since=at(1), until=at(51)), True, "quiet"),
    ],
)
def test_labels_are_missing_once_predictions_went_on_for_longer_than_the_limit(
    labelling: Labelling | None, was: bool, state: str
) -> None:
    limits = Monitoring(silence=None, staleness=None, unlabelled=timedelta(seconds=100))
    presence = Presence(began=START, unlabelled=was)
    after, [finding] = look(presence, Seen(labelling=labelling), at(10**6), limits, label=LATE)
    assert (finding.kind, finding.feature, finding.state) == ("silence", LATE, state)
    assert after.unlabelled == (state == "drift")


def test_what_waits_to_be_read_is_no_silence_until_it_has_waited_too_long() -> None:
    waiting = Seen(came=at(200), read=at(10), waiting=3)
    for was, seconds, expected in [(False, 290, "not enough data"), (True, 290, "drift"), (False, 301, "drift")]:
        _, found = states(Presence(began=START, silent=was), waiting, seconds)
        assert found["silence"] == expected


def test_a_clock_that_goes_back_makes_no_alarm() -> None:
    presence, found = states(Presence(began=START), asked(at(50), covered=at(50), version=1), -3_600)
    assert found == {"silence": "quiet", "freshness": "quiet"}
    assert not presence.silent


def test_the_ticker_calls_without_any_data_and_after_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []
    enough = threading.Event()

    def call() -> None:
        calls.append(threading.get_ident())
        if len(calls) == 1:
            raise RuntimeError("the broker is away")
        if len(calls) == 3:
            enough.set()

    with Ticker(call, seconds=0.001) as ticker:
        assert enough.wait(30)
    ticker.close()
    made = len(calls)
    assert set(calls) != {threading.get_ident()}
    assert len(set(calls)) == 1
    assert "the broker is away" in caplog.text
    assert len(calls) == made
    assert not [t for t in threading.enumerate() if t.name == "presence"]


def test_closing_does_not_wait_for_the_pause() -> None:
    called = threading.Event()
    with Ticker(called.set, seconds=3_600):
        assert called.wait(30)
