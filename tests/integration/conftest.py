from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from infra.broker import BrokerInfo
from tests.integration.world import World, make_world


@pytest.fixture
def world(spark: SparkSession, broker: BrokerInfo, tmp_path: Path) -> World:
    return make_world(spark, broker.bootstrap_servers, tmp_path)
