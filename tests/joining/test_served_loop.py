"""From `/predict` and `/feedback` over HTTP to the score of what was served: real Kafka, Spark, service, joiner and trainer."""

import itertools
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from httpx import Client
from pyspark.sql import SparkSession

from infra.broker import BrokerInfo
from infra.joining import joining_session
from serving.app import create_app
from serving.feedback import KafkaLabels
from serving.prediction_log import PredictionLog, kafka_producer
from stream_trainer import Join, Pipeline
from stream_trainer.joining.join import On
from stream_trainer.joining.weights import sampled
from stream_trainer.kafka import Admin, librdkafka_options, topic_plans
from stream_trainer.settings import JoinSettings, KafkaSettings, Settings, TrainerSettings
from tests.integration.world import CONTRACT, World
from tests.joining.test_spark import Scene
from tests.serving.fixtures import Harness, serving

INSTANCES, LEARNED = 40, 300
LOOKS = 600
_numbers = itertools.count()


@contextmanager
def service(world: World) -> Iterator[Client]:
    """The application over the world's store, with the prediction log and the labels of production."""
    harness = Harness(world.store, world.pipeline)
    harness.follower.look()
    topics = world.pipeline.topics
    log = PredictionLog(CONTRACT, topics.predictions, kafka_producer(world.settings), harness.metrics, max_rows=1_000)
    labels = KafkaLabels(topics.labels, world.settings)
    app = create_app(
        world.pipeline,
        world.settings,
        log=log,
        follower=harness.follower,
        metrics=harness.metrics,
        store=world.store,
        labels=labels,
    )
    log.start()
    try:
        with serving(app) as client:
            yield client
    finally:
        log.close(20)
        labels.close()


def ask(client: Client, examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    instances = [{name: value for name, value in example.items() if name != "y"} for example in examples]
    answer = client.post("/predict", json={"instances": instances}, timeout=60)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["predictions"]
    return found


def looked(condition: Callable[[], bool], scene: Scene) -> None:
    """Wait, counted in looks: on a machine with other work the joiner's first batch may take minutes."""
    for _ in range(LOOKS):
        if condition():
            return
        threading.Event().wait(0.5)
    raise AssertionError(f"after {LOOKS} looks: {len(scene.examples())} examples, unmatched {scene.unmatched()[:3]}")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("on", "rate"), [("prediction_id", 0.5), ("key", 1.0)])
def test_what_was_answered_is_scored_when_its_label_comes_back(
    spark: SparkSession, broker: BrokerInfo, tmp_path: Path, on: On, rate: float
) -> None:
    settings = Settings(
        kafka=KafkaSettings(bootstrap_servers=broker.bootstrap_servers),
        data_dir=tmp_path,
        trainer=TrainerSettings(trigger_seconds=0.1),
        join=JoinSettings(trigger_seconds=0.1),
    )
    join = Join(on=on, horizon=timedelta(hours=1), negative_rate=rate)
    pipeline = Pipeline(name=f"loop-{next(_numbers)}", contract=CONTRACT, join=join, reference_rows=100)
    with Admin(settings.kafka) as admin:
        admin.create_missing(topic_plans(pipeline.name, settings.kafka, joined=True).values())
    producer = Producer({**librdkafka_options(settings.kafka), "partitioner": "murmur2_random", "log_level": 0})
    world = World(spark, pipeline, settings, producer)
    scene = Scene(joining_session(spark, settings), pipeline, settings, producer)
    world.send_good(LEARNED)
    world.train()
    version = world.store.highest()

    examples = [world.example() for _ in range(INSTANCES)]
    with service(world) as client:
        said = ask(client, examples)
        names = [
            row["prediction_id"] if on == "prediction_id" else e["id"] for row, e in zip(said, examples, strict=True)
        ]
        field = "prediction_id" if on == "prediction_id" else CONTRACT.key
        body = [{field: name, "label": example["y"]} for name, example in zip(names, examples, strict=True)]
        answer = client.post("/feedback", json={"labels": body}, timeout=60)
        assert (answer.status_code, answer.json()) == (202, {"accepted": INSTANCES})
    rows = list(zip(said, examples, strict=True))
    taught = [(row, example) for row, example in rows if example["y"] or sampled(row["prediction_id"], rate)]
    with scene.joining():
        looked(lambda: len(scene.examples()) >= LEARNED + len(taught), scene)
    assert len(scene.examples()) == LEARNED + len(taught)
    assert scene.unmatched() == []
    world.train()

    served = world.store.read(world.store.highest()).manifest.metrics["served"]
    assert world.store.highest() > version
    assert served["rows"] == len(taught)
    counts = [1.0 if example["y"] else 1.0 / rate for _, example in taught]
    losses = [-math.log(row["output"] if example["y"] else 1 - row["output"]) for row, example in taught]
    expected = sum(count * loss for count, loss in zip(counts, losses, strict=True)) / sum(counts)
    assert served["log_loss"] == pytest.approx(expected, rel=1e-4)
    assert world.store.read(world.store.highest()).manifest.negative_rate == rate
