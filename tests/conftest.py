"""One broker and one Spark for all tests that ask for them; whoever does is marked `spark` by asking."""

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings as hypothesis_settings

from infra import broker as local_broker
from infra.broker import BrokerInfo
from infra.jars import ensure_jars
from infra.java import find_java
from stream_trainer.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# How long an example takes depends on what else the machine does: no timed assertions.
hypothesis_settings.register_profile("untimed", deadline=None)
hypothesis_settings.load_profile("untimed")

pytest.register_assert_rewrite(
    "tests.faults.spark_scene", "tests.faults.spark_kills", "tests.faults.soak", "tests.faults.joining"
)

NEEDS_A_JVM = {"broker", "spark"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak-seconds", type=float, default=60.0, help="how long the soak test disturbs")
    parser.addoption("--soak-seed", type=int, default=1, help="what its schedule of kills is drawn from")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if NEEDS_A_JVM & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.spark)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Commands set up logging for their process; in a test that handler would write to a stream that is closed later."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerInfo]:
    """A real Kafka on free ports; topics are the test's own affair, so name them uniquely."""
    settings = Settings()
    folder = tmp_path_factory.mktemp("broker")
    java = find_java(settings.cache_dir)
    yield local_broker.start(folder, java, ensure_jars(settings, "kafka"), detach=False)
    local_broker.stop(folder)


@pytest.fixture(scope="session")
def spark() -> "Iterator[SparkSession]":
    """A real Spark with the Kafka connector, in which a joiner may run too."""
    from infra.joining import PROCESS_OPTIONS
    from infra.spark import build_session, stop_session

    session = build_session(Settings(), "tests", extra=PROCESS_OPTIONS)
    yield session
    stop_session(session)
