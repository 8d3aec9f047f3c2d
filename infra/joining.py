"""The joiner as a process with a small Spark of its own, or beside the trainer on its Spark; both end between two batches."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from infra.beside import Beside
from infra.spark import build_session, stop_session
from stream_trainer.errors import Fenced, UsageError
from stream_trainer.loading import load_pipeline
from stream_trainer.pipeline import Pipeline
from stream_trainer.settings import JoinSettings, Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from stream_trainer.joining.joiner import Joiner, Joining
    from stream_trainer.joining.metrics import Metrics

logger = logging.getLogger(__name__)

# What a Spark in which somebody joins is told at its start.
PROCESS_OPTIONS = {"spark.python.daemon.module": "stream_trainer.joining.worker_daemon"}


def join_here(address: str, settings: Settings, stop: threading.Event, *, create_topics: bool = True) -> None:
    """Join until told to stop.

    Raises:
        StreamTrainerError: see `Joiner.run`.
    """
    pipeline = _joined(load_pipeline(address))
    from stream_trainer.joining.query import session_options  # noqa: PLC0415

    own = {"spark.driver.memory": settings.join.spark_driver_memory, **PROCESS_OPTIONS}
    spark = build_session(settings, f"{pipeline.name}-joiner", extra=own | session_options(settings))
    try:
        logger.info("settings %s: joining %s", settings.fingerprint(), pipeline.topics.predictions)
        with served_metrics(settings.join) as metrics:
            make_joiner(spark, pipeline, settings, stop, create_topics=create_topics, metrics=metrics).run()
    finally:
        stop_session(spark)


def make_joiner(
    spark: "SparkSession",
    pipeline: Pipeline,
    settings: Settings,
    stop: threading.Event,
    *,
    create_topics: bool,
    metrics: "Metrics | None" = None,
) -> "Joiner":
    """A joiner on a session that has been told `session_options`."""
    from stream_trainer.joining.joiner import Joiner  # noqa: PLC0415
    from stream_trainer.joining.query import JoinQuery  # noqa: PLC0415
    from stream_trainer.joining.writer import JoinWriter  # noqa: PLC0415
    from stream_trainer.kafka import Admin, topic_plans  # noqa: PLC0415

    def connect(wrote: Callable[[Any, Any], None]) -> "Joining":
        plans = topic_plans(pipeline.name, settings.kafka, joined=True)
        wanted = [plans[short] for short in ("predictions", "labels", "examples", "unmatched", "join_commits")]
        with Admin(settings.kafka) as admin:
            if create_topics:
                admin.create_missing(wanted)
            else:
                admin.require(plan.name for plan in wanted)
        query = JoinQuery(spark, pipeline, settings, JoinWriter(pipeline.topics, settings))
        return query.start(wrote, None if metrics is None else metrics.sized)

    retention = timedelta(hours=settings.kafka.retention_hours)
    doubt = None if pipeline.join is None else pipeline.join.doubt(retention)
    if doubt is not None:
        logger.warning("%s: %s", pipeline.name, doubt)
    joiner = Joiner(connect=connect, max_restarts=settings.join.max_restarts, stop=stop)
    if metrics is not None:
        joiner.wrote = metrics.wrote
    return joiner


@contextmanager
def served_metrics(settings: JoinSettings) -> "Iterator[Metrics | None]":
    """The joiner's metrics, answered over HTTP inside the block; None without a port or without the package."""
    if settings.metrics_port is None:
        yield None
        return
    with ExitStack() as stack:
        try:
            from infra.scraping import told  # noqa: PLC0415 - an extra
            from stream_trainer.joining.metrics import Metrics  # noqa: PLC0415

            metrics = Metrics()
            stack.enter_context(told(metrics.registry, "join", settings))
        except (ImportError, UsageError) as error:
            logger.warning("the joiner tells no metrics on port %d: %s", settings.metrics_port, error)
            yield None
            return
        yield metrics


class JoinerWatch(Beside):
    """Keeps a joiner running beside the trainer, in a session of its own on the trainer's Spark.

    One that is fenced stays away, since another joiner does its work.
    """

    def __init__(self, spark: "SparkSession", pipeline: Pipeline, settings: Settings, *, create_topics: bool) -> None:
        super().__init__("joiner")
        _joined(pipeline)
        session = joining_session(spark, settings)
        self._settings = settings.join
        self._metrics: Metrics | None = None
        self._make = partial(make_joiner, session, pipeline, settings, self._done, create_topics=create_topics)

    def _run(self) -> None:
        with served_metrics(self._settings) as self._metrics:
            super()._run()

    def _follow(self) -> None:
        try:
            self._make(metrics=self._metrics).run()
        except Fenced as error:
            logger.error("%s; the trainer goes on without a joiner of its own", error)  # noqa: TRY400
            self._done.set()


def joining_session(spark: "SparkSession", settings: Settings) -> "SparkSession":
    """A session on a Spark of others, which was started with `PROCESS_OPTIONS`."""
    from stream_trainer.joining.query import session_options  # noqa: PLC0415

    session = spark.newSession()
    for name, value in session_options(settings).items():
        session.conf.set(name, value)
    return session


def _joined(pipeline: Pipeline) -> Pipeline:
    if pipeline.join is None:
        raise UsageError(f"pipeline {pipeline.name!r} joins nothing: give it join=Join(…)")
    return pipeline
