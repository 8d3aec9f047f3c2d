"""`stream-trainer monitor PIPELINE`: a Spark session of its own, the monitor in it, and an orderly end."""

import logging
import signal
import threading

from stream_trainer.loading import load_pipeline
from stream_trainer.settings import Settings

_POLL_SECONDS = 0.5
_log = logging.getLogger(__name__)


def run(address: str, settings: Settings) -> None:
    """Watch a pipeline until SIGTERM or SIGINT; the micro-batch in hand is finished first.

    Raises:
        UsageError: the address names no pipeline.
        Exception: the query failed; a supervisor may start this again, its state is kept.
    """
    # Imported here: a wrong address is told before a JVM is started.
    from infra.scraping import told  # noqa: PLC0415
    from infra.spark import build_session, stop_session  # noqa: PLC0415
    from monitors.query import start_monitor  # noqa: PLC0415

    pipeline = load_pipeline(address)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
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
