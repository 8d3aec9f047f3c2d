"""`kill -9` of the joiner inside and right after a transaction, on real Kafka and real Spark."""

import itertools
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from infra.broker import BrokerInfo
from stream_trainer.kafka import Admin, librdkafka_options, topic_plans
from stream_trainer.settings import KafkaSettings
from stream_trainer.topic_reading import read_all

_numbers = itertools.count()
IDS = [f"p{i}" for i in range(120)]


def fill(kafka: KafkaSettings, name: str) -> None:
    """Predictions and their labels, and for every tenth a second, corrected one."""
    producer = Producer(librdkafka_options(kafka) | {"partitioner": "murmur2_random"})
    for prediction_id in IDS:
        record = {
            "prediction_id": prediction_id,
            "requested_at": "2026-01-01T00:00:00Z",
            "features": {"x": 1.5, "gap": None, "colour": "red"},
            "segments": {"colour": "red"},
            "output": 0.25,
            "model_version": 3,
            "role": "champion",
        }
        producer.produce(f"{name}.predictions", json.dumps(record).encode(), key=prediction_id)
        labels = [True, False] if prediction_id.endswith("0") else [True]
        for label in labels:
            value = json.dumps({"prediction_id": prediction_id, "label": label}).encode()
            producer.produce(f"{name}.labels", value, key=prediction_id)
    assert producer.flush(30) == 0


def looked(condition: Callable[[], object], what: str, looks: int = 600) -> None:
    """Wait, counted in looks: on a machine with other work Spark and its first batch alone may take minutes."""
    for _ in range(looks):
        if condition():
            return
        threading.Event().wait(0.5)
    raise AssertionError(f"looked {looks} times for {what}")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_joiner_killed_around_a_commit_teaches_each_label_once(broker: BrokerInfo, tmp_path: Path, when: str) -> None:
    name = f"kills-{next(_numbers)}"
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
    with Admin(kafka) as admin:
        admin.create_missing(topic_plans(name, kafka, joined=True).values())
    fill(kafka, name)

    def start(kill: str, nth: int) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "tests.joining.child", name, str(broker.bootstrap_servers), str(tmp_path)]
        return subprocess.Popen([*command, kill, str(nth)])

    def examples() -> list[dict[str, Any]]:
        return [m.value for m in read_all(kafka, f"{name}.examples")]

    killed = start(when, 3)
    looked(lambda: killed.poll() is not None, "its death")
    assert killed.returncode == -signal.SIGKILL
    last = start("never", 0)
    try:
        looked(lambda: last.poll() is not None or len(examples()) >= 132, "all labels")
        assert last.poll() is None, f"the joiner ended with exit code {last.returncode}"
        last.terminate()
        looked(lambda: last.poll() is not None, "its end")
        assert last.returncode == 0
    finally:
        last.kill()
        last.wait()
    found = sorted((e["_prediction_id"], e["y"]) for e in examples())
    assert found == sorted([(i, True) for i in IDS] + [(i, False) for i in IDS if i.endswith("0")])
    assert len({e["_example_id"] for e in examples()}) == 132
    assert read_all(kafka, f"{name}.unmatched") == []
