"""`run`: one process that serves one pipeline, and its admin port, until it is told to stop."""

import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from serving.access import ADMIN_PORT, PUBLIC, Gate
from serving.admin import create_admin
from serving.announcements import KafkaAnnouncements
from serving.app import create_app
from serving.clock import utc_now
from serving.follower import Follower
from serving.keys import KeyRing
from serving.metrics import Metrics
from serving.ports import Companion, Server, config_of, listen, open_ports, refuse_open, serve, url_of
from serving.prediction_log import PredictionLog, kafka_producer
from serving.tls import tls_context
from serving.trial import make_trial
from serving.workers import Peers, Worker
from stream_trainer.errors import BrokerUnavailable
from stream_trainer.kafka import Admin, topic_plans
from stream_trainer.loading import load_pipeline
from stream_trainer.pipeline import Pipeline
from stream_trainer.settings import ServingSettings, Settings
from stream_trainer.store import open_store

__all__ = ["Server", "listen", "run"]

logger = logging.getLogger(__name__)

_TOPICS = ("predictions", "models")
_MOST_ORDERS = 16


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
    metrics = Metrics()
    keys, tls = _keys(settings.serving, metrics), tls_context(settings.serving)
    with contextlib.ExitStack() as stack:
        public, admin = _listeners(settings.serving, stack, worker)
        peers = None if worker is None else Peers(worker, metrics)
        log = _prediction_log(pipeline, settings, metrics)
        source = KafkaAnnouncements(settings.kafka, pipeline.topics.models, _preparation(pipeline, settings, no_create))
        store = open_store(settings, pipeline.name)
        follower = Follower(
            pipeline,
            store,
            source,
            metrics,
            utc_now,
            poll_seconds=settings.serving.poll_seconds,
            versions_loaded=settings.serving.versions_loaded,
        )
        trial = make_trial(pipeline, settings, metrics, utc_now)
        app = create_app(
            pipeline,
            settings,
            log=log,
            follower=follower,
            metrics=metrics,
            store=store,
            challenger=lambda: trial.challenger,
            render=None if peers is None else peers.render,
        )
        ways = Ways(serving=settings.serving, keys=keys, metrics=metrics, tls=tls)
        orders = create_admin(store, follower, settings.kafka, look=source.hurry)
        companions = [] if admin is None else [(ways.admin(orders), admin)]
        said = _say if worker is None or worker.index == 0 else _nothing
        first = ways.public(
            app, lambda: said(pipeline, settings.serving, public, admin), [server for server, _ in companions]
        )
        for part in (log, follower, trial, keys, peers):
            if part is not None:
                stack.callback(part.close if isinstance(part, PredictionLog) else part.stop)
                part.start()
        serve([(first, public), *companions])
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """Who may come in, and how, to either port."""

    serving: ServingSettings
    keys: KeyRing | None
    metrics: Metrics
    tls: ssl.SSLContext | None

    def public(self, app: ASGIApp, listening: Callable[[], None], companions: Sequence[Server] = ()) -> Server:
        """The server of the public port, which its companions follow."""
        return Server(
            config_of(self.public_gate(app), self.serving, self.metrics),
            listening,
            tls=self.tls,
            handshake_seconds=self.serving.head_seconds,
            companions=companions,
        )

    def admin(self, app: ASGIApp) -> Server:
        """The server of the admin port."""
        return Companion(
            config_of(self.admin_gate(app), self.serving, self.metrics),
            lambda: None,
            tls=self.tls,
            handshake_seconds=self.serving.head_seconds,
        )

    def public_gate(self, app: ASGIApp) -> ASGIApp:
        """What stands in front of the public app. Preflights carry no key, so they are answered before the gate."""
        origins = self.serving.cors_origins
        most = self.serving.max_concurrent_requests
        gate = Gate(app, PUBLIC, keys=self.keys, metrics=self.metrics, most=most, origins=origins)
        if not origins:
            return gate
        return CORSMiddleware(
            gate,
            allow_origins=list(origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "x-api-key"],
            expose_headers=["retry-after"],
        )

    def admin_gate(self, app: ASGIApp) -> Gate:
        """What stands in front of the admin app; no other site's page may ask here."""
        return Gate(app, ADMIN_PORT, keys=self.keys, metrics=self.metrics, most=_MOST_ORDERS)


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


def _prediction_log(pipeline: Pipeline, settings: Settings, metrics: Metrics) -> PredictionLog:
    producer, most = kafka_producer(settings), settings.serving.prediction_queue
    return PredictionLog(pipeline.contract, pipeline.topics.predictions, producer, metrics, max_rows=most)


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
        plans = topic_plans(pipeline.name, settings.kafka)
        with Admin(settings.kafka) as admin:
            admin.create_missing(plans[short] for short in _TOPICS)

    return (lambda: None) if no_create else create_missing


def _require_topics(pipeline: Pipeline, settings: Settings) -> None:
    try:
        with Admin(settings.kafka) as admin:
            admin.require(f"{pipeline.name}.{short}" for short in _TOPICS)
    except BrokerUnavailable as error:
        logger.warning("topics could not be looked at: %s", error)
