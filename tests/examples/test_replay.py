"""The command: flags, Kafka at start, signals and the summary."""

import json
import signal

import pytest

from examples.flights import replay
from examples.flights.data import Timeline
from examples.flights.replayer import Producer
from stream_trainer.api_keys import VARIABLE
from stream_trainer.errors import BrokerUnavailable, UsageError
from stream_trainer.settings import KafkaSettings
from tests.examples.doubles import FakeKafka
from tests.security.test_webhook import plain, receiver


def test_an_unreachable_broker_is_said_before_anything_is_asked() -> None:
    settings = KafkaSettings(bootstrap_servers="127.0.0.1:1", request_timeout_seconds=0.2)
    with pytest.raises(BrokerUnavailable, match="is the broker up"):
        replay._connect(settings, "flights.labels")


class SignalsAtFirstPoll(FakeKafka):
    """Sends this process a signal with the first poll."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__()
        self._number = number
        self._sent = False

    def poll(self, timeout: float) -> int:
        if not self._sent:
            self._sent = True
            signal.raise_signal(self._number)
        return super().poll(timeout)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_prints_one_line_and_exits_zero(
    timeline: Timeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    monkeypatch.setattr(replay, "load_timeline", lambda: timeline)
    kafka = SignalsAtFirstPoll(number)

    def connect(settings: KafkaSettings, topic: str) -> Producer:
        assert topic == "flights.labels"
        assert settings.bootstrap_servers == "127.0.0.1:9"
        return kafka

    code = replay.main(
        ["--bootstrap-servers", "127.0.0.1:9", "--predict-url", "http://127.0.0.1:1/predict"], connect=connect
    )
    assert code == 0
    assert kafka.flushed
    summary = capsys.readouterr().out.splitlines()
    assert len(summary) == 1
    assert json.loads(summary[0])["undelivered"] == 0


def test_the_producer_loses_nothing_and_partitions_as_java_does() -> None:
    options = replay.producer_options(KafkaSettings(bootstrap_servers="127.0.0.1:9092"))
    assert options["partitioner"] == "murmur2_random"
    assert options["acks"] == "all"
    assert options["enable.idempotence"] is True
    assert options["bootstrap.servers"] == "127.0.0.1:9092"


def test_without_kafka_the_command_says_so() -> None:
    with pytest.raises(UsageError, match="--bootstrap-servers"):
        replay._connect(KafkaSettings(), "flights.labels")


@pytest.mark.parametrize("flags", [["--speed", "0"], ["--start", "soon"], ["--max-flights", "0"], ["--for", "-1"]])
def test_unusable_flags_are_refused(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        replay.parse(flags)
    assert refused.value.code == 2
    assert flags[0] in capsys.readouterr().err


@pytest.mark.parametrize("key", [None, "st_of_the_replayer"])
def test_a_key_in_the_environment_is_shown_to_the_service(
    timeline: Timeline, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    monkeypatch.setattr(replay, "load_timeline", lambda: timeline)
    monkeypatch.delenv(VARIABLE, raising=False)
    if key is not None:
        monkeypatch.setenv(VARIABLE, key)
    with receiver(plain(401)) as service:
        kafka = ["--bootstrap-servers", "127.0.0.1:9"]
        flights = ["--max-flights", "3", "--speed", "1e7", "--predict-url", service.url]
        assert replay.main([*kafka, *flights], connect=lambda *_: FakeKafka()) == 0
    assert {headers.get("x-api-key") for _, headers, _ in service.got} == {key}
