"""The trainer as a process part: opens the lineage, learns what a crash left behind, then follows the stream.

A failure that may pass (broker, store) restarts the stream from the store's head, a bounded number of times with growing
pauses; anything else ends it. Nothing that is in memory survives a restart on purpose.
"""

import logging
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Self

import pyarrow as pa

from stream_trainer import lineage as lineages
from stream_trainer import microbatch, offsets
from stream_trainer.errors import BrokerUnavailable, InputLost, RetriesExhausted, Retryable, UsageError
from stream_trainer.kafka import Admin, ControlProducer, Log, topic_plans
from stream_trainer.lineage import Lineage
from stream_trainer.microbatch import Context, Cut
from stream_trainer.offsets import Offsets
from stream_trainer.outbox import KafkaOutbox
from stream_trainer.pipeline import Pipeline
from stream_trainer.query import ExamplesReader
from stream_trainer.settings import Settings
from stream_trainer.source import KafkaSource
from stream_trainer.start import Start
from stream_trainer.store import ModelStore, open_store, retention
from stream_trainer.strategies import local

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.1
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0


@dataclass(slots=True, kw_only=True)
class Trainer:
    """One pipeline being trained in this process. `stop` may be set from a signal handler or another thread."""

    pipeline: Pipeline
    settings: Settings
    spark: "SparkSession"
    start: Start = field(default_factory=Start)
    stop: threading.Event = field(default_factory=threading.Event)
    lineage: Lineage | None = None

    def run(self) -> None:
        """Train until `stop` is set, or until the end of the log when the start says so.

        Raises:
            Fatal: see `errors`; the exit code tells which.
        """
        local.prepare()
        failures = 0
        while True:
            begun = self.lineage.number if self.lineage else 0
            try:
                with _Connections(self.pipeline, self.settings, self.start) as connections:
                    self._follow(connections)
            except Retryable as error:
                progressed = self.lineage is not None and self.lineage.number > begun > 0
                failures = 1 if progressed else failures + 1
                if failures > self.settings.trainer.max_restarts:
                    raise RetriesExhausted(
                        f"gave up after {failures} failures in a row; the last one: {error}"
                    ) from error
                pause = min(_FIRST_PAUSE * 2**failures, _LONGEST_PAUSE)
                logger.warning("restarting from the newest version in %.1f s: %s", pause, error)
                if self.stop.wait(pause):
                    return
            else:
                return

    def _follow(self, connections: "_Connections") -> None:
        context = connections.context()
        # A restart continues the head: the asked origin holds for the first start only.
        self.lineage = open_lineage(context, connections.source, "earliest" if self.lineage else self.start.origin)
        reader = ExamplesReader(self.spark, self.pipeline.contract, self.pipeline.topics.examples, self.settings)
        self._finish_intents(context, reader)
        goal = connections.source.latest() if self.start.until_caught_up else None
        heartbeat = Heartbeat(connections, self)
        start = connections.source.start(self._position())
        self.lineage = replace(self.lineage, position=start)
        running = reader.stream(start, self._position, self._learner(connections))
        heartbeat.start()
        try:
            while not self.stop.wait(_POLL_SECONDS):
                running.check()
                if goal is not None and _reached(self._position(), goal):
                    return
        finally:
            heartbeat.stop()
            running.stop()

    def _position(self) -> Offsets:
        assert self.lineage is not None  # noqa: S101 - opened before anything asks
        return self.lineage.position

    def _learner(self, connections: "_Connections") -> Callable[[Cut, Callable[[], pa.Table]], None]:
        context = connections.context()

        def learn(cut: Cut, fetch: Callable[[], pa.Table]) -> None:
            assert self.lineage is not None  # noqa: S101
            before = self.lineage.number
            self.lineage = microbatch.run(context, self.lineage, cut, fetch)
            if self.lineage.number > before and self.lineage.head is not None:
                connections.outbox.show_progress(self.lineage.head)
                retention.forget(context.store, self.lineage.head.number, self.settings.store)
                _log_version(self.lineage)

        return learn

    def _finish_intents(self, context: Context, reader: ExamplesReader) -> None:
        """Learn again exactly what an earlier run had begun to learn and not committed."""
        assert self.lineage is not None  # noqa: S101
        number = self.lineage.number
        for intent in context.store.intents(number):
            if self.lineage.number != number:
                break
            logger.info("learning again cut %d of version %d, as its intent says", intent.cut, number)
            cut = Cut(ranges=intent.ranges, covered_at=None)
            self.lineage = microbatch.run(context, self.lineage, cut, partial(reader.read, intent.ranges))


def open_lineage(context: Context, source: KafkaSource, origin: str) -> Lineage:
    """The lineage to continue, or a fresh one at the asked end of the log.

    Raises:
        InputLost: records that the lineage needs are gone.
        UsageError: `origin` names no version, or the contract has changed.
    """
    store, pipeline = context.store, context.pipeline
    head = store.head()
    if head is not None:
        parent = store.verify(int(origin)) if origin.isdigit() else None
        found = lineages.load(pipeline, store, head, parent)
        logger.info("continuing version %d of %s", head.number, store.describe())
    else:
        if origin.isdigit():
            raise UsageError(f"{store.describe()} has no versions: --from {origin} names none")
        at = source.latest() if origin == "latest" else source.earliest()
        found = lineages.fresh(pipeline, _first_cut_start(store) or at, store.highest() + 1)
        logger.info("starting a new lineage in %s", store.describe())
    source.check(found.position)
    return found


def _first_cut_start(store: ModelStore) -> Offsets | None:
    """A run that died before its first version has fixed where that version begins."""
    intents = store.intents(store.highest() + 1)
    return offsets.starts(intents[0].ranges) if intents else None


def _reached(position: Offsets, goal: Offsets) -> bool:
    return all(position.get(t, {}).get(p, 0) >= end for t, ps in goal.items() for p, end in ps.items())


def _log_version(lineage: Lineage) -> None:
    assert lineage.head is not None  # noqa: S101
    manifest = lineage.head.manifest
    scores = manifest.metrics
    logger.info(
        "version %d: %d trained, %d rejected; prequential %s",
        manifest.version,
        manifest.rows.trained,
        manifest.rows.rejected,
        {name: round(value, 4) for name, value in scores.items() if isinstance(value, float)},
    )


class _Connections:
    """What a run holds open towards Kafka and the store."""

    def __init__(self, pipeline: Pipeline, settings: Settings, start: Start) -> None:
        self.pipeline = pipeline
        self.settings = settings
        self.run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
        self.store = open_store(settings, pipeline.name)
        self.admin = Admin(settings.kafka)
        plans = topic_plans(pipeline.name, settings.kafka)
        if start.create_topics:
            self.admin.create_missing(plans.values())
        else:
            self.admin.require(plan.name for plan in plans.values())
        self.log = Log(settings.kafka)
        self.producer = ControlProducer(settings.kafka)
        head = self.store.head()
        known = head.manifest.topic_ids.get(pipeline.topics.examples) if head else None
        self.source = KafkaSource(pipeline.topics.examples, self.admin, self.log, known)
        self.outbox = KafkaOutbox(pipeline.topics, self.producer, self.admin)

    def context(self) -> Context:
        """What the micro-batch needs of all this."""
        return Context(
            pipeline=self.pipeline,
            store=self.store,
            source=self.source,
            outbox=self.outbox,
            run_id=self.run_id,
            clock=lambda: datetime.now(UTC),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for part in (self.producer, self.log, self.admin):
            try:
                part.close()
            except BrokerUnavailable as error:
                logger.warning("closing: %s", error)


class Heartbeat:
    """While nothing arrives, says every second that the newest version still covers the whole log.

    Staleness is measured from the newest such word: quiet nights and replayed history do not count as stale.
    """

    def __init__(self, connections: _Connections, trainer: Trainer) -> None:
        self._connections = connections
        self._trainer = trainer
        self._log = Log(connections.settings.kafka)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for a word that is being sent."""
        self._stopped.set()
        self._thread.join()
        self._log.close()

    def _run(self) -> None:
        source = KafkaSource(self._trainer.pipeline.topics.examples, self._connections.admin, self._log)
        while not self._stopped.wait(self._trainer.settings.trainer.announce_idle_seconds):
            lineage = self._trainer.lineage
            if lineage is None or lineage.head is None or lineage.pending.rows.trained:
                continue
            asked_at = datetime.now(UTC)
            try:
                covered = _reached(lineage.position, source.ends(lineage.position))
                if covered and self._trainer.lineage is lineage:
                    self._connections.outbox.announce(lineage.head, asked_at)
            except (Retryable, InputLost) as error:
                logger.warning("no word of freshness: %s", error)
