"""The joiner on real Kafka and real Spark."""

import itertools
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from pyspark.sql import SparkSession

from infra.broker import BrokerInfo
from infra.joining import joining_session
from stream_trainer import Join, Pipeline
from stream_trainer.joining.joiner import Joiner, Joining
from stream_trainer.joining.query import JoinQuery, checkpoint_folder
from stream_trainer.joining.writer import JoinWriter
from stream_trainer.kafka import Admin, librdkafka_options, topic_plans
from stream_trainer.settings import JoinSettings, KafkaSettings, Settings
from stream_trainer.topic_reading import read_all
from tests.integration.world import CONTRACT, until

_numbers = itertools.count()


@pytest.fixture
def joining_spark(spark: SparkSession) -> SparkSession:
    """A session with the joiner's options, which state stores read from their session."""
    return joining_session(spark, Settings())


@dataclass
class Scene:
    """A pipeline with a join, its topics and a joiner that can be started again."""

    spark: SparkSession
    pipeline: Pipeline
    settings: Settings
    producer: Producer
    joiner: Joiner | None = None
    wrote: list[Any] = field(default_factory=list)

    def predict(self, *ids: str, role: str = "champion", version: int | None = 3) -> None:
        for name in ids:
            record = {
                "prediction_id": name,
                "requested_at": "2026-01-01T00:00:00Z",
                "key": f"k-{name}",
                "event_time": "2026-01-01T00:00:00Z",
                "features": {"x": 1.5, "gap": None, "colour": "red"},
                "segments": {"colour": "red"},
                "output": None if version is None else 0.25,
                "model_version": version,
                "role": role,
            }
            self.producer.produce(self.pipeline.topics.predictions, json.dumps(record).encode(), key=name)
        assert self.producer.flush(30) == 0

    def label(self, *ids: str, value: Any = True) -> None:
        for name in ids:
            record = {"prediction_id": name, "label": value}
            self.producer.produce(self.pipeline.topics.labels, json.dumps(record).encode(), key=name)
        assert self.producer.flush(30) == 0

    def examples(self) -> list[dict[str, Any]]:
        return [m.value for m in read_all(self.settings.kafka, self.pipeline.topics.examples)]

    def unmatched(self) -> list[dict[str, Any]]:
        return [m.value for m in read_all(self.settings.kafka, self.pipeline.topics.unmatched)]

    def commits(self) -> list[dict[str, Any]]:
        return [m.value for m in read_all(self.settings.kafka, self.pipeline.topics.join_commits)]

    @contextmanager
    def joining(self) -> Iterator[Joiner]:
        def connect(wrote: Callable[[Any, Any], None]) -> Joining:
            writer = JoinWriter(self.pipeline.topics, self.settings)
            return JoinQuery(self.spark, self.pipeline, self.settings, writer).start(wrote)

        joiner = Joiner(connect=connect, max_restarts=1)
        failures: list[BaseException] = []

        def run() -> None:
            try:
                joiner.run()
            except BaseException as error:  # noqa: BLE001 - raised again below
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield joiner
        finally:
            joiner.stop.set()
            thread.join(90)
        if failures:
            raise failures[0]


@pytest.fixture
def scene(joining_spark: SparkSession, broker: BrokerInfo, tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    def make(**join: Any) -> Scene:
        settings = Settings(
            kafka=KafkaSettings(bootstrap_servers=broker.bootstrap_servers),
            data_dir=tmp_path,
            join=JoinSettings(trigger_seconds=0.1),
        )
        given = {"on": "prediction_id", "horizon": timedelta(hours=1), **join}
        pipeline = Pipeline(name=f"join-{next(_numbers)}", contract=CONTRACT, join=Join(**given))
        with Admin(settings.kafka) as admin:
            admin.create_missing(topic_plans(pipeline.name, settings.kafka, joined=True).values())
        options = {"partitioner": "murmur2_random", "log_level": 0}
        return Scene(joining_spark, pipeline, settings, Producer({**librdkafka_options(settings.kafka), **options}))

    with suppress(KeyError):
        yield make


def test_labels_before_after_twice_corrected_and_never(scene: Callable[..., Scene]) -> None:
    it = scene()
    it.label("early")
    it.predict("early", "after", "never", "corrected", version=None)
    it.predict("after", role="challenger")
    with it.joining():
        until(lambda: len(it.examples()) == 1, "the early label")
        it.label("after", "after", "corrected")
        it.label("corrected", value=False)
        until(lambda: len(it.examples()) == 4, "the other labels")
        until(lambda: len(it.unmatched()) == 1, "the label that came twice")
    found = sorted((e["_prediction_id"], e["y"]) for e in it.examples())
    assert found == [("after", True), ("corrected", False), ("corrected", True), ("early", True)]
    example = it.examples()[0]
    assert (example["x"], example["id"], example["at"]) == (1.5, "k-early", "2026-01-01T00:00:00Z")
    assert it.unmatched()[0]["reason"] == "duplicate"
    assert it.commits()


def test_silent_labels_do_not_stop_timeouts_and_orphans_and_late_labels_are_told(scene: Callable[..., Scene]) -> None:
    it = scene(horizon=timedelta(seconds=2), patience=timedelta(0), remember=timedelta(hours=1), on_timeout=False)
    it.predict("a", "b")
    with it.joining():
        until(lambda: len(it.examples()) == 2, "the timeouts")
        assert {e["_example_id"] for e in it.examples()} == {"a:timeout", "b:timeout"}
        assert {e["y"] for e in it.examples()} == {False}
        it.label("a", "nobody")
        until(lambda: len(it.unmatched()) == 2, "a late and an orphan label")
    assert {u["reason"] for u in it.unmatched()} == {"late", "orphan"}
    assert len(it.examples()) == 2


def test_a_restart_and_a_lost_checkpoint_teach_nothing_twice(scene: Callable[..., Scene]) -> None:
    it = scene()
    it.predict(*(f"p{i}" for i in range(40)))
    with it.joining():
        it.label(*(f"p{i}" for i in range(10)))
        until(lambda: len(it.examples()) == 10, "the first ten")
    it.label(*(f"p{i}" for i in range(10, 20)))
    with it.joining():
        until(lambda: len(it.examples()) == 20, "the second ten")
    shutil.rmtree(checkpoint_folder(it.pipeline, it.settings))
    it.label(*(f"p{i}" for i in range(20, 30)))
    with it.joining():
        until(lambda: len(it.examples()) >= 30, "the third ten")
        it.label("p39")
        until(lambda: len(it.examples()) >= 31, "one more")
    ids = [e["_example_id"] for e in it.examples()]
    assert len(ids) == len(set(ids)) == 31
    assert it.unmatched() == []


def test_after_a_lost_and_a_restored_checkpoint_no_timeout_is_added_to_a_label(scene: Callable[..., Scene]) -> None:
    """The horizon of the first predictions has passed long before they are read again."""
    it = scene(horizon=timedelta(seconds=4), remember=timedelta(hours=1), on_timeout=False)
    checkpoint = Path(checkpoint_folder(it.pipeline, it.settings))
    backup = checkpoint.with_name("backup")
    it.predict("a", "b", "c")
    it.label("a")
    with it.joining():
        until(lambda: len(it.examples()) == 3, "a label and two timeouts")
    shutil.copytree(checkpoint, backup)
    it.predict("d", "e")
    it.label("d")
    with it.joining():
        until(lambda: len(it.examples()) == 5, "one more of each")
    for loss in ("restored", "lost"):
        shutil.rmtree(checkpoint)
        if loss == "restored":
            shutil.copytree(backup, checkpoint)
        it.predict(f"f-{loss}")
        it.label(f"f-{loss}")
        seen = len(it.commits())
        with it.joining():
            until(lambda: len(it.commits()) > seen, "its first batch")  # noqa: B023
            until(lambda: any(e["_prediction_id"] == f"f-{loss}" for e in it.examples()), "the last")  # noqa: B023
    ids = [e["_example_id"].partition(":") for e in it.examples()]
    taught = {name: label if label == "timeout" else "label" for name, _, label in ids}
    assert taught == {"a": "label", "b": "timeout", "c": "timeout", "d": "label", "e": "timeout", **FS}
    assert len(ids) == 7
    assert it.unmatched() == []


FS = {"f-restored": "label", "f-lost": "label"}
