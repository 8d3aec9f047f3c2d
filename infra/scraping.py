"""`/metrics` of a process that serves nothing else, in a thread of its own; needs prometheus_client, which the extras bring."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server

from stream_trainer.errors import UsageError
from stream_trainer.settings import JoinSettings, MonitorSettings, TrainerSettings

logger = logging.getLogger(__name__)

Metered = TrainerSettings | JoinSettings | MonitorSettings


@contextmanager
def served(registry: CollectorRegistry, section: str, settings: Metered) -> Iterator[int]:
    """Answer `/metrics` for the length of the block; its port. `section` is the name of the settings, for the error.

    Raises:
        UsageError: the port cannot be had.
    """
    host, port = settings.metrics_host, settings.metrics_port or 0
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise UsageError(f"{section}.metrics_port: {host}:{port} cannot be had: {error}") from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def told(registry: CollectorRegistry, section: str, settings: Metered) -> Iterator[None]:
    """The same where a port is configured, and a line in the log that says where; without one, nothing.

    Raises:
        UsageError: the port cannot be had.
    """
    if settings.metrics_port is None:
        yield
        return
    with served(registry, section, settings) as port:
        logger.info("metrics of the %s on http://%s:%d/metrics", section, settings.metrics_host, port)
        yield
