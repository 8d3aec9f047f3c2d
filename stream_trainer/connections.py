"""The outside of a real trainer: Kafka clients, the Spark reader and the store, opened together and closed together."""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self, TypeVar

from stream_trainer.action_log import KafkaRequests
from stream_trainer.errors import BrokerUnavailable, InputLost, Retryable
from stream_trainer.kafka import Admin, ControlProducer, Log, topic_plans
from stream_trainer.meanwhile import meanwhile
from stream_trainer.outbox import KafkaOutbox
from stream_trainer.outside import Source
from stream_trainer.pipeline import Pipeline
from stream_trainer.query import ExamplesReader
from stream_trainer.settings import Settings
from stream_trainer.source import KafkaSource
from stream_trainer.store import Version, open_store

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_Part = TypeVar("_Part", Admin, Log, ControlProducer, KafkaRequests)

logger = logging.getLogger(__name__)


class Connections:
    """See `outside.Outside`."""

    def __init__(
        self, pipeline: Pipeline, settings: Settings, spark: "SparkSession", *, create_topics: bool = True
    ) -> None:
        self.run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
        self.monotonic = time.monotonic
        self.store = open_store(settings, pipeline.name)
        self._settings = settings
        self._topic = pipeline.topics.examples
        self._open: list[Admin | Log | ControlProducer | KafkaRequests] = []
        try:
            admin = self._admin(pipeline, create_topics=create_topics)
            log = self._kept(Log(settings.kafka))
            producer = self._kept(ControlProducer(settings.kafka))
            self.requests = self._kept(KafkaRequests(settings.kafka, pipeline.topics.actions, admin))
        except BaseException:
            self._close()
            raise
        self._client = admin
        self.source = KafkaSource(self._topic, admin, log)
        self.outbox = KafkaOutbox(pipeline.topics, producer, admin, self.store)
        self.feed = ExamplesReader(spark, pipeline.contract, self._topic, settings)

    def clock(self) -> datetime:
        """The present instant, UTC."""
        return datetime.now(UTC)

    @contextmanager
    def heartbeat(self, covered: Callable[[Source], Version | None]) -> Iterator[None]:
        """See `outside.Outside.heartbeat`: staleness is measured from the newest such word.

        So quiet nights and replayed history do not count as stale.
        """
        log = Log(self._settings.kafka)
        source = KafkaSource(self._topic, self._client, log)

        def beat(done: threading.Event) -> None:
            while not done.wait(self._settings.trainer.announce_idle_seconds):
                asked_at = self.clock()
                try:
                    version = covered(source)
                    if version is not None:
                        self.outbox.announce(version, asked_at)
                except (Retryable, InputLost) as error:
                    logger.warning("no word of freshness: %s", error)

        try:
            with meanwhile(beat, "heartbeat"):
                yield
        finally:
            log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _admin(self, pipeline: Pipeline, *, create_topics: bool) -> Admin:
        admin = self._kept(Admin(self._settings.kafka))
        plans = topic_plans(pipeline.name, self._settings.kafka)
        if create_topics:
            admin.create_missing(plans.values())
        else:
            admin.require(plan.name for plan in plans.values())
        return admin

    def _kept(self, part: _Part) -> _Part:
        self._open.append(part)
        return part

    def _close(self) -> None:
        for part in reversed(self._open):
            try:
                part.close()
            except BrokerUnavailable as error:
                logger.warning("closing: %s", error)
        self._open.clear()
