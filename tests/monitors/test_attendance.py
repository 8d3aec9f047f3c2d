"""Alerts by the clock, with a clock of the test."""

from datetime import timedelta
from typing import Any

import pytest

from monitors.alerts import Alert
from monitors.attendance import Attendance, Covered, covered
from monitors.status import Metrics
from stream_trainer.monitoring import Monitoring
from stream_trainer.topic_reading import Message

from .worlds import START

MINUTE = timedelta(minutes=1)
LIMITS = Monitoring(silence=5 * MINUTE, staleness=60 * MINUTE)


class World:
    def __init__(self, limits: Monitoring = LIMITS) -> None:
        self.now = START
        self.champion: Covered | None = None
        self.published: list[Alert] = []
        self.metrics = Metrics()
        self.limits = limits

    def start(self, **open_alerts: Alert) -> Attendance:
        return Attendance(
            "p",
            self.limits,
            champion=lambda: self.champion,
            publish=self.published.extend,
            metrics=self.metrics,
            open_alerts={alert.alert_key: alert for alert in open_alerts.values()},
            clock=lambda: self.now,
        )

    def statuses(self) -> list[tuple[str, str]]:
        return [(alert.alert_key, alert.status) for alert in self.published]


def test_silence_is_an_alert_until_somebody_asks_again() -> None:
    world = World()
    attendance = world.start()
    for minutes in range(1, 8):
        world.now = START + minutes * MINUTE
        attendance.look()
    assert world.statuses() == [("silence", "opened")]
    assert world.metrics.value("open_alerts", kind="silence") == 1
    attendance.saw(world.now)
    attendance.saw(None)
    attendance.saw(world.now - MINUTE)
    attendance.look()
    assert world.statuses() == [("silence", "opened"), ("silence", "resolved")]


def test_a_version_that_is_too_old_is_an_alert_until_a_newer_one_answers() -> None:
    world = World()
    attendance = world.start()
    world.champion = Covered(START, 7)
    for minutes in (50, 70, 80):
        world.now = START + minutes * MINUTE
        attendance.saw(world.now)
        attendance.look()
    assert world.statuses() == [("freshness", "opened")]
    assert world.published[0].model_version == 7
    world.champion = Covered(world.now, 8)
    attendance.look()
    assert world.statuses()[-1] == ("freshness", "resolved")


def test_a_restart_neither_repeats_nor_forgets_what_is_open() -> None:
    world = World()
    attendance = world.start()
    world.now = START + 6 * MINUTE
    attendance.look()
    [opened] = world.published
    again = world.start(silence=opened)
    again.look()
    assert world.statuses() == [("silence", "opened")]
    again.saw(world.now)
    again.look()
    assert world.published[-1].opened_at == opened.opened_at


def test_what_could_not_be_published_is_said_by_the_next_look() -> None:
    world = World()
    attendance = world.start()
    world.now = START + 6 * MINUTE

    def down(_: Any) -> None:
        raise OSError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attendance, "_publish", down)
        with pytest.raises(OSError, match=r"^$"):
            attendance.look()
    attendance.look()
    assert world.statuses() == [("silence", "opened")]


def test_without_limits_nobody_has_to_look() -> None:
    assert not World(Monitoring(silence=None, staleness=None)).start().needed


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"version": 3, "covered_at": "2026-01-01T00:00:00Z", "at": 1.0}, Covered(START, 3)),
        ({"version": 3, "covered_at": START.timestamp()}, Covered(START, 3)),
        ({"version": "3"}, None),
        (None, None),
    ],
)
def test_the_newest_word_of_the_champion_counts(value: object, expected: Covered | None) -> None:
    def message(key: str, what: object) -> Message:
        return Message(key, what, 0, 0.0)

    old = message("champion", {"version": 1, "covered_at": "2020-01-01T00:00:00Z"})
    assert covered([old, message("champion", value), message("head", {"version": 9})]) == expected
    assert covered([]) is None
