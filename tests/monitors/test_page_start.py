"""How the dashboard begins: ports, options, and alerts of a real Kafka."""

import subprocess
import sys
import uuid
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import httpx
import pytest

from infra.broker import BrokerInfo
from monitors.alert_log import KafkaAlerts, open_alerts
from monitors.main import page_beside, page_served
from monitors.page.live import AlertTail
from monitors.page.server import bound
from stream_trainer.errors import BrokerUnavailable
from stream_trainer.kafka import Admin, ControlProducer, topic_plans
from stream_trainer.settings import KafkaSettings, MonitorSettings, environment
from tests.monitors.worlds import pipeline, settings

ADDRESS = "examples.flights.pipeline:pipeline"


def monitor(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stream_trainer.cli", "monitor", ADDRESS, *arguments]
    variables = {**environment(), "STREAM_TRAINER_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    return subprocess.run(command, capture_output=True, text=True, env=variables, check=False)


def test_a_port_in_use_ends_the_command_before_anything_is_started() -> None:
    with bound("127.0.0.1", 0) as taken:
        port = taken.listener.getsockname()[1]
        done = monitor("--port", str(port))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: the page cannot be served at 127.0.0.1:{port}: ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_no_page_goes_with_no_port() -> None:
    done = monitor("--no-page", "--port", "0")
    assert done.returncode == 2
    assert done.stderr.strip() == "error: --no-page goes with neither --host nor --port"


def test_the_page_is_there_for_the_length_of_the_block_with_or_without_kafka(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> AbstractContextManager[KafkaAlerts]:
        raise BrokerUnavailable("Kafka does not answer")

    monkeypatch.setattr("monitors.page.live.open_alerts", away)
    with page_served(pipeline("flights"), settings(tmp_path, monitor=MonitorSettings(page_port=0))):
        url = capsys.readouterr().out.split()[-1]
        assert httpx.get(f"{url}api/state").json()["pipeline"] == "flights"
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_without_a_port_there_is_no_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of = settings(tmp_path, monitor=MonitorSettings(page_port="none"))
    with page_served(pipeline("flights"), of):
        assert capsys.readouterr().out == ""


def test_beside_training_a_port_in_use_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with bound("127.0.0.1", 0) as taken:
        port = taken.listener.getsockname()[1]
        with page_beside(pipeline("flights"), settings(tmp_path, monitor=MonitorSettings(page_port=port))):
            pass
    assert f"there is no dashboard: the page cannot be served at 127.0.0.1:{port}" in caplog.text


def test_alerts_of_a_real_topic_are_followed(broker: BrokerInfo) -> None:
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
    name = f"page-{uuid.uuid4().hex[:8]}"
    plan = topic_plans(name, kafka)["alerts"]
    with Admin(kafka) as admin:
        admin.create_missing([plan])
    tail = AlertTail(partial(open_alerts, kafka, plan.name))
    producer = ControlProducer(kafka)
    try:
        assert list(tail.newest()) == []
        producer.send(plan.name, [("drift/a", {"status": "opened"}), ("drift/b", {"status": "opened"})])
        assert {one.alert_key for one in tail.newest() if one.open} == {"drift/a", "drift/b"}
        producer.send(plan.name, [("drift/a", {"status": "resolved"})])
        assert {one.alert_key for one in tail.newest() if one.open} == {"drift/b"}
    finally:
        tail.close()
        producer.close()
