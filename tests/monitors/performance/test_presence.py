"""Silence and age by a clock of the test's own; and something that looks at it without any data."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitors.performance.presence import Presence, Seen, look
from monitors.performance.ticker import Ticker
from stream_trainer.monitoring import Monitoring

START = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = Monitoring(silence=timedelta(seconds=100), staleness=timedelta(seconds=1_000))


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def states(presence: Presence, seen: Seen, seconds: float) -> tuple[Presence, dict[str, str]]:
    after, findings = look(presence, seen, at(seconds), LIMITS)
    return after, {finding.kind: finding.state for finding in findings}


def test_a_monitor_that_has_just_started_is_not_alarmed() -> None:
    old = Seen(prediction=at(-9_000), covered=at(-9_000), version=3)
    presence, found = states(Presence(began=START), old, 1)
    assert found == {"silence": "quiet", "freshness": "quiet"}
    presence, found = states(presence, old, 100)
    assert found["silence"] == "quiet"
    presence, found = states(presence, old, 101)
    assert found == {"silence": "drift", "freshness": "quiet"}
    _, found = states(presence, old, 1_001)
    assert found == {"silence": "drift", "freshness": "drift"}


def test_what_lasts_for_three_limits_is_critical_and_what_was_before_the_start_does_not_count() -> None:
    old, presence = Seen(prediction=at(-9_000), covered=at(-9_000), version=3), Presence(began=START)
    found = []
    for seconds in (101, 299, 300, 1_001, 3_000):
        presence, findings = look(presence, old, at(seconds), LIMITS)
        found.append([finding.severity for finding in findings])
    assert [silence for silence, _ in found] == ["warning", "warning", "critical", "critical", "critical"]
    assert [freshness for _, freshness in found] == ["warning", "warning", "warning", "warning", "critical"]


def test_silence_is_over_when_somebody_asks_and_does_not_flap() -> None:
    presence = Presence(began=START, silent=True)
    for seconds in (200, 201, 300):
        presence, found = states(presence, Seen(prediction=at(seconds - 60)), seconds)
        assert found["silence"] == "drift"
    presence, found = states(presence, Seen(prediction=at(255)), 300)
    assert found["silence"] == "quiet"
    presence, found = states(presence, Seen(prediction=at(255)), 355)
    assert found["silence"] == "quiet"
    _, found = states(presence, Seen(prediction=at(255)), 356)
    assert found["silence"] == "drift"


@given(st.lists(st.floats(51, 149), max_size=40))
def test_an_age_around_the_limit_changes_at_most_once(ages: list[float]) -> None:
    presence, changes = Presence(began=at(-10_000)), 0
    for age in ages:
        before = presence.silent
        presence, _ = look(presence, Seen(prediction=at(-age)), START, LIMITS)
        changes += presence.silent != before
    assert changes <= 1


def test_an_open_alert_survives_a_restart() -> None:
    presence = Presence(began=START, silent=True, stale=True)
    presence, found = states(presence, Seen(), 1)
    assert found == {"silence": "drift", "freshness": "drift"}
    presence, found = states(presence, Seen(prediction=at(-500), covered=at(-800), version=1), 2)
    assert found == {"silence": "drift", "freshness": "drift"}
    _, found = states(presence, Seen(prediction=at(2), covered=at(2), version=2), 3)
    assert found == {"silence": "quiet", "freshness": "quiet"}


def test_without_a_version_there_is_no_verdict_on_its_age() -> None:
    _, found = states(Presence(began=START), Seen(prediction=at(9_999)), 10_000)
    assert found == {"silence": "quiet", "freshness": "not enough data"}


def test_what_has_no_limit_is_not_looked_at() -> None:
    limits = Monitoring(silence=None, staleness=None)
    assert look(Presence(began=START), Seen(), at(10**6), limits) == (Presence(began=START), [])


def test_a_clock_that_goes_back_makes_no_alarm() -> None:
    presence, found = states(Presence(began=START), Seen(prediction=at(50), covered=at(50), version=1), -3_600)
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
