"""A trial through a real broker: labelled examples in, decisions and their announcements out."""

import threading
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Producer

from serving.examples_log import KafkaExamples
from serving.metrics import Metrics
from serving.trial import make_trial
from stream_trainer.announcing import announce
from stream_trainer.errors import InputLost
from stream_trainer.kafka import Admin, librdkafka_options, topic_plans
from stream_trainer.pipeline import Pipeline
from stream_trainer.settings import KafkaSettings, Settings, TrialSettings
from stream_trainer.store import ModelStore, open_store
from stream_trainer.store.aliases import Alias
from stream_trainer.store.challenges import Challenge
from stream_trainer.topic_reading import read_all
from tests.serving.examples import example, good_state
from tests.serving.fixtures import CONTRACT, NOW, PIPELINE, commit_version, learned_state


def later() -> datetime:
    """A clock for which everything in the log has settled."""
    return datetime.now(UTC) + timedelta(minutes=1)


class World:
    """A pipeline of its own on the broker, with version 1 as champion and a better version 2."""

    def __init__(self, bootstrap_servers: str, folder: Path) -> None:
        kafka = KafkaSettings(bootstrap_servers=bootstrap_servers)
        self.settings = Settings(kafka=kafka, data_dir=folder, trial=TrialSettings(block_rows=4))
        self.pipeline: Pipeline = replace(PIPELINE, name=f"trial-{uuid.uuid4().hex[:8]}")
        with Admin(self.settings.kafka) as admin:
            plans = topic_plans(self.pipeline.name, self.settings.kafka)
            admin.create_missing([plans["examples"], plans["models"]])
            self.topic_id = admin.topic_id(self.topic)
        self.sent = 0

    @property
    def topic(self) -> str:
        return self.pipeline.topics.examples

    @property
    def store(self) -> ModelStore:
        return open_store(self.settings, self.pipeline.name)

    def log(self) -> KafkaExamples:
        return KafkaExamples(CONTRACT, self.settings.kafka, self.topic, later)

    def send(self, count: int, *, commit: bool = True) -> None:
        """In a transaction, as a joiner would."""
        options = {"transactional.id": uuid.uuid4().hex, "partitioner": "murmur2_random", "log_level": 0}
        producer = Producer({**librdkafka_options(self.settings.kafka), **options})
        producer.init_transactions(30)
        producer.begin_transaction()
        for _ in range(count):
            record = example(self.sent)
            producer.produce(self.topic, msgspec.json.encode(record), key=record["flight_id"])
            self.sent += 1
        assert producer.flush(30) == 0
        (producer.commit_transaction if commit else producer.abort_transaction)(30)


@pytest.fixture
def world(broker: Any, tmp_path: Path) -> World:
    return World(broker.bootstrap_servers, tmp_path)


def test_a_trial_compares_what_is_committed_after_both_versions_and_announces_its_verdict(world: World) -> None:
    world.send(60)
    log = world.log()
    learned = {p: end for p, (_, end) in log.bounds().partitions.items()}
    log.close()
    store = world.store
    for state in (learned_state(world.pipeline), good_state()):
        known: dict[str, Any] = {"next_offsets": {world.topic: learned}, "topic_ids": {world.topic: world.topic_id}}
        commit_version(store, world.pipeline, state, **known)
    store.set_alias("champion", Alias(version=1, reason="", by="me", at=NOW, promotion="manual"), 0)
    store.challenges.append(Challenge(version=2, reason="", by="me", at=NOW), 0)
    world.send(50, commit=False)
    trial = make_trial(world.pipeline, world.settings, Metrics(), later)
    trial.step()
    assert trial.status.rows == 0  # aborted, or learned by both
    world.send(200)
    trial.start()
    waited = threading.Event()
    for _ in range(3_000):
        if trial.status.verdict is not None and trial.challenger is None:
            break
        waited.wait(0.02)
    trial.stop(30)
    assert (trial.status.verdict, trial.status.problem, trial.status.challenger) == ("better", "", 2)
    assert store.alias_entry("champion").number == 2
    told = [
        (m.key, m.value and m.value["version"]) for m in read_all(world.settings.kafka, world.pipeline.topics.models)
    ]
    assert told == [("champion", 2), ("challenger", None)]


def test_the_bounds_and_the_rows_are_those_of_the_topic(world: World) -> None:
    world.send(30)
    log = world.log()
    bounds = log.bounds()
    assert (bounds.topic_id, sorted(bounds.partitions)) == (world.topic_id, [0, 1, 2])
    rows = log.read({world.topic: bounds.partitions}, bounds.topic_id)
    assert sorted(rows.column("flight_id").to_pylist()) == sorted(f"f{i}" for i in range(30))
    with pytest.raises(InputLost, match="re-created"):
        log.read({world.topic: bounds.partitions}, "11111111-2222-3333-4444-555555555555")
    log.close()


def test_a_word_that_cannot_be_sent_says_why(world: World) -> None:
    version = commit_version(world.store, world.pipeline, learned_state(world.pipeline))
    assert announce(world.settings.kafka, world.pipeline.name, "challenger", version, 3, NOW) is None
    (message,) = read_all(world.settings.kafka, world.pipeline.topics.models)
    assert (message.key, message.value["version"], message.value["alias"]) == ("challenger", 1, 3)
    assert "missing topics" in str(announce(world.settings.kafka, "nobody", "challenger", version, 3, NOW))
