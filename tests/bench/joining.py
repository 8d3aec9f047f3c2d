"""State and speed of the joiner: predictions fill the state as fast as they are read, then labels find a share of them.

`--runs N` waits for N times 100,000 predictions instead of two million; `--seconds` ends each of the two parts after so long
with what was reached by then. A flight's prediction, in blocks of a hundred, as the service writes large requests.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from confluent_kafka import Producer

from examples.flights.pipeline import contract
from infra import broker as local_broker
from infra.joining import PROCESS_OPTIONS, make_joiner
from infra.spark import build_session, stop_session
from stream_trainer import Join, Pipeline
from stream_trainer.joining.metrics import PREFIX, Metrics
from stream_trainer.joining.query import checkpoint_folder, session_options
from stream_trainer.kafka import Admin, librdkafka_options, topic_plans
from stream_trainer.settings import JoinSettings, Settings
from tests.bench.options import Options
from tests.bench.processes import tree
from tests.bench.section import Goal, Section
from tests.bench.world import fresh_settings, with_broker

if TYPE_CHECKING:
    from stream_trainer.joining.joiner import Joiner

_ROWS = 2_000_000
_STEP = 100_000
_BLOCK = 100
_SECONDS = 1_800.0
_LABELLED = 20
_GOAL_MB = 2_048.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was reached: rates a second, bytes in all."""

    waiting: int
    stored_per_second: float
    joined: int
    joined_per_second: float
    resident: int
    memory: float
    disk: float
    checkpoint: int


def measure(options: Options) -> Section:
    """One state, filled and asked."""
    count = _ROWS if options.runs is None else options.runs * _STEP
    with fresh_settings() as alone:
        try:
            found = _measure(with_broker(alone), count, options.seconds or _SECONDS)
        finally:
            local_broker.stop(alone.broker_dir)
    figures = [
        ("predictions waiting", f"{found.waiting:,}"),
        ("predictions stored a second", f"{found.stored_per_second:,.0f}"),
        ("labels joined a second", f"{found.joined_per_second:,.0f} ({found.joined:,} labels)"),
        ("resident memory, driver, JVM and workers", f"{found.resident / 2**20:,.0f} MB"),
        ("of it RocksDB", f"{found.memory / 2**20:,.0f} MB"),
        ("state files, a waiting prediction", f"{found.disk / found.waiting:,.0f} bytes"),
        ("checkpoint folder, a waiting prediction", f"{found.checkpoint / found.waiting:,.0f} bytes"),
    ]
    goal = Goal(what=f"memory with {found.waiting:,} waiting", limit=_GOAL_MB, found=found.resident / 2**20, unit="MB")
    notes = [
        "Both rates include the micro-batches' fixed costs and the Kafka transaction; the first one Spark's compilation too.",
        "Memory: the peak of the sum of proportional set sizes, so that what forked workers share counts once.",
    ]
    return Section(title="Joiner: state and speed", headings=("what", "found"), rows=figures, notes=notes, goals=[goal])


def _measure(settings: Settings, count: int, seconds: float) -> Found:
    settings = settings.model_copy(update={"join": JoinSettings(trigger_seconds=0.2, max_records_per_batch=1_000)})
    pipeline = Pipeline(name="bench", contract=contract, join=Join(on="prediction_id", horizon=timedelta(days=1)))
    with Admin(settings.kafka) as admin:
        admin.create_missing(topic_plans(pipeline.name, settings.kafka, joined=True).values())
    _send(settings, pipeline.topics.predictions, ((_name(n), _block(n)) for n in range(0, count, _BLOCK)))
    metrics = Metrics()
    with _running(settings, pipeline, metrics) as joiner:
        memory = _Peak()
        stored = _reach(joiner, lambda: joiner.status.waiting, count, seconds, memory)
        waiting = joiner.status.waiting
        labels = range(0, waiting, _LABELLED)
        _send(settings, pipeline.topics.labels, ((_name(n), _label(n)) for n in labels))
        joined = _reach(joiner, lambda: joiner.status.counts.get("examples", 0), len(labels), seconds, memory)
        done = joiner.status.counts.get("examples", 0)
    folder = Path(checkpoint_folder(pipeline, settings))

    def told(name: str) -> float:
        return metrics.registry.get_sample_value(f"{PREFIX}_{name}") or 0.0

    return Found(
        waiting=waiting,
        stored_per_second=waiting / stored,
        joined=done,
        joined_per_second=done / joined,
        resident=memory.bytes,
        memory=told("state_bytes"),
        disk=told("state_disk_bytes"),
        checkpoint=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
    )


@contextmanager
def _running(settings: Settings, pipeline: Pipeline, metrics: Metrics) -> "Iterator[Joiner]":
    memory = {"spark.driver.memory": settings.join.spark_driver_memory}
    spark = build_session(settings, "joining-bench", extra=memory | PROCESS_OPTIONS | session_options(settings))
    stop = threading.Event()
    joiner = make_joiner(spark, pipeline, settings, stop, create_topics=True, metrics=metrics)
    thread = threading.Thread(target=joiner.run)
    thread.start()
    try:
        yield joiner
    finally:
        stop.set()
        thread.join(120)
        stop_session(spark)


@dataclass(slots=True)
class _Peak:
    """The most memory seen, of this process and what it started; the broker is another's."""

    bytes: int = 0

    def look(self) -> None:
        own = [p for p in tree(psutil.Process().pid) if "kafka.Kafka" not in _command(p)]
        self.bytes = max(self.bytes, sum(_proportional(process) for process in own))


def _reach(joiner: "Joiner", so_far: Callable[[], int], wanted: int, seconds: float, memory: _Peak) -> float:
    """How long it took from the first batch of it on, at most `seconds`."""
    begun = time.monotonic()
    end = begun + seconds
    while so_far() < wanted and (time.monotonic() < end or so_far() == 0):
        assert time.monotonic() < begun + _SECONDS, f"{so_far():,} of {wanted:,}: {joiner.status.fields()}"
        memory.look()
        time.sleep(1.0)
    return time.monotonic() - begun


def _send(settings: Settings, topic: str, records: Iterator[tuple[str, bytes]]) -> None:
    producer = Producer(librdkafka_options(settings.kafka) | {"partitioner": "murmur2_random", "linger.ms": 50})
    for name, value in records:
        while True:
            try:
                producer.produce(topic, value, key=name)
            except BufferError:
                producer.poll(0.1)
            else:
                break
    assert producer.flush(120) == 0


def _name(number: int) -> str:
    return f"019ab000-0000-7000-8000-{number:012x}"


def _block(first: int) -> bytes:
    """A hundred flights' predictions, as the service logs them."""
    numbers = range(first, first + _BLOCK)
    features: dict[str, Any] = {
        "dep_hour": [n % 24 + n % 60 / 60 for n in numbers],
        "day_of_week": [n % 7 for n in numbers],
        "distance": [200 + n * 7 % 2_400 for n in numbers],
        "scheduled_minutes": [60 + n * 11 % 400 for n in numbers],
        "carrier": ["UA"] * _BLOCK,
        "origin": ["JFK"] * _BLOCK,
        "dest": ["LAX"] * _BLOCK,
        "temp": [39.02 + n * 13 % 40 for n in numbers],
        "dewp": [26.06 + n * 17 % 30 for n in numbers],
        "humid": [59.37 + n * 19 % 40 for n in numbers],
        "wind_speed": [10.35702 + n % 20 for n in numbers],
        "precip": [0.0] * _BLOCK,
        "pressure": [1012.0 + n * 3 % 9 for n in numbers],
        "visib": [10.0] * _BLOCK,
    }
    record = {
        "rows": _BLOCK,
        "requested_at": "2026-01-01T00:00:00.123456Z",
        "model_version": 42,
        "role": "champion",
        "prediction_id": [_name(n) for n in numbers],
        "output": [0.31415926 + n % 1_000 / 2_000 for n in numbers],
        "key": [f"2013-01-01-UA-{n}-JFK" for n in numbers],
        "event_time": ["2013-01-01T10:00:00Z"] * _BLOCK,
        "segments": {"origin": ["JFK"] * _BLOCK},
        "features": features,
    }
    return json.dumps(record, separators=(",", ":")).encode()


def _label(number: int) -> bytes:
    return json.dumps({"prediction_id": _name(number), "label": True}).encode()


def _proportional(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
