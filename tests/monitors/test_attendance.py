"""Alerts by the clock, with a clock of the test; who answers, as a real Kafka tells it."""

import gc
import logging
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infra import broker as local_broker
from infra.broker import BrokerInfo
from infra.jars import ensure_jars
from infra.java import find_java
from monitors.alerts import Alert
from monitors.attendance import Attendance, Champion, Covered, Ends
from monitors.performance.presence import Labelling, Read
from monitors.performance.ticker import Ticker
from monitors.status import Metrics
from stream_trainer.errors import BrokerUnavailable, StreamTrainerError
from stream_trainer.kafka import Admin, ControlProducer, topic_plans
from stream_trainer.monitoring import Monitoring
from stream_trainer.settings import KafkaSettings, Settings
from stream_trainer.topic_reading import KafkaLog, open_log
from tests.core.scripted_topic import ScriptedTopic

from .worlds import START, alert

MINUTE = timedelta(minutes=1)
LIMITS = Monitoring(silence=5 * MINUTE, staleness=60 * MINUTE)


class World:
    def __init__(self, limits: Monitoring = LIMITS) -> None:
        self.now = START
        self.champion: Covered | None = None
        self.ends = {0: 10}
        self.published: list[Alert] = []
        self.metrics = Metrics()
        self.limits = limits

    def start(self, **open_alerts: Alert) -> Attendance:
        return Attendance(
            "p",
            self.limits,
            label="late",
            champion=lambda: self.champion,
            ends=lambda: dict(self.ends),
            publish=self.published.extend,
            metrics=self.metrics,
            open_alerts={alert.alert_key: alert for alert in open_alerts.values()},
            clock=lambda: self.now,
        )

    def ask(self, records: int = 1) -> None:
        self.ends[0] += records

    def read(self, prediction: datetime | None = START, labelling: Labelling | None = None) -> Read:
        """All that has come."""
        return Read(prediction=prediction, offsets=dict(self.ends), labelling=labelling or Labelling())

    def look_at(self, attendance: Attendance, minutes: float) -> None:
        self.now = START + minutes * MINUTE
        attendance.look()

    def statuses(self) -> list[tuple[str, str]]:
        return [(alert.alert_key, alert.status) for alert in self.published]


def test_silence_is_an_alert_until_somebody_asks_again() -> None:
    world = World()
    attendance = world.start()
    for minutes in range(1, 8):
        world.look_at(attendance, minutes)
    assert world.statuses() == [("silence", "opened")]
    assert world.metrics.value("open_alerts", kind="silence") == 1
    world.ask()
    attendance.saw(world.read())
    attendance.saw(world.read(None))
    attendance.look()
    assert world.statuses() == [("silence", "opened"), ("silence", "resolved")]


def test_an_alert_without_a_limit_any_more_ends_at_the_next_start() -> None:
    world = World(Monitoring(silence=None, unlabelled=None, staleness=None))
    attendance = world.start(open=alert(alert_key="silence", kind="silence", feature="", status="opened"))
    assert attendance.needed
    attendance.look()
    attendance.look()
    assert world.statuses() == [("silence", "resolved")]
    assert world.published[0].message == "silence: it has no limit any more"
    assert world.metrics.value("open_alerts", kind="silence") == 0
    assert not World(world.limits).start().needed


def test_a_reader_that_is_behind_or_stuck_is_no_silence_while_somebody_asks() -> None:
    world = World()
    attendance = world.start()
    for minutes in range(30):
        world.ask()
        world.look_at(attendance, minutes)
    assert world.published == []


def test_a_reader_that_is_stuck_hides_no_silence_and_what_it_reads_late_ends_none() -> None:
    world = World()
    attendance = world.start()
    world.look_at(attendance, 0)
    world.ask(3)
    for minutes in (1, 6, 7):
        world.look_at(attendance, minutes)
    assert world.statuses() == [("silence", "opened")]
    assert "3 records wait to be read" in world.published[0].message
    attendance.saw(world.read())
    world.look_at(attendance, 8)
    assert world.statuses() == [("silence", "opened")]


def test_a_broker_whose_clock_is_behind_or_a_backlog_is_no_silence() -> None:
    world = World()
    attendance = world.start()
    for minutes in range(30):
        world.ask()
        attendance.saw(world.read(START - timedelta(hours=20)))
        world.look_at(attendance, minutes)
    assert world.published == []


def test_records_that_cannot_be_read_end_no_silence() -> None:
    world = World()
    attendance = world.start()
    for minutes in range(7):
        world.ask()
        attendance.saw(world.read(None))
        world.look_at(attendance, minutes)
    assert world.statuses() == [("silence", "opened")]


def test_on_a_busy_stream_that_is_read_a_little_later_silence_ends() -> None:
    world = World()
    attendance = world.start()
    for minutes in (0, 6):
        world.look_at(attendance, minutes)
    assert world.statuses() == [("silence", "opened")]
    for tenths in range(60, 80):
        world.ask(100)
        read = world.read(START + tenths / 10 * MINUTE)
        world.ask(100)  # something has always just come
        attendance.saw(read)
        world.look_at(attendance, tenths / 10 + 0.1)
    assert world.statuses() == [("silence", "opened"), ("silence", "resolved")]


def test_a_busy_stream_of_records_that_cannot_be_read_is_silence() -> None:
    world = World()
    attendance = world.start()
    for tenths in range(80):
        world.ask(100)
        read = world.read(None)
        world.ask(100)
        attendance.saw(read)
        world.look_at(attendance, tenths / 10)
    assert world.statuses() == [("silence", "opened")]


def test_labels_that_stop_coming_are_an_alert_until_one_comes() -> None:
    world = World(Monitoring(silence=None, staleness=None, unlabelled=timedelta(hours=1)))
    attendance = world.start()
    labelling = Labelling()
    for minutes, label in [(0, None), (90, None), (91, 91), (92, None), (150, None), (153, None), (154, 154)]:
        at = START + minutes * MINUTE
        labelling = labelling.after(at, None if label is None else START + label * MINUTE)
        attendance.saw(world.read(at, labelling))
        attendance.look()
    assert world.statuses() == [("silence/late", "opened"), ("silence/late", "resolved")]
    assert "the newest label is of" in world.published[0].message


def test_a_restart_keeps_what_is_said_of_labels() -> None:
    world = World()
    attendance = world.start()
    attendance.saw(world.read(START, Labelling(label=START, since=START, until=START + timedelta(days=5))))
    attendance.look()
    again = world.start(late=world.published[-1])
    again.look()
    again.saw(world.read(START, Labelling(label=START)))
    world.look_at(again, 1)
    assert world.statuses() == [("silence/late", "opened"), ("silence/late", "resolved")]


def test_a_version_that_is_too_old_is_an_alert_until_a_newer_one_answers() -> None:
    world = World()
    attendance = world.start()
    world.champion = Covered(START, 7)
    for minutes in (50, 70, 80):
        world.now = START + minutes * MINUTE
        world.ask()
        attendance.saw(world.read())
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
    world.ask()
    again.saw(world.read())
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
    assert not World(Monitoring(silence=None, unlabelled=None, staleness=None)).start().needed


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
    topic = ScriptedTopic()
    champion = Champion("p.models", topic.open)
    assert champion() is None
    topic.write("champion", {"version": 1, "covered_at": "2020-01-01T00:00:00Z"})
    topic.write("champion", value)
    topic.write("head", {"version": 9, "covered_at": "2026-01-01T00:00:00Z"})
    topic.write("champion", b"{broken")
    assert champion() == expected
    champion.close()
    assert (topic.opened, topic.closed) == (1, 1)


def test_the_end_of_a_topic_is_asked_on_one_connection_and_anew_after_a_failure() -> None:
    topic = ScriptedTopic()
    ends = Ends(topic.open)
    topic.write("a", {})
    assert (ends(), ends()) == ({0: 1}, {0: 1})
    topic.broken = True
    with pytest.raises(BrokerUnavailable):
        ends()
    topic.broken = False
    assert ends() == {0: 1}
    ends.close()
    assert (topic.opened, topic.closed) == (2, 2)


class Models:
    """A topic of announcements on a real broker, and somebody who looks at it all the time."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.kafka = KafkaSettings(bootstrap_servers=bootstrap_servers, request_timeout_seconds=5)
        self.plan = topic_plans(f"attended-{uuid.uuid4().hex[:8]}", self.kafka)["models"]
        with Admin(self.kafka) as admin:
            admin.create_missing([self.plan])
        self.opened = 0
        self.champion = Champion(self.plan.name, self.opening)
        self.seen = threading.Condition()
        self.looks: list[int | str] = []

    @contextmanager
    def opening(self) -> Iterator[KafkaLog]:
        with open_log(self.kafka, self.plan.name) as log:
            self.opened += 1
            yield log

    def announce(self, version: int) -> None:
        producer = ControlProducer(self.kafka)
        producer.send(self.plan.name, [("champion", {"version": version, "covered_at": START.timestamp()})])
        producer.close()

    def look(self) -> None:
        try:
            found = self.champion()
        except StreamTrainerError as error:
            self._saw(type(error).__name__)
            raise
        self._saw(0 if found is None else found.version)

    def until(self, what: int | str) -> None:
        with self.seen:
            since = len(self.looks)
            assert self.seen.wait_for(lambda: what in self.looks[since:], 90), self.looks[-5:]

    def _saw(self, what: int | str) -> None:
        with self.seen:
            self.looks.append(what)
            self.seen.notify_all()


def test_a_newer_version_is_seen_without_connecting_again(broker: BrokerInfo) -> None:
    models = Models(broker.bootstrap_servers)
    for version in (3, 4):
        models.announce(version)
        assert models.champion() == Covered(START, version)
    assert models.opened == 1
    models.champion.close()


def test_the_end_of_a_topic_moves_with_what_is_written(broker: BrokerInfo) -> None:
    models = Models(broker.bootstrap_servers)
    ends = Ends(models.opening)
    found = []
    for version in (3, 4):
        found.append(sum(ends().values()))
        models.announce(version)
    assert [*found, sum(ends().values())] == [0, 1, 2]
    assert models.opened == 1
    ends.close()


@pytest.mark.spark
@pytest.mark.filterwarnings(
    "ignore:unclosed:ResourceWarning"
)  # kafka-python 3.0.12 leaves refused sockets to the collector
def test_a_broker_that_goes_away_and_returns_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    java, jars = find_java(Settings().cache_dir), ensure_jars(Settings(), "kafka")
    models = Models(local_broker.start(tmp_path, java, jars, detach=False).bootstrap_servers)
    try:
        models.announce(3)
        with Ticker(models.look, seconds=0.05):
            models.until(3)
            local_broker.stop(tmp_path)
            models.until("BrokerUnavailable")
            local_broker.start(tmp_path, java, jars, detach=False)
            models.announce(4)
            models.until(4)
    finally:
        models.champion.close()
        local_broker.stop(tmp_path)
        gc.collect()  # here, where the warning is expected
    assert models.opened == 2
