"""State and speed of the joiner: predictions fill the state as fast as they are read, then labels find a share of them.

`--runs N` waits for N times 100,000 predictions instead of two million; `--seconds` ends each of the two parts after so long
with what was reached by then. A flight's prediction, in blocks of a hundred, as the service writes large requests.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
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
from stream_trainer.settings import Settings
from tests.bench.memory import Samples
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
_GOAL_MIB, _MIB = 2_048.0, 2**20
# The driver sends too: what waits to be sent must not count as the joiner's.
_SENDING = {"partitioner": "murmur2_random", "linger.ms": 50, "queue.buffering.max.kbytes": 8_192}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One of the two parts: how many were reached, in how many batches and seconds, and what that cost."""

    count: int
    batches: int
    seconds: float
    cpu: float

    def row(self, what: str) -> tuple[str, str]:
        """For the table."""
        cost = f"{1e6 * self.cpu / max(1, self.count):,.0f} µs of CPU each"
        return (
            f"{what} a second",
            f"{self.count / self.seconds:,.0f} ({self.count:,} in {self.batches} batches; {cost})",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was reached; sizes in bytes."""

    stored: Part
    joined: Part
    peak: Mapping[str, int]
    memory: float
    checkpoint: int


def measure(options: Options) -> Section:
    """One state, filled and asked."""
    count = _ROWS if options.runs is None else options.runs * _STEP
    with fresh_settings() as alone:
        try:
            found = _measure(with_broker(alone), count, options.seconds or _SECONDS)
            records = alone.join.max_records_per_batch
        finally:
            local_broker.stop(alone.broker_dir)
    whole = sum(found.peak.values()) / _MIB
    figures = [
        ("predictions waiting", f"{found.stored.count:,}"),
        found.stored.row("predictions stored"),
        found.joined.row("labels joined"),
        ("peak memory, all together", f"{whole:,.0f} MiB"),
        *((f"then: {name}", f"{size / _MIB:,.0f} MiB") for name, size in found.peak.items()),
        ("RocksDB, in the JVM's share", f"{found.memory / _MIB:,.0f} MiB"),
        ("checkpoint folder, a waiting prediction", f"{found.checkpoint / found.stored.count:,.0f} bytes"),
    ]
    goal = Goal(what=f"memory with {found.stored.count:,} waiting", limit=_GOAL_MIB, found=whole, unit="MiB")
    notes = [
        f"At most {records:,} records a micro-batch, of which one holds {_BLOCK} predictions.",
        "Both rates include the micro-batches' fixed costs and the Kafka transaction; the first one Spark's compilation too.",
        "Memory: the peak of the sum of proportional set sizes, so that what forked workers share counts once.",
    ]
    return Section(title="Joiner: state and speed", headings=("what", "found"), rows=figures, notes=notes, goals=[goal])


def _measure(settings: Settings, count: int, seconds: float) -> Found:
    settings = settings.model_copy(update={"join": settings.join.model_copy(update={"trigger_seconds": 0.2})})
    pipeline = Pipeline(name="bench", contract=contract, join=Join(on="prediction_id", horizon=timedelta(days=1)))
    with Admin(settings.kafka) as admin:
        admin.create_missing(topic_plans(pipeline.name, settings.kafka, joined=True).values())
    _send(settings, pipeline.topics.predictions, ((_name(n), _block(n)) for n in range(0, count, _BLOCK)))
    metrics = Metrics()
    samples = Samples()
    with _running(settings, pipeline, metrics) as joiner:
        stored = _reach(joiner, lambda: joiner.status.waiting, count, seconds, samples)
        labels = range(0, stored.count, _LABELLED)
        _send(settings, pipeline.topics.labels, ((_name(n), _label(n)) for n in labels))
        joined = _reach(joiner, lambda: joiner.status.counts.get("examples", 0), len(labels), seconds, samples)
    folder = Path(checkpoint_folder(pipeline, settings))
    return Found(
        stored=stored,
        joined=joined,
        peak=samples.peak,
        memory=metrics.registry.get_sample_value(f"{PREFIX}_state_bytes") or 0.0,
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


def _reach(joiner: "Joiner", so_far: Callable[[], int], wanted: int, seconds: float, samples: Samples) -> Part:
    """Wait for it, at most `seconds` but for the first batch."""
    batches, cpu = joiner.status.batches, sum(samples.cpu.values())
    begun = time.monotonic()
    end = begun + seconds
    while so_far() < wanted and (time.monotonic() < end or so_far() == 0):
        assert time.monotonic() < begun + _SECONDS, f"{so_far():,} of {wanted:,}: {joiner.status.fields()}"
        samples.take(_own())
        time.sleep(0.5)
    took = time.monotonic() - begun
    samples.take(_own())
    used = sum(samples.cpu.values()) - cpu
    return Part(count=so_far(), batches=joiner.status.batches - batches, seconds=took, cpu=used)


def _own() -> list[psutil.Process]:
    """This process and what it started, but for the broker."""
    return [process for process in tree(psutil.Process().pid) if "kafka.Kafka" not in _command(process)]


def _send(settings: Settings, topic: str, records: Iterator[tuple[str, bytes]]) -> None:
    producer = Producer(librdkafka_options(settings.kafka) | _SENDING)
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


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
