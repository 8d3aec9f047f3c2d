"""`run`: one process that serves one pipeline, and its admin port, until it is told to stop."""

import contextlib
import gc
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from fastapi import FastAPI

from serving.admin import create_admin
from serving.announcements import KafkaAnnouncements
from serving.app import create_app
from serving.clock import utc_now
from serving.feedback import KafkaLabels
from serving.follower import Follower
from serving.keys import KeyRing
from serving.metrics import Metrics
from serving.page.state import Process
from serving.ports import open_ports, refuse_open, serve, signals_restored, url_of
from serving.prediction_log import PredictionLog, kafka_producer
from serving.telemetry import open_tracing
from serving.tls import tls_context
from serving.trial import Trial, make_trial
from serving.ways import Ways
from serving.workers import Peers, Worker
from stream_trainer.errors import BrokerUnavailable
from stream_trainer.kafka import Admin, topic_plans
from stream_trainer.loading import load_pipeline
from stream_trainer.pipeline import Pipeline
from stream_trainer.settings import ServingSettings, Settings
from stream_trainer.store import ModelStore, open_store

if TYPE_CHECKING:
    from serving.tracing import Tracing

# New containers until they are looked through for cycles, of which requests make none; Python's 700 are a few requests.
_GARBAGE = 20_000

logger = logging.getLogger(__name__)

_TOPICS = ("predictions", "models")


def run(pipeline_address: str, settings: Settings, *, no_create: bool = False, worker: Worker | None = None) -> int:
    """Serve until SIGTERM or SIGINT; 0 after a clean end.

    Args:
        pipeline_address: `module:attribute`.
        settings: where Kafka and the store are, where to listen and who may ask; port 0 takes a free one.
        no_create: refuse when a topic is missing instead of creating it.
        worker: which of several this is; it takes over the listening sockets that it was handed.

    Raises:
        UsageError: a port would be open to anyone, cannot be bound or has no usable keys or certificate, or (with
            `no_create`) a topic is missing.
        BrokerUnavailable: no Kafka is configured. One that does not answer is no obstacle.
    """
    refuse_open(settings.serving)
    if worker is not None:
        worker.end_with_parent()
    torch.set_num_threads(1)
    pipeline = load_pipeline(pipeline_address)
    if no_create:
        _require_topics(pipeline, settings)
    tls = tls_context(settings.serving)
    with signals_restored(), contextlib.ExitStack() as stack:
        public, admin = _listeners(settings.serving, stack, worker)
        parts = _make_parts(pipeline, settings, _preparation(pipeline, settings, no_create), worker)
        ways = Ways(serving=settings.serving, keys=parts.keys, metrics=parts.metrics, tls=tls)
        orders = create_admin(parts.store, parts.follower, settings.kafka, look=parts.source.hurry)
        companions = [] if admin is None else [(ways.admin(orders), admin)]
        said = _say if worker is None or worker.index == 0 else _nothing
        app = _app(pipeline_address, pipeline, settings, parts, worker)
        first = ways.public(
            app,
            lambda: said(pipeline, settings.serving, public, admin),
            [server for server, _ in companions],
        )
        parts.start(stack)
        stack.callback(app.state.answering.close)  # before the log that it writes to
        gc.collect()
        gc.set_threshold(_GARBAGE)
        gc.freeze()  # torch alone is half a million objects: looking through them stops every request for a tenth of a second
        serve([(first, public), *companions])
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What lives as long as the process."""

    metrics: Metrics
    log: PredictionLog
    source: KafkaAnnouncements
    store: ModelStore
    follower: Follower
    trial: Trial
    tracing: "Tracing | None"
    keys: KeyRing | None
    peers: Peers | None
    labels: KafkaLabels | None

    def start(self, stack: contextlib.ExitStack) -> None:
        """Begin, and have the stack end what has begun, the last first: the log, which alone holds what cannot be had again."""
        if self.tracing is not None:
            stack.callback(self.tracing.close)
            self.follower.on_swap(self.tracing.swapped)
        for part in (self.follower, self.trial, self.keys, self.peers):
            if part is not None:
                stack.callback(part.stop)
                part.start()
        if self.labels is not None:
            stack.callback(self.labels.close)
        stack.callback(self.log.close)
        self.log.start()


def _make_parts(pipeline: Pipeline, settings: Settings, prepare: Callable[[], None], worker: Worker | None) -> _Parts:
    metrics, serving = Metrics(), settings.serving
    producer = kafka_producer(settings)
    source = KafkaAnnouncements(settings.kafka, pipeline.topics.models, prepare)
    store = open_store(settings, pipeline.name)
    follower = Follower(
        pipeline,
        store,
        source,
        metrics,
        utc_now,
        poll_seconds=serving.poll_seconds,
        swap_every_seconds=serving.swap_every_seconds,
        versions_loaded=serving.versions_loaded,
    )
    return _Parts(
        metrics=metrics,
        log=PredictionLog(
            pipeline.contract, pipeline.topics.predictions, producer, metrics, max_rows=serving.prediction_queue
        ),
        source=source,
        store=store,
        follower=follower,
        trial=make_trial(pipeline, settings, metrics, utc_now),
        tracing=open_tracing(serving, pipeline.name, metrics),
        keys=_keys(serving, metrics),
        peers=None if worker is None else Peers(worker, metrics),
        labels=None if pipeline.join is None else KafkaLabels(pipeline.topics.labels, settings),
    )


def _app(address: str, pipeline: Pipeline, settings: Settings, parts: _Parts, worker: Worker | None) -> FastAPI:
    return create_app(
        pipeline,
        settings,
        log=parts.log,
        follower=parts.follower,
        metrics=parts.metrics,
        store=parts.store,
        challenger=lambda: parts.trial.challenger,
        address=address,
        tracing=parts.tracing,
        labels=parts.labels,
        render=None if parts.peers is None else parts.peers.render,
        worker=None if worker is None else Process(number=worker.index + 1, count=worker.count),
    )


def _listeners(
    serving: ServingSettings, stack: contextlib.ExitStack, worker: Worker | None
) -> tuple[socket.socket, socket.socket | None]:
    """The public port and the admin port, if there is one: a worker's are its parent's."""
    if worker is None:
        public, *admin = stack.enter_context(open_ports(serving))
    else:
        public, *admin = [stack.enter_context(handed) for handed in worker.sockets()]
    return public, admin[0] if admin else None


def _keys(serving: ServingSettings, metrics: Metrics) -> KeyRing | None:
    if serving.keys_file is None:
        return None
    return KeyRing(serving.keys_file, metrics, rate=serving.rate_per_second, burst=serving.rate_burst)


def _say(pipeline: Pipeline, serving: ServingSettings, public: socket.socket, admin: socket.socket | None) -> None:
    tls = serving.tls_certfile is not None
    url = url_of(public, tls=tls)
    docs = "" if serving.profile == "production" else f", API docs at {url}/docs"
    orders = "" if admin is None else f", admin at {url_of(admin, tls=tls)}"
    print(f"serving {pipeline.name} at {url}/predict{docs}{orders}", flush=True)  # noqa: T201 - the one line of this command


def _nothing(*_: object) -> None:
    """The first worker speaks for all."""


def _preparation(pipeline: Pipeline, settings: Settings, no_create: bool) -> Callable[[], None]:
    def create_missing() -> None:
        plans = topic_plans(pipeline.name, settings.kafka, joined=True)
        with Admin(settings.kafka) as admin:
            admin.create_missing(plans[short] for short in _topics(pipeline))

    return (lambda: None) if no_create else create_missing


def _topics(pipeline: Pipeline) -> tuple[str, ...]:
    return _TOPICS if pipeline.join is None else (*_TOPICS, "labels")


def _require_topics(pipeline: Pipeline, settings: Settings) -> None:
    try:
        with Admin(settings.kafka) as admin:
            admin.require(f"{pipeline.name}.{short}" for short in _topics(pipeline))
    except BrokerUnavailable as error:
        logger.warning("topics could not be looked at: %s", error)
