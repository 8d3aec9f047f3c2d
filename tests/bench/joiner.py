"""State and speed of the joiner: so many predictions wait, then a share of their labels comes.

    python -m tests.bench.joiner --predictions 200000

Prints one JSON object: records a second, bytes of state a waiting prediction, resident memory of driver, JVM and workers.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import Producer

from examples.flights.pipeline import contract
from infra import broker as local_broker
from infra.jars import ensure_jars
from infra.java import find_java
from infra.spark import build_session, stop_session
from stream_trainer import Join, Pipeline
from stream_trainer.joining.joiner import Joiner
from stream_trainer.joining.query import JoinQuery, checkpoint_folder, session_options
from stream_trainer.joining.writer import JoinWriter
from stream_trainer.kafka import Admin, librdkafka_options, topic_plans
from stream_trainer.settings import JoinSettings, KafkaSettings, Settings


def prediction(number: int) -> bytes:
    """A flight's, as serving logs it."""
    features = {
        "dep_hour": number % 24, "day_of_week": number % 7, "distance": 1000.0 + number % 500, "scheduled_minutes": 120,
        "carrier": "UA", "origin": "JFK", "dest": "LAX", "temp": 39.02 + number % 40, "dewp": 26.06, "humid": 59.37,
        "wind_speed": 10.35702, "precip": 0.0, "pressure": 1012.0 + number % 9, "visib": 10.0,
    }  # fmt: skip
    record = {
        "prediction_id": f"019ab000-0000-7000-8000-{number:012x}", "key": f"UA{number}", "features": features,
        "segments": {"origin": "JFK"}, "requested_at": "2026-01-01T00:00:00.123456Z", "output": 0.31415926,
        "event_time": "2013-01-01T10:00:00Z", "model_version": 42, "role": "champion",
    }  # fmt: skip
    return json.dumps(record).encode()


def send(settings: Settings, pipeline: Pipeline, count: int) -> None:
    """So many predictions."""
    producer = Producer(librdkafka_options(settings.kafka) | {"partitioner": "murmur2_random", "linger.ms": 50})
    for number in range(count):
        if number % 50_000 == 0:
            producer.flush(60)
        name = f"019ab000-0000-7000-8000-{number:012x}"
        producer.produce(pipeline.topics.predictions, prediction(number), key=name)
    producer.flush(60)


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--predictions", type=int, default=200_000)
    parser.add_argument("--seconds", type=float, default=600.0)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="joiner-bench-", ignore_cleanup_errors=True) as folder:
        base = Settings()
        java = find_java(base.cache_dir)
        info = local_broker.start(Path(folder, "broker"), java, ensure_jars(base, "kafka"), detach=False)
        try:
            kafka = KafkaSettings(bootstrap_servers=info.bootstrap_servers)
            settings = Settings(kafka=kafka, data_dir=Path(folder), join=JoinSettings(trigger_seconds=0.2))
            sys.stdout.write(json.dumps(measure(settings, flags.predictions, flags.seconds)) + "\n")
        finally:
            local_broker.stop(Path(folder, "broker"))
    return 0


def measure(settings: Settings, count: int, seconds: float) -> dict[str, Any]:
    """The figures."""
    pipeline = Pipeline(name="bench", contract=contract, join=Join(on="prediction_id", horizon=timedelta(days=1)))
    with Admin(settings.kafka) as admin:
        admin.create_missing(topic_plans(pipeline.name, settings.kafka, joined=True).values())
    labels = count // 10
    send(settings, pipeline, count)
    spark = build_session(settings, "joiner-bench", extra=session_options(settings))
    queries: list[Any] = []

    def connect(wrote: Any) -> Any:
        queries.append(JoinQuery(spark, pipeline, settings, JoinWriter(pipeline.topics, settings)).start(wrote))
        return queries[-1]

    joiner = Joiner(connect=connect, max_restarts=0)
    thread = threading.Thread(target=joiner.run)
    begun = time.monotonic()
    thread.start()
    peak = _wait(lambda: joiner.status.waiting >= count, begun + seconds, thread)
    stored = time.monotonic() - begun
    progress = queries[-1].query.lastProgress
    folder = Path(checkpoint_folder(pipeline, settings))
    _labels(settings, pipeline, labels)
    begun = time.monotonic()
    peak = max(peak, _wait(lambda: joiner.status.counts.get("examples", 0) >= labels, begun + seconds, thread))
    joined = time.monotonic() - begun
    joiner.stop.set()
    thread.join(60)
    stop_session(spark)
    on_disk = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    operator = json.loads(progress.json)["stateOperators"] if progress is not None else []
    return {
        "predictions": count, "stored_per_second": count / stored, "labels_per_second": labels / joined,
        "peak_rss_mb": peak / 2**20, "checkpoint_bytes_per_prediction": on_disk / count,
        "batch_ms": json.loads(progress.json)["durationMs"] if progress is not None else {},
        "state": [{k: o[k] for k in ("numRowsTotal", "memoryUsedBytes", "commitTimeMs")} for o in operator],
        "sst_bytes": [o["customMetrics"].get("rocksdbTotalBytesWrittenByFlush") for o in operator],
        "rocksdb_sst_file_size": [o["customMetrics"].get("rocksdbSstFileSize") for o in operator],
    }  # fmt: skip


def _labels(settings: Settings, pipeline: Pipeline, labels: int) -> None:
    producer = Producer(librdkafka_options(settings.kafka) | {"partitioner": "murmur2_random", "linger.ms": 50})
    for number in range(labels):
        name = f"019ab000-0000-7000-8000-{number:012x}"
        producer.produce(pipeline.topics.labels, json.dumps({"prediction_id": name, "label": True}).encode(), key=name)
    producer.flush(60)


def _wait(condition: Any, deadline: float, thread: threading.Thread) -> int:
    peak = 0
    while not condition():
        if time.monotonic() > deadline or not thread.is_alive():
            raise SystemExit("the joiner did not get there")
        me = psutil.Process()
        peak = max(
            peak,
            sum(_memory(p) for p in (me, *me.children(recursive=True)) if "kafka.Kafka" not in " ".join(_command(p))),
        )
        time.sleep(0.5)
    return peak


def _memory(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


if __name__ == "__main__":
    sys.exit(main())
