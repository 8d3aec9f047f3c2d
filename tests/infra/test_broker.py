"""A real Kafka: start, find again, survive a crash, stop."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

from infra import broker as local_broker
from infra.broker import BrokerInfo
from infra.broker_probe import READY_TOPIC
from infra.jars import ensure_jars
from infra.java import Java, find_java
from stream_trainer.errors import SetupError
from stream_trainer.settings import Settings

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def java() -> Java:
    return find_java(Settings().cache_dir)


@pytest.fixture(scope="module")
def jars() -> list[Path]:
    return ensure_jars(Settings(), "kafka")


def test_records_up_to_16_mib_pass_and_no_topic_is_left_by_the_start(broker: BrokerInfo) -> None:
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    assert READY_TOPIC not in admin.list_topics()
    admin.create_topics([NewTopic("large", 1, 1)])
    admin.wait_for_topics(["large"])
    admin.close()
    size = 16 * 2**20 - 1024

    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, max_request_size=2 * size)
    assert producer.send("large", b"x" * size).get(30).offset == 0
    producer.close()


def test_a_second_start_finds_the_first(broker: BrokerInfo, java: Java) -> None:
    assert local_broker.start(broker.folder, java, []) == broker
    assert local_broker.status(broker.folder) == broker


def test_a_killed_broker_comes_back_on_its_ports_with_its_records(tmp_path: Path, java: Java, jars: list[Path]) -> None:
    first = local_broker.start(tmp_path, java, jars, detach=False)
    admin = KafkaAdminClient(bootstrap_servers=first.bootstrap_servers)
    admin.create_topics([NewTopic("kept", 1, 1)])
    admin.wait_for_topics(["kept"])
    admin.close()
    producer = KafkaProducer(bootstrap_servers=first.bootstrap_servers)
    producer.send("kept", b"record").get(10)
    producer.close()
    os.kill(first.pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(first.pid)], timeout=10)
    assert local_broker.status(tmp_path) is None

    second = local_broker.start(tmp_path, java, jars, detach=False)
    consumer = KafkaConsumer(bootstrap_servers=second.bootstrap_servers)
    end = consumer.end_offsets([TopicPartition("kept", 0)])
    consumer.close()

    assert local_broker.stop(tmp_path)
    assert second.port == first.port
    assert list(end.values()) == [1]
    assert not psutil.pid_exists(second.pid)
    assert not local_broker.stop(tmp_path)


def test_a_broker_that_dies_at_start_shows_the_end_of_its_log(tmp_path: Path, java: Java, jars: list[Path]) -> None:
    local_broker.start(tmp_path, java, jars, detach=False)
    local_broker.stop(tmp_path)
    meta = tmp_path / "data" / "meta.properties"
    meta.write_text(meta.read_text().replace("node.id=1", "node.id=7"))

    with pytest.raises(SetupError, match=r"(?s)ended at start.*node"):
        local_broker.start(tmp_path, java, jars, detach=False)

    assert local_broker.status(tmp_path) is None


def test_the_commands_start_one_that_outlives_them(tmp_path: Path) -> None:
    def command(action: str) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-m", "infra.commands", "broker", action, "--data-dir", str(tmp_path), "--json"]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.run(arguments, capture_output=True, text=True, timeout=90, check=False, env=env)

    assert command("status").returncode == 1
    started = json.loads(command("start").stdout)
    found = command("status")
    stopped = command("stop")

    assert found.returncode == 0
    assert json.loads(found.stdout) == started
    assert json.loads(stopped.stdout) == {"stopped": True}
    assert command("status").returncode == 1


OWNER = """
import pathlib, sys, threading
from infra import broker
from infra.jars import ensure_jars
from infra.java import find_java
from stream_trainer.settings import Settings
info = broker.start(pathlib.Path(sys.argv[1]), find_java(Settings().cache_dir), ensure_jars(Settings(), "kafka"), detach=False)
print(info.pid, flush=True)
threading.Event().wait()
"""


def test_a_broker_whose_owner_is_killed_ends_once_nobody_uses_it(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        try:
            pid = int(owner.stdout.readline())
            process = psutil.Process(pid)
            info = local_broker.status(tmp_path)
            assert info is not None
            consumer = KafkaConsumer(bootstrap_servers=info.bootstrap_servers)
            owner.kill()
            owner.wait(20)
            guards = [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in (p.info["cmdline"] or ())]
            assert guards
            assert consumer.topics() is not None
            assert process.is_running()
            consumer.close()
            psutil.wait_procs([process, *guards], timeout=120)
            assert not process.is_running()
            assert not any(guard.is_running() for guard in guards)
        finally:
            owner.kill()
            local_broker.stop(tmp_path)
