"""The local broker for commands that have no Kafka configured."""

import logging

from infra import broker
from infra.broker import BrokerInfo
from infra.jars import ensure_jars
from infra.java import find_java
from stream_trainer.settings import Settings

logger = logging.getLogger(__name__)


def start_local_broker(settings: Settings, *, detach: bool = True) -> BrokerInfo:
    """Find the broker of `settings.broker_dir`, or start it; `detach=False` ties it to this process."""
    found = broker.status(settings.broker_dir)
    if found is not None:
        return found
    java = find_java(settings.cache_dir)
    jars = ensure_jars(settings, "kafka", report=logger.info)
    info = broker.start(settings.broker_dir, java, jars, detach=detach)
    logger.info("no Kafka is configured: using the local one at %s", info.bootstrap_servers)
    return info
