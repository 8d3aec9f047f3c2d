"""A broker, a trainer and a service of the flights pipeline, as processes of their own, in a folder that goes away."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra import broker
from infra.local import start_local_broker
from infra.supervisor import Unit
from infra.units import serve_unit, train_unit, variables
from stream_trainer.kafka import Admin, topic_plans
from stream_trainer.settings import KafkaSettings, Settings, StoreSettings
from stream_trainer.topics import Topics
from tests.bench.processes import free_port, running

NAME = "flights"
ADDRESS = "examples.flights.pipeline:pipeline"
TOPICS = Topics(NAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What an outsider needs to know."""

    settings: Settings
    port: int


@contextmanager
def fresh_settings() -> Iterator[Settings]:
    """Settings for a folder of their own."""
    with tempfile.TemporaryDirectory(prefix="stream-trainer-bench-", ignore_cleanup_errors=True) as folder:
        own = {"data_dir": Path(folder), "store": StoreSettings(), "kafka": KafkaSettings()}
        yield Settings().model_copy(update=own)


@contextmanager
def world(*, with_monitor: bool) -> Iterator[World]:
    """Everything running; ended when the block ends, however it ends."""
    with fresh_settings() as alone:
        try:
            settings = with_broker(alone, NAME)
            port, logs = free_port(), settings.data_dir / "logs"
            serving = serve_unit(ADDRESS, settings, port, logs / "serving.log", admin_port=-1)
            with running([serving, _trainer(settings, logs / "trainer.log", with_monitor=with_monitor)]):
                yield World(settings=settings, port=port)
        finally:
            broker.stop(alone.broker_dir)


def with_broker(settings: Settings, *pipelines: str) -> Settings:
    """A broker started here, with the topics of pipelines; whoever starts it stops it."""
    info = start_local_broker(settings, detach=False)
    kafka = KafkaSettings(bootstrap_servers=info.bootstrap_servers)
    with Admin(kafka) as admin:
        for name in pipelines:
            admin.create_missing(topic_plans(name, kafka).values())
    return settings.model_copy(update={"kafka": kafka})


def _trainer(settings: Settings, log: Path, *, with_monitor: bool) -> Unit:
    if with_monitor:
        return train_unit(ADDRESS, settings, log)
    arguments = ["train", ADDRESS]
    return Unit(
        name="trainer", module="stream_trainer.cli", arguments=arguments, variables=variables(settings), log=log
    )
