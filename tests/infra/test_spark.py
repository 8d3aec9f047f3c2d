"""The session as the project uses it: the Kafka connector, Arrow in Python workers, and an end that leaves nothing."""

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic
from pyspark.sql import SparkSession

from infra import spark as spark_sessions
from infra.broker import BrokerInfo


def _upper(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    import pyarrow.compute as pc

    for batch in batches:
        yield pa.record_batch([pc.utf8_upper(pc.cast(batch.column("value"), pa.string()))], names=["value"])


def test_python_workers_read_a_topic_through_the_connector(spark: SparkSession, broker: BrokerInfo) -> None:
    topic = "connector"
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    admin.create_topics([NewTopic(topic, 2, 1)])
    admin.wait_for_topics([topic])
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers)
    for number in range(10):
        producer.send(topic, f"row {number}".encode(), partition=number % 2)
    producer.close()
    admin.close()

    rows = (
        spark.read.format("kafka")
        .option("kafka.bootstrap.servers", broker.bootstrap_servers)
        .option("subscribe", topic)
        .load()
        .select("value")
        .mapInArrow(_upper, "value string")
        .collect()
    )

    assert sorted(row.value for row in rows) == [f"ROW {number}" for number in range(10)]


def test_workers_are_forked_from_our_daemon_and_import_the_project(spark: SparkSession) -> None:
    def where(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import sys

        import stream_trainer.errors

        names = [str(getattr(sys.modules["__main__"].__spec__, "name", None)), stream_trainer.errors.__name__]
        for batch in batches:
            yield pa.record_batch([pa.array([",".join(names)] * batch.num_rows)], names=["name"])

    rows = spark.range(1).mapInArrow(where, "name string").collect()

    ours = spark.sparkContext.getConf().get("spark.python.daemon.module", "")
    assert ours in {"stream_trainer.worker_daemon", "stream_trainer.joining.worker_daemon"}
    assert rows[0].name == f"{ours},stream_trainer.errors"


def test_the_first_worker_of_a_stateful_query_prints_nothing_and_others_do(tmp_path: Path) -> None:
    python = spark_sessions._worker_python(tmp_path)
    assert Path(python).parent == tmp_path
    (tmp_path / "streaming").mkdir()
    for name in (spark_sessions._CHATTY, "other"):
        (tmp_path / "streaming" / f"{name}.py").write_text(
            "import sys; print(sys.argv[1]); print('no', file=sys.stderr)"
        )
    said = {}
    for name in (spark_sessions._CHATTY, "other"):
        command = [python, "-m", f"streaming.{name}", "two words"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        said[name] = (done.stdout, done.stderr)
    assert said == {spark_sessions._CHATTY: ("", "no\n"), "other": ("two words\n", "no\n")}
    assert find_spec(f"pyspark.sql.streaming.{spark_sessions._CHATTY}") is not None


def test_the_session_is_utc_and_small(spark: SparkSession) -> None:
    assert spark.conf.get("spark.sql.session.timeZone") == "UTC"
    assert spark.conf.get("spark.ui.enabled") == "false"
    assert spark.sparkContext.uiWebUrl is None


_DRIVER = """
    import os, sys, time
    from infra.spark import build_session, stop_session
    from stream_trainer.settings import Settings

    session = build_session(Settings(), "driver")
    assert session.range(10).mapInArrow(lambda batches: batches, "id long").count() == 10
    print(session.sparkContext.getConf().get("spark.local.dir"), flush=True)
    if sys.argv[1] == "wait":
        time.sleep(600)
    if sys.argv[1] == "lose":
        session.sparkContext._gateway.proc.kill()
        session.sparkContext._gateway.proc.wait()
    stop_session(session)
"""


@pytest.mark.spark
@pytest.mark.parametrize("how", ["stop", "lose"])
def test_stopping_leaves_no_process_no_folder_and_no_noise(how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_DRIVER), how],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    assert done.stderr == ""
    assert not Path(done.stdout.strip()).exists()


@pytest.mark.spark
def test_the_jvm_ends_when_the_driver_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(_DRIVER), "wait"], stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        driver.stdout.readline()
        children = psutil.Process(driver.pid).children(recursive=True)
        assert any("java" in child.name() for child in children)
        driver.kill()

    _, alive = psutil.wait_procs(children, timeout=30)
    assert [child.name() for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []
