"""A pipeline of its own on the shared broker, and what tests do with it."""

import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from pyspark.sql import SparkSession

from stream_trainer import BinaryLabel, Categorical, Contract, Numeric, Pipeline
from stream_trainer.connections import Connections
from stream_trainer.kafka import Admin, librdkafka_options, topic_plans
from stream_trainer.lineage import Lineage
from stream_trainer.settings import KafkaSettings, Settings, TrainerSettings
from stream_trainer.start import Start
from stream_trainer.store import ModelStore, open_store
from stream_trainer.topic_reading import Message, read_all
from stream_trainer.trainer import Trainer

SECONDS = 90.0
_numbers = itertools.count()

CONTRACT = Contract(
    features=[
        Numeric("x", low=-100, high=100),
        Numeric("gap", optional=True),
        Categorical("colour", vocabulary=["red", "blue"]),
    ],
    label=BinaryLabel("y"),
    key="id",
    event_time="at",
    segments=["colour"],
)


def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for a condition, at most `SECONDS`."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited {SECONDS} s for {what}"
        threading.Event().wait(0.05)


@dataclass
class World:
    """One pipeline: its topics, store and producer."""

    spark: SparkSession
    pipeline: Pipeline
    settings: Settings
    producer: Producer
    rng: random.Random = field(default_factory=lambda: random.Random(7))
    sent: int = 0

    @property
    def store(self) -> ModelStore:
        return open_store(self.settings, self.pipeline.name)

    @property
    def topic(self) -> str:
        return self.pipeline.topics.examples

    def example(self, **changes: Any) -> dict[str, Any]:
        self.sent += 1
        x = self.rng.gauss(0, 1)
        at = f"2013-01-01T{self.sent // 60 % 24:02d}:{self.sent % 60:02d}:00Z"
        record = {"id": f"r{self.sent}", "x": x, "gap": 1.5, "colour": "red", "at": at, "y": x > 0}
        return {**record, **changes}

    def send(self, values: Iterable[bytes | None], *, key: bytes | None = None, **options: Any) -> None:
        for value in values:
            self.producer.produce(self.topic, value, key=key, **options)
        assert self.producer.flush(30) == 0

    def send_good(self, count: int) -> None:
        for _ in range(count):
            record = self.example()
            self.producer.produce(self.topic, json.dumps(record).encode(), key=record["id"])
        assert self.producer.flush(30) == 0

    def train(self, **start: Any) -> Trainer:
        """Learn what is there, and end."""
        trainer = self.trainer(Start(until_caught_up=True, **start))
        trainer.run()
        return trainer

    def trainer(self, start: Start | None = None) -> Trainer:
        """One that has not begun."""
        connect = partial(Connections, self.pipeline, self.settings, self.spark)
        return Trainer(pipeline=self.pipeline, settings=self.settings, connect=connect, start=start or Start())

    @contextmanager
    def training(self) -> Iterator["Background"]:
        """Learn in the background for the length of the block; its failure is raised at the end."""
        background = Background(self.trainer())
        try:
            yield background
        finally:
            background.end()

    def rejected(self) -> dict[str, Any]:
        return {m.key: m.value for m in read_all(self.settings.kafka, self.pipeline.topics.rejected)}

    def announcements(self) -> list[Message]:
        return read_all(self.settings.kafka, self.pipeline.topics.models)


class Background:
    """A trainer in a thread."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def lineage(self) -> Lineage | None:
        return self._trainer.lineage

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def end(self) -> None:
        self._trainer.stop.set()
        self._thread.join(SECONDS)
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            self._trainer.run()
        except BaseException as error:  # noqa: BLE001 - raised again by `end`
            self._failure = error


def make_world(spark: SparkSession, bootstrap_servers: str, folder: Path, **trainer: Any) -> World:
    """A world with a name nobody else uses, its topics created."""
    settings = Settings(
        kafka=KafkaSettings(bootstrap_servers=bootstrap_servers),
        data_dir=folder,
        trainer=TrainerSettings(trigger_seconds=0.1, **trainer),
    )
    pipeline = Pipeline(name=f"world-{next(_numbers)}", contract=CONTRACT, reference_rows=100)
    with Admin(settings.kafka) as admin:
        admin.create_missing(topic_plans(pipeline.name, settings.kafka).values())
    options = {"partitioner": "murmur2_random", "message.max.bytes": 15_000_000, "log_level": 0}
    return World(spark, pipeline, settings, Producer({**librdkafka_options(settings.kafka), **options}))
