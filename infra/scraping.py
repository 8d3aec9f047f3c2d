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
def told(registry: CollectorRegistry, section: str, settings: Metered) -> Iterator[int | None]:
    """Answer `/metrics` for the length of the block where a port is configured, and log where; without one, nothing.

    The block gets the port, or None. `section` is the name of the settings, for the log and the error.

    Raises:
        UsageError: the port cannot be had.
    """
    if settings.metrics_port is None:
        yield None
        return
    host = settings.metrics_host
    try:
        server, thread = start_http_server(settings.metrics_port, addr=host, registry=registry)
    except OSError as error:
        at = f"{host}:{settings.metrics_port}"
        raise UsageError(f"{section}.metrics_port: {at} cannot be had: {error}") from error
    try:
        logger.info("%s.metrics_port: metrics on http://%s:%d/metrics", section, host, server.server_port)
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
