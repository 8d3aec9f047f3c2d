"""The monitor on real Kafka and real Spark: predictions in, alerts out, and nothing lost by a restart."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from kafka import KafkaProducer
from pydantic import SecretStr
from pyspark.sql import SparkSession

from infra.broker import BrokerInfo
from monitors.history import History, WindowRecord
from monitors.query import MonitorQuery, checkpoint_url, start_monitor
from stream_trainer.alerts import damage_alert
from stream_trainer.kafka import ControlProducer, client_options
from stream_trainer.pipeline import Pipeline
from stream_trainer.settings import KafkaSettings, MonitorSettings, Settings
from stream_trainer.store.storage import open_storage
from stream_trainer.topic_reading import Message, read_all
from tests.security.test_webhook import plain, receiver

from .test_alerts import SCHEMA
from .worlds import WINDOW_ROWS, example, features, pipeline, records, settings, store_with_reference, taught

SECONDS = 90.0
KEY = "drift/learned/distance"


@dataclass
class Live:
    """A pipeline with a model store, and what its serving would write."""

    spark: SparkSession
    pipeline: Pipeline
    settings: Settings
    producer: KafkaProducer
    rng: np.random.Generator
    running: MonitorQuery | None = None
    sent: int = 0

    def start(self, stop: threading.Event | None = None) -> MonitorQuery:
        self.running = start_monitor(self.spark, self.pipeline, self.settings, stop=stop)
        return self.running

    def predict(self, rows: int, *, shift: float = 0.0) -> None:
        values = records(features(self.rng, rows, shift=shift), self.sent)
        self.sent += rows
        futures = [self.producer.send(self.pipeline.topics.predictions, value) for value in values]
        for future in futures:
            future.get(10)

    def window(self, shift: float = 0.0) -> None:
        """One window's worth, and wait until it was counted; it is judged with the first rows of the next one."""
        assert self.running is not None
        read = self.running.metrics.value("rows_total")
        self.predict(WINDOW_ROWS, shift=shift)
        self.until(lambda: self.read() >= read + WINDOW_ROWS)

    def read(self) -> float:
        assert self.running is not None
        return self.running.metrics.value("rows_total")

    def closed(self) -> float:
        assert self.running is not None
        return self.running.metrics.value("windows_total", closing="predictions")

    def until(self, true: Callable[[], bool]) -> None:
        assert self.running is not None
        deadline = time.monotonic() + SECONDS
        tick = threading.Event()
        while not true():
            assert self.running.query.exception() is None
            assert time.monotonic() < deadline, "not in time"
            tick.wait(0.1)

    def alerts(self) -> list[Message]:
        """Those of the feature that is moved."""
        found = read_all(self.settings.kafka, self.pipeline.topics.alerts)
        return [message for message in found if message.key == KEY]

    def history(self) -> list[WindowRecord]:
        return list(History(open_storage(checkpoint_url(self.pipeline, self.settings), self.settings.store)).newest(9))


@pytest.fixture
def live(spark: SparkSession, broker: BrokerInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    monkeypatch.setattr("monitors.query.TRIGGER", "200 milliseconds")
    name = f"monitored-{tmp_path.name.lower().replace('_', '-')[:40]}"
    of = settings(
        tmp_path,
        kafka=KafkaSettings(bootstrap_servers=broker.bootstrap_servers),
        monitor=MonitorSettings(report_rows=200),
    )
    rng = np.random.default_rng(11)
    watched = pipeline(name)
    store_with_reference(of, name, rng, taught(watched, rng))
    made = Live(spark, watched, of, KafkaProducer(**client_options(of.kafka), linger_ms=5), rng)
    yield made
    if made.running is not None:
        made.running.stop()
    made.producer.close()


def test_a_shift_opens_an_alert_and_its_end_resolves_it(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "monitors.batch")
    running = live.start()
    live.producer.send(live.pipeline.topics.predictions, b"not json").get(10)
    live.window()
    for _ in range(2):
        live.window(shift=1.5)
    live.until(lambda: bool(live.alerts()))
    [opened] = live.alerts()
    assert opened.value["status"] == "opened"
    assert opened.value["window"]["rows"] == WINDOW_ROWS
    assert running.metrics.value("explanations_total", outcome="explained") >= 1
    assert opened.value["weight"] > 0.8  # the model that answered looks at the distance, and at nothing else
    assert running.metrics.value("skipped_rows_total", reason="invalid_json") == 1

    def reported() -> bool:
        live.predict(1, shift=1.5)
        return running.metrics.value("reports_total", outcome="written") == 1

    live.until(reported)
    updated = live.alerts()[-1]
    assert updated.value["status"] == "updated"
    name = updated.value["report"].removeprefix("http://127.0.0.1:8002/reports/")
    assert "distance" in (live.settings.data_dir / "reports" / live.pipeline.name / name).read_text()
    assert updated.value["plot"].startswith("http://127.0.0.1:8002/#cell?start=")
    assert updated.value["ranking"][0] == ["distance", updated.value["weight"]]

    deadline = time.monotonic() + SECONDS
    while live.alerts()[-1].value["status"] != "resolved":
        assert time.monotonic() < deadline
        live.window()
    last = [m.value["status"] for m in live.alerts()]
    assert last == ["opened", "updated", "resolved"]
    validator = Draft202012Validator(SCHEMA)
    for message in live.alerts():
        validator.validate(message.value)
    said = [r.getMessage().split(" (")[0] for r in caplog.records if r.getMessage().startswith(f"alert {KEY} ")]
    assert said == [f"alert {KEY} {status}" for status in last]


def test_labels_are_watched_beside_the_predictions(live: Live) -> None:
    running = live.start()
    rows = features(live.rng, 2 * WINDOW_ROWS)
    for i, row in enumerate(rows):
        live.producer.send(live.pipeline.topics.examples, example(i, row, label=int(i % 10 == 0)))
    live.producer.flush()
    live.until(lambda: running.metrics.value("windows_total", closing="labels") == 1)

    found = read_all(live.settings.kafka, live.pipeline.topics.alerts)
    assert "label/learned/_label" in {message.key for message in found}


def test_a_restart_goes_on_where_it_stopped(live: Live) -> None:
    first = live.start()
    live.window(shift=1.5)
    live.predict(100, shift=1.5)
    live.until(lambda: first.metrics.value("rows_total") == live.sent)
    first.stop()
    first.stop()
    assert not first.query.isActive
    told = [m.value["window"]["rows"] for m in live.alerts()]

    live.start()
    live.predict(WINDOW_ROWS - 100, shift=1.5)
    live.until(lambda: live.read() == WINDOW_ROWS - 100)  # or rows of the next window may be read first
    live.predict(100, shift=1.5)
    live.until(lambda: live.closed() == 1 and live.read() == WINDOW_ROWS)

    assert told == [WINDOW_ROWS]
    assert [m.value["status"] for m in live.alerts()] == ["opened"]
    assert [w.rows for w in live.history()] == [WINDOW_ROWS] * 2


def test_setting_the_event_stops_it(live: Live) -> None:
    stop = threading.Event()
    running = live.start(stop)
    stop.set()

    assert running.query.awaitTermination(int(SECONDS))
    assert running.query.exception() is None


def test_the_monitor_knows_open_alerts_when_it_starts(live: Live) -> None:
    live.start()
    for _ in range(2):
        live.window(shift=1.5)
    live.until(lambda: bool(live.alerts()))
    assert live.running is not None
    live.running.stop()

    again = live.start()
    assert again.metrics.value("open_alerts", kind="drift") == 1
    assert [m.value["status"] for m in live.alerts()] == ["opened"]


def test_the_webhook_gets_what_anybody_writes_to_the_alerts_topic(live: Live) -> None:
    with receiver(plain(200)) as hook:
        monitor = live.settings.monitor.model_copy(
            update={"webhook_url": SecretStr(hook.url), "webhook_allow": tuple(hook.allow)}
        )
        live.settings = live.settings.model_copy(update={"monitor": monitor})
        running = live.start()
        damage = damage_alert(live.pipeline.name, 1, "truncated", datetime(2026, 1, 1, tzinfo=UTC), healed_by=None)
        producer = ControlProducer(live.settings.kafka)
        producer.send(live.pipeline.topics.alerts, [(damage.alert_key, damage)])
        producer.close()
        for _ in range(2):
            live.window(shift=1.5)
        live.until(lambda: KEY in [json.loads(body)["alert_key"] for _, _, body in hook.got])
    assert running.metrics.value("webhook_alerts_total", outcome="delivered") >= 2
    assert json.loads(hook.got[0][2])["alert_key"] == "store/version-1"
