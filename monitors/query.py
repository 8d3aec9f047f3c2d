"""The streaming query over `P.predictions` and `P.examples`; the only file here that imports Spark.

It is light, because it shares a Spark session with the trainer: one task and one action a micro-batch. Its checkpoint
is state: it says which predictions were judged, and lies beside the monitor's own state.
"""

import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from monitors.acting import Actor, publishing
from monitors.alert_log import open_alerts
from monitors.alerts import Alert, Open, restore
from monitors.attendance import Attendance, Champion, Ends, by_clock
from monitors.baseline import Baselines
from monitors.batch import Monitor, decode_summary
from monitors.explaining import Explainer
from monitors.forwarding import Forwarder
from monitors.history import History
from monitors.links import Publish, dashboard_of, linking
from monitors.performance.ticker import Ticker
from monitors.reports import Reports
from monitors.state import StateFiles
from monitors.status import Metrics
from monitors.summary import Summarise, Summary
from monitors.webhook import Webhook, webhook_of
from stream_trainer.action_log import all_requests
from stream_trainer.errors import BrokerUnavailable, StreamTrainerError
from stream_trainer.kafka import Admin, ControlProducer, spark_options, topic_plans
from stream_trainer.pipeline import Pipeline
from stream_trainer.settings import Settings
from stream_trainer.store import open_store
from stream_trainer.store.storage import Storage, open_storage
from stream_trainer.topic_reading import open_log, read_all

TRIGGER = "2 seconds"
COLUMNS = ("topic", "partition", "offset", "timestamp", "value", "headers")
STOP_SECONDS = 60.0
_PAUSE_SECONDS = 5.0
_CLOCK_SECONDS = 10.0
_LOOK_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class MonitorQuery:
    """A running monitor; `query` is Spark's."""

    query: StreamingQuery
    metrics: Metrics
    _gate: "_Gate"
    _producer: ControlProducer
    _reports: Reports
    _forwarder: Forwarder | None = None
    _looking: ExitStack = field(default_factory=ExitStack)

    def check(self) -> None:
        """Nothing while the query runs.

        Raises:
            Exception: what the micro-batch raised, or Spark's own error.
        """
        if not self.query.isActive and not self._gate.closed:
            raise self._gate.failure or self.query.exception() or RuntimeError("the monitor's query ended by itself")

    def stop(self) -> None:
        """Let the micro-batch in hand end, then stop; further calls do nothing."""
        with self._gate.stopping:
            if not self._gate.closed:
                self._end()

    def _end(self) -> None:
        # Between two triggers nothing is in hand, not even Spark's own note that a micro-batch is done.
        deadline = time.monotonic() + _PAUSE_SECONDS
        with suppress(Exception):  # a query that has failed already has nothing left to stop
            while self.query.status["isTriggerActive"] and time.monotonic() < deadline:
                time.sleep(_LOOK_SECONDS)
        self._gate.close(STOP_SECONDS)
        with suppress(Exception):
            self.query.stop()
        self._reports.close()
        self._looking.close()
        if self._forwarder is not None:
            self._forwarder.stop()
        with suppress(BrokerUnavailable):
            self._producer.close()


class _Gate:
    """Lets micro-batches through until it is closed; `query.stop()` in the middle of one would cancel it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._busy = False
        self.closed = False
        self.stopping = threading.Lock()
        self.failure: BaseException | None = None

    def __enter__(self) -> None:
        with self._changed:
            if self.closed:
                raise StreamTrainerError("the monitor is stopping; this micro-batch will come back")
            self._busy = True

    def __exit__(self, _kind: object, failure: BaseException | None, _trace: object) -> None:
        with self._changed:
            self._busy = False
            self.failure = failure
            self._changed.notify_all()

    def close(self, seconds: float) -> None:
        """No further micro-batch begins; waits for the one in hand."""
        with self._changed:
            self.closed = True
            self._changed.wait_for(lambda: not self._busy, seconds)


def checkpoint_url(pipeline: Pipeline, settings: Settings) -> str:
    """Where the monitor's state lives; it has to survive restarts."""
    root = settings.monitor.checkpoint_url or str(settings.data_dir / "checkpoints")
    return f"{root.rstrip('/')}/{pipeline.name}/monitor"


def start_monitor(
    spark: SparkSession, pipeline: Pipeline, settings: Settings, *, stop: threading.Event | None = None
) -> MonitorQuery:
    """Start to watch `P.predictions` and `P.examples`; creates the topics it needs when they are missing.

    Args:
        spark: a session with the Kafka connector, which may be shared.
        pipeline: what is watched.
        settings: Kafka, store, and where state and reports live.
        stop: when it is set, the monitor stops as by `MonitorQuery.stop`.

    Raises:
        BrokerUnavailable: Kafka cannot be reached.
        UsageError: the webhook's URL is not one that may be called.
    """
    topics, plans = pipeline.topics, topic_plans(pipeline.name, settings.kafka)
    metrics = Metrics()
    webhook = webhook_of(settings.monitor, metrics.webhook)
    with Admin(settings.kafka) as admin:
        admin.create_missing([plans[name] for name in ("predictions", "examples", "alerts", "models", "actions")])
    url = checkpoint_url(pipeline, settings)
    storage = open_storage(url, settings.store)
    folder = settings.data_dir / "reports" / pipeline.name
    producer, reports, gate = ControlProducer(settings.kafka), Reports(folder), _Gate()
    known, unreadable = restore(read_all(settings.kafka, topics.alerts))
    written = linking(_publisher(producer, topics.alerts), dashboard_of(settings.monitor, pipeline.monitoring.window))
    publish = publishing(written, _actor(pipeline, settings, producer, known))
    publish(unreadable)
    attendance, asked = _attendance(pipeline, settings, publish, metrics, known)
    store = open_store(settings, pipeline.name)
    monitor = Monitor(
        pipeline,
        baselines=Baselines(store, pipeline.contract.fingerprint),
        states=StateFiles(storage),
        history=History(storage),
        publish=publish,
        reports=reports,
        report_folder=folder,
        workspace=settings.data_dir / "workspace" if settings.monitor.workspace else None,
        explain=Explainer(pipeline, store, metrics.explained),
        metrics=metrics,
        open_alerts={key: alert for key, alert in known.items() if key not in by_clock(known)},
        saw=attendance.saw,
        sample_rows=settings.monitor.report_rows,
    )
    query = _started(_records(spark, pipeline, settings), f"{pipeline.name}-monitor", f"{url}/spark", monitor, gate)
    metrics.behind_by(partial(_behind, query))
    forwarder = _forwarder(topics.alerts, settings, webhook, storage, metrics) if webhook else None
    running = MonitorQuery(query, metrics, gate, producer, reports, forwarder, _looking(attendance, *asked))
    if stop is not None:
        threading.Thread(target=_stop_when, args=(stop, running), name="monitor-stop", daemon=True).start()
    return running


def _attendance(
    pipeline: Pipeline, settings: Settings, publish: Publish, metrics: Metrics, known: Open
) -> tuple[Attendance, tuple[Champion, Ends]]:
    """Who looks at the clock, and what it asks, which stays open."""
    champion = Champion(pipeline.topics.models, partial(open_log, settings.kafka, pipeline.topics.models))
    ends = Ends(partial(open_log, settings.kafka, pipeline.topics.predictions))
    attendance = Attendance(
        pipeline.name,
        pipeline.monitoring,
        label=pipeline.contract.label.name,
        champion=champion,
        ends=ends,
        publish=publish,
        metrics=metrics,
        open_alerts=known,
    )
    return attendance, (champion, ends)


def _looking(attendance: Attendance, *asked: Champion | Ends) -> ExitStack:
    """Looks at the clock until it is closed; then nothing of it is open any more."""
    looking = ExitStack()
    if attendance.needed:
        for one in asked:
            looking.callback(one.close)
        looking.enter_context(Ticker(attendance.look, seconds=_CLOCK_SECONDS))
    return looking


def _records(spark: SparkSession, pipeline: Pipeline, settings: Settings) -> DataFrame:
    source = {
        **spark_options(settings.kafka),
        "subscribe": f"{pipeline.topics.predictions},{pipeline.topics.examples}",
        "includeHeaders": "true",
        "startingOffsets": "earliest",
        "maxOffsetsPerTrigger": str(settings.monitor.max_records_per_batch),
        # A consumer's last fetch waits at the broker for more; at its 500 ms a quiet partition holds a task that long.
        "kafka.fetch.max.wait.ms": "20",
        # Predictions that expired unseen cannot be judged any more; that must not end the monitor.
        "failOnDataLoss": "false",
    }
    return spark.readStream.format("kafka").options(**source).load().select(*COLUMNS)


def _started(records: DataFrame, name: str, checkpoint: str, monitor: Monitor, gate: "_Gate") -> StreamingQuery:
    return (
        records.writeStream.queryName(name)
        .option("checkpointLocation", checkpoint)
        .trigger(processingTime=TRIGGER)
        .foreachBatch(_handler(monitor, gate))
        .start()
    )


def _forwarder(topic: str, settings: Settings, webhook: Webhook, storage: Storage, metrics: Metrics) -> Forwarder:
    opening = partial(open_alerts, settings.kafka, topic)
    least = settings.monitor.webhook_least
    forwarder = Forwarder(opening, webhook, storage, least=least, tell=metrics.webhook_waits)
    forwarder.start()
    return forwarder


def _handler(monitor: Monitor, gate: _Gate) -> Callable[[DataFrame, int], None]:
    def handle(batch: DataFrame, number: int) -> None:
        with gate:
            monitor.run(number, lambda worker: _summaries(batch, worker))

    return handle


def _summaries(batch: DataFrame, worker: Summarise) -> list[Summary]:
    """One task and one action; a partition's records come in their order."""
    rows = batch.coalesce(1).mapInArrow(worker, "payload binary").collect()
    return [decode_summary(bytes(row.payload)) for row in rows]


def _behind(query: StreamingQuery) -> float:
    """Records that wait in the partition that is furthest behind, as of the last progress; NaN while none is known."""
    with suppress(Exception):  # told when somebody asks, which may be while it starts or ends
        progress: Any = query.lastProgress or {}
        return max(float(source["metrics"]["maxOffsetsBehindLatest"]) for source in progress["sources"])
    return math.nan


def _publisher(producer: ControlProducer, topic: str) -> Publish:
    def publish(alerts: Sequence[Alert]) -> None:
        producer.send(topic, [(alert.alert_key, alert) for alert in alerts])

    return publish


def _actor(pipeline: Pipeline, settings: Settings, producer: ControlProducer, known: Open) -> Actor:
    topic, rules = pipeline.topics.actions, pipeline.monitoring.actions
    return Actor(
        rules,
        lambda requests: producer.send(topic, [(request.action_id, request) for request in requests]),
        asked=all_requests(settings.kafka, topic),
        open_alerts=known.values(),
        hold_at_most=pipeline.monitoring.hold_at_most,
    )


def _stop_when(stop: threading.Event, running: MonitorQuery) -> None:
    stop.wait()
    running.stop()
