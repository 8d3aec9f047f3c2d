"""`run`: one process that serves one pipeline until it is told to stop."""

import contextlib
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable, Iterator

import torch
import uvicorn

from serving.announcements import KafkaAnnouncements
from serving.app import create_app
from serving.clock import utc_now
from serving.follower import Follower
from serving.metrics import Metrics
from serving.prediction_log import PredictionLog, kafka_producer
from serving.trial import make_trial
from stream_trainer.errors import BrokerUnavailable, UsageError
from stream_trainer.kafka import Admin, topic_plans
from stream_trainer.loading import load_pipeline
from stream_trainer.pipeline import Pipeline
from stream_trainer.settings import Settings
from stream_trainer.store import open_store

logger = logging.getLogger(__name__)

_TOPICS = ("predictions", "models")
_GRACE_SECONDS = 10


def run(pipeline_address: str, settings: Settings, *, no_create: bool = False) -> int:
    """Serve until SIGTERM or SIGINT; 0 after a clean end.

    Args:
        pipeline_address: `module:attribute`.
        settings: where Kafka and the store are, and where to listen; port 0 takes a free one.
        no_create: refuse when a topic is missing instead of creating it.

    Raises:
        UsageError: the address is not loopback, is taken, or (with `no_create`) a topic is missing.
        BrokerUnavailable: no Kafka is configured. One that does not answer is no obstacle.
    """
    refuse_public(settings.serving.host)
    torch.set_num_threads(1)
    pipeline = load_pipeline(pipeline_address)
    if no_create:
        _require_topics(pipeline, settings)
    listener = listen(settings.serving.host, settings.serving.port)
    metrics = Metrics()
    log = PredictionLog(
        pipeline.contract,
        pipeline.topics.predictions,
        kafka_producer(settings),
        metrics,
        max_rows=settings.serving.prediction_queue,
    )
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
    )
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="off",
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    log.start()
    follower.start()
    trial.start()
    try:
        Server(config, lambda: _say(pipeline, settings, listener)).run(sockets=[listener])
    finally:
        trial.stop()
        follower.stop()
        log.close()
        listener.close()
    return 0


class Server(uvicorn.Server):
    """Uvicorn that says when it listens, and returns after a signal instead of raising it again."""

    def __init__(self, config: uvicorn.Config, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept, then say so."""
        await super().startup(sockets)
        if self.started:
            self._listening()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """What is queued for Kafka is written after the server ends, so a signal must not end the process."""
        signals = (signal.SIGINT, signal.SIGTERM)
        try:
            before = [signal.signal(number, self.handle_exit) for number in signals]
        except ValueError:  # not the main thread: whoever started this one stops it
            yield
            return
        try:
            yield
        finally:
            for number, handler in zip(signals, before, strict=True):
                signal.signal(number, handler)


def refuse_public(host: str) -> None:
    """Bind loopback only.

    Raises:
        UsageError: the host is reachable from elsewhere.
    """
    if host == "localhost":
        return
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return
    raise UsageError(
        f"serving on {host} would be open to anyone: there are no API keys yet, so only loopback is served; "
        "use --host 127.0.0.1 and put an authenticating proxy in front"
    )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        UsageError: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise UsageError(
            f"{host}:{port} cannot be bound: {error.strerror}; choose another --port, 0 for any"
        ) from error


def _say(pipeline: Pipeline, settings: Settings, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    docs = "" if settings.serving.profile == "production" else f", API docs at {url}/docs"
    print(f"serving {pipeline.name} at {url}/predict{docs}", flush=True)  # noqa: T201 - the one line of this command


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
