"""`stream-trainer monitor PIPELINE`: a Spark session of its own, the monitor in it, and an orderly end."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from stream_trainer.errors import StreamTrainerError
from stream_trainer.loading import load_pipeline
from stream_trainer.pipeline import Pipeline
from stream_trainer.settings import Settings

_POLL_SECONDS = 0.5
_log = logging.getLogger(__name__)


def run(address: str, settings: Settings) -> None:
    """Watch a pipeline until SIGTERM or SIGINT; the micro-batch in hand is finished first.

    Raises:
        UsageError: the address names no pipeline, or the port of the page cannot be bound.
        Exception: the query failed; a supervisor may start this again, its state is kept.
    """
    pipeline = load_pipeline(address)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with page_served(pipeline, settings):
        # Imported here: a wrong address and a port in use are told before Spark is so much as looked at.
        from infra.scraping import told  # noqa: PLC0415
        from infra.spark import build_session, stop_session  # noqa: PLC0415
        from monitors.query import start_monitor  # noqa: PLC0415

        session = build_session(settings, f"{pipeline.name}-monitor")
        try:
            monitor = start_monitor(session, pipeline, settings)
            _log.info("watching %s, settings %s", pipeline.topics.predictions, settings.fingerprint())
            try:
                with told(monitor.metrics.registry, "monitor", settings.monitor):
                    while not stop.wait(_POLL_SECONDS):
                        monitor.check()
            finally:
                monitor.stop()
        finally:
            stop_session(session)


@contextmanager
def page_served(pipeline: Pipeline, settings: Settings) -> Iterator[None]:
    """The dashboard for the length of the block, if the settings have a port for it; it needs no Spark.

    Raises:
        UsageError: the port cannot be bound.
    """
    if settings.monitor.page_port is None:
        yield
        return
    from monitors.page.server import bound, served  # noqa: PLC0415 - who wants no page does not pay for one

    with bound(settings.monitor.page_host, settings.monitor.page_port) as address:
        from monitors.page.live import live_sources  # noqa: PLC0415
        from monitors.query import checkpoint_url  # noqa: PLC0415

        sources = live_sources(pipeline, settings, checkpoint_url(pipeline, settings))
        with served(address, sources, said=lambda url: _say(pipeline, url)):
            yield


@contextmanager
def page_beside(pipeline: Pipeline, settings: Settings) -> Iterator[None]:
    """The same beside something that matters more: what keeps it from starting is a warning."""
    with ExitStack() as stack:
        try:
            stack.enter_context(page_served(pipeline, settings))
        except (StreamTrainerError, OSError, ImportError) as error:
            _log.warning("there is no dashboard: %s", error)
        yield


def _say(pipeline: Pipeline, url: str) -> None:
    print(f"watching {pipeline.name}, dashboard at {url}", flush=True)  # noqa: T201 - the one line of this command
    _log.info("dashboard at %s", url)
