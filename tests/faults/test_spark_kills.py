"""F01, F02 with real Spark and the real broker: killed anywhere, a lineage ends bit for bit as an undisturbed one."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from infra.broker import BrokerInfo
from stream_trainer.testing import crash_points
from tests.faults import spark_kills


@pytest.mark.timeout(600)
def test_f01_killed_at_the_points_that_matter_most_it_ends_as_undisturbed(
    broker: BrokerInfo, spark: SparkSession, tmp_path: Path
) -> None:
    outcome = spark_kills.run(broker.bootstrap_servers, tmp_path, spark_kills.few_points(), spark)
    assert outcome.versions >= 20


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_f01_killed_once_at_every_point_it_ends_as_undisturbed(broker: BrokerInfo, tmp_path: Path) -> None:
    outcome = spark_kills.run(broker.bootstrap_servers, tmp_path, spark_kills.every_point())
    assert outcome.versions >= 20


def test_what_is_covered_elsewhere_exists_and_says_where() -> None:
    assert set(spark_kills.ELSEWHERE) <= set(crash_points())
    for where in spark_kills.ELSEWHERE.values():
        file, name = where.split("::")
        assert f"def {name}(" in Path(file).read_text(), where
