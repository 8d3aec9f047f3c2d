"""`train --with-joiner`: labels are joined on the trainer's Spark and learned by the trainer; one SIGTERM ends both."""

import itertools
import json
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Producer

from infra.broker import BrokerInfo
from infra.units import variables
from stream_trainer import Pipeline
from stream_trainer.kafka import Admin, librdkafka_options, topic_plans
from stream_trainer.settings import KafkaSettings, Settings
from stream_trainer.store import open_store
from stream_trainer.topic_reading import read_all
from tests.faults.spark_child import SparkChild
from tests.faults.spark_pipeline import address, make_pipeline
from tests.faults.spark_scene import log_ends_of, whole

LOOKS = 600
_numbers = itertools.count()


class Scene:
    """A joined pipeline, its topics and a trainer that joins too."""

    def __init__(self, bootstrap_servers: str, folder: Path) -> None:
        self.settings = Settings(data_dir=folder, kafka=KafkaSettings(bootstrap_servers=bootstrap_servers))
        self.pipeline: Pipeline = make_pipeline(f"joined-beside-{next(_numbers)}")
        with Admin(self.settings.kafka) as admin:
            admin.create_missing(topic_plans(self.pipeline.name, self.settings.kafka, joined=True).values())
        self._producer = Producer(librdkafka_options(self.settings.kafka) | {"partitioner": "murmur2_random"})

    def predict(self, ids: Iterable[str]) -> None:
        shared = {"requested_at": "2026-01-01T00:00:00Z", "model_version": None, "role": "champion"}
        rest = {"segments": {"colour": "red"}, "features": {"x": 1.5, "colour": "red"}}
        self._write(self.pipeline.topics.predictions, [{"prediction_id": name, **shared, **rest} for name in ids])

    def label(self, ids: Iterable[str]) -> None:
        self._write(self.pipeline.topics.labels, [{"prediction_id": name, "label": True} for name in ids])

    def taught(self) -> list[str]:
        """The predictions whose examples were committed."""
        return [message.value["_prediction_id"] for message in read_all(self.settings.kafka, self._examples)]

    def learned_all(self) -> bool:
        """Whether the newest version stands at the end of the examples."""
        store = open_store(self.settings, self.pipeline.name)
        head = store.highest()
        return head > 0 and store.read(head).manifest.next_offsets == log_ends_of(self.settings, self._examples)

    def learned(self) -> int:
        """Examples that the one lineage has learned, after making sure that its cuts tile the topic."""
        store = open_store(self.settings, self.pipeline.name)
        return whole(store, log_ends_of(self.settings, self._examples)).total.trained

    @contextmanager
    def training(self) -> Iterator[SparkChild]:
        """Until the end of the block; then SIGTERM, and nothing is left."""
        more = {"STREAM_TRAINER_JOIN__METRICS_PORT": "0", "STREAM_TRAINER_TRAINER__TRIGGER_SECONDS": "0.2"}
        words = ["train", address(self.pipeline), "--with-joiner"]
        child = SparkChild(words, {**variables(self.settings), **more}, self.settings.data_dir)
        try:
            child.go()
            yield child
            started = psutil.Process(child.pid).children(recursive=True)
            child.send(signal.SIGTERM)
            assert child.wait() == 0, child.said()
            _, left = psutil.wait_procs(started, timeout=60)
            assert not left
        finally:
            child.end()
        said = child.said()
        assert "is started again" not in said, said
        assert "Python worker" not in said, said

    @property
    def _examples(self) -> str:
        return self.pipeline.topics.examples

    def _write(self, topic: str, records: list[dict[str, Any]]) -> None:
        for record in records:
            self._producer.produce(topic, json.dumps(record).encode(), key=record["prediction_id"])
        assert self._producer.flush(30) == 0


def looked(condition: Callable[[], object], what: str, child: SparkChild) -> None:
    """Wait, counted in looks: on a machine with other work Spark and two first batches may take minutes."""
    for _ in range(LOOKS):
        if condition():
            return
        assert child.running, f"it ended before {what}:\n{child.said()}"
        threading.Event().wait(0.2)
    raise AssertionError(f"looked {LOOKS} times for {what}:\n{child.said()}")


@pytest.mark.spark
@pytest.mark.timeout(900)
def test_the_trainer_learns_exactly_what_the_joiner_beside_it_has_joined(broker: BrokerInfo, tmp_path: Path) -> None:
    it = Scene(str(broker.bootstrap_servers), tmp_path)
    ids = [f"p{i}" for i in range(90)]
    it.predict(ids)
    it.label(ids[:40])
    with it.training() as child:
        looked(lambda: len(it.taught()) >= 40 and it.learned_all(), "the labels that were there", child)
        it.label(ids[30:60])
        looked(lambda: len(it.taught()) >= 60 and it.learned_all(), "the labels that came while it ran", child)
    assert sorted(it.taught()) == sorted(ids[:60])
    assert it.learned() == 60
    it.label(ids[60:80])
    with it.training() as child:
        looked(lambda: len(it.taught()) >= 80 and it.learned_all(), "labels of predictions of the first run", child)
    assert sorted(it.taught()) == sorted(ids[:80])
    assert it.learned() == 80
    unmatched = [message.value["reason"] for message in read_all(it.settings.kafka, it.pipeline.topics.unmatched)]
    assert unmatched == ["duplicate"] * 10
