"""Announcements in and predictions out, through a real broker."""

import json
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from serving.announcements import Announcement, KafkaAnnouncements
from serving.follower import Follower
from serving.metrics import Metrics
from serving.prediction_ids import PredictionIds
from serving.prediction_log import PredictionLog, kafka_producer
from serving.prediction_records import Answered
from stream_trainer.commands import champion
from stream_trainer.kafka import Admin, ControlProducer, topic_plans
from stream_trainer.settings import KafkaSettings, Settings
from stream_trainer.store import ModelStore
from stream_trainer.store.aliases import Alias
from stream_trainer.store.storage import LocalStorage
from stream_trainer.topic_reading import read_all
from tests.serving.fixtures import CONTRACT, NOW, PIPELINE, ROWS, commit_version, learned_state, requested

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


def test_announcements_in_and_predictions_out(broker: Any) -> None:
    settings = Settings(kafka=KafkaSettings(bootstrap_servers=broker.bootstrap_servers))
    pipeline = replace(PIPELINE, name=f"serving-{uuid.uuid4().hex[:8]}")
    plans = topic_plans(pipeline.name, settings.kafka)

    def create() -> None:
        with Admin(settings.kafka) as admin:
            admin.create_missing([plans["models"], plans["predictions"]])

    source = KafkaAnnouncements(settings.kafka, pipeline.topics.models, create)
    assert source.poll(0.1) == []
    announced = Announcement(version=7, manifest_sha256="a" * 64, at=NOW, trained_through=None, covered_at=NOW)
    producer = ControlProducer(settings.kafka)
    producer.send(pipeline.topics.models, [("head", announced), ("champion", announced), ("champion", "not one")])
    producer.close()
    deadline = time.monotonic() + 20
    found: list[Announcement] = []
    while not found and time.monotonic() < deadline:
        found = source.poll(1.0)
    assert found == [announced]
    source.close()
    source.poll(0)

    log = PredictionLog(CONTRACT, pipeline.topics.predictions, kafka_producer(settings), Metrics(), max_rows=100)
    log.start()
    ids = PredictionIds(lambda: NOW).take(len(ROWS))
    log.record(
        Answered(ids=ids, requested_at=NOW, rows=requested(pipeline, ROWS), outputs=[0.5] * len(ROWS), model_version=7)
    )
    log.close(20)
    messages = read_all(settings.kafka, pipeline.topics.predictions)
    assert sorted(m.key for m in messages) == ids
    for name, records in (
        ("prediction", [m.value for m in messages]),
        ("announcement", [m.value for m in read_all(settings.kafka, pipeline.topics.models) if m.value != "not one"]),
    ):
        schema = json.loads((SCHEMAS / f"{name}.json").read_text())
        for record in records:
            jsonschema.Draft202012Validator(schema).validate(record)


def test_a_rollback_by_command_reaches_a_follower_through_kafka(
    broker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAM_TRAINER_KAFKA__BOOTSTRAP_SERVERS", broker.bootstrap_servers)
    settings = Settings()
    store = ModelStore(LocalStorage(tmp_path), f"rollback-{uuid.uuid4().hex[:8]}")
    pipeline = replace(PIPELINE, name=store.pipeline)
    old, new = (commit_version(store, pipeline, learned_state(pipeline)) for _ in range(2))
    assert "missing topics" in str(champion.tell(store.pipeline, "champion", old, 1))
    with Admin(settings.kafka) as admin:
        admin.create_missing([topic_plans(store.pipeline, settings.kafka)["models"]])
    source = KafkaAnnouncements(settings.kafka, pipeline.topics.models, lambda: None)
    follower = Follower(pipeline, store, source, Metrics(), lambda: NOW, poll_seconds=30)
    follower.look()
    assert follower.served is not None
    assert follower.served.number == new.number
    store.set_alias("champion", Alias(version=old.number, reason="", by="me", at=NOW, hold=True), 0)
    assert champion.tell(store.pipeline, "champion", old, 1) is None
    deadline = time.monotonic() + 20
    while follower.served.number == new.number and time.monotonic() < deadline:
        follower.step()
    assert follower.served.number == old.number
    source.close()
    source.poll(0)
