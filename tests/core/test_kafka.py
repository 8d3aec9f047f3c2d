import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Producer
from hypothesis import given
from hypothesis import strategies as st
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError
from pydantic import SecretStr

from stream_trainer.errors import BrokerUnavailable
from stream_trainer.kafka import (
    Admin,
    ControlProducer,
    Log,
    _jaas,
    client_options,
    committed_reader,
    librdkafka_options,
    reached,
    spark_options,
    topic_plans,
)
from stream_trainer.settings import KafkaSettings

PASSWORD = 'p"w\\d; x'
PLAIN = KafkaSettings(bootstrap_servers="one:9092,two:9093")
SASL = KafkaSettings(
    bootstrap_servers="one:9092",
    security_protocol="SASL_PLAINTEXT",
    sasl_mechanism="SCRAM-SHA-512",
    sasl_username="trainer",
    sasl_password=SecretStr(PASSWORD),
)


@pytest.fixture
def tls(tmp_path: Path) -> KafkaSettings:
    for name in ("ca", "cert", "key"):
        (tmp_path / f"{name}.pem").write_text(f"the {name}")
    return KafkaSettings(
        bootstrap_servers="one:9092",
        security_protocol="SSL",
        ssl_cafile=tmp_path / "ca.pem",
        ssl_certfile=tmp_path / "cert.pem",
        ssl_keyfile=tmp_path / "key.pem",
        ssl_key_password=SecretStr("kp"),
    )


def test_without_bootstrap_servers_the_message_says_what_to_do() -> None:
    for options in (client_options, librdkafka_options, spark_options):
        with pytest.raises(BrokerUnavailable, match="BOOTSTRAP_SERVERS"):
            options(KafkaSettings())


def test_plain_settings_carry_no_security_beyond_the_protocol() -> None:
    assert client_options(PLAIN)["bootstrap_servers"] == ["one:9092", "two:9093"]
    assert librdkafka_options(PLAIN)["bootstrap.servers"] == "one:9092,two:9093"
    assert spark_options(PLAIN) == {
        "kafka.bootstrap.servers": "one:9092,two:9093",
        "kafka.security.protocol": "PLAINTEXT",
        "kafka.isolation.level": "read_committed",
    }
    for options in (client_options(PLAIN), librdkafka_options(PLAIN)):
        assert not [name for name in options if name.startswith(("sasl", "ssl"))]


def test_sasl_reaches_all_three_clients() -> None:
    python = client_options(SASL)
    assert (python["security_protocol"], python["sasl_mechanism"]) == ("SASL_PLAINTEXT", "SCRAM-SHA-512")
    assert (python["sasl_plain_username"], python["sasl_plain_password"]) == ("trainer", PASSWORD)
    c = librdkafka_options(SASL)
    assert c["security.protocol"] == "SASL_PLAINTEXT"
    assert (c["sasl.mechanism"], c["sasl.username"], c["sasl.password"]) == ("SCRAM-SHA-512", "trainer", PASSWORD)
    java = spark_options(SASL)
    assert java["kafka.sasl.mechanism"] == "SCRAM-SHA-512"
    assert java["kafka.sasl.jaas.config"] == (
        'org.apache.kafka.common.security.scram.ScramLoginModule required username="trainer" password="p\\"w\\\\d; x";'
    )
    plain = SASL.model_copy(update={"sasl_mechanism": "PLAIN"})
    assert ".plain.PlainLoginModule required" in spark_options(plain)["kafka.sasl.jaas.config"]


def test_tls_reaches_all_three_clients(tls: KafkaSettings) -> None:
    python = client_options(tls)
    assert {k: v for k, v in python.items() if k.startswith("ssl")} == {
        "ssl_cafile": str(tls.ssl_cafile),
        "ssl_certfile": str(tls.ssl_certfile),
        "ssl_keyfile": str(tls.ssl_keyfile),
        "ssl_password": "kp",
    }
    c = librdkafka_options(tls)
    assert {k: v for k, v in c.items() if k.startswith("ssl")} == {
        "ssl.ca.location": str(tls.ssl_cafile),
        "ssl.certificate.location": str(tls.ssl_certfile),
        "ssl.key.location": str(tls.ssl_keyfile),
        "ssl.key.password": "kp",
    }
    java = spark_options(tls)
    assert {k: v for k, v in java.items() if "ssl" in k} == {
        "kafka.ssl.truststore.type": "PEM",
        "kafka.ssl.truststore.location": str(tls.ssl_cafile),
        "kafka.ssl.keystore.type": "PEM",
        "kafka.ssl.keystore.certificate.chain": "the cert",
        "kafka.ssl.keystore.key": "the key",
        "kafka.ssl.key.password": "kp",
    }


@pytest.mark.parametrize("client", [KafkaAdminClient, KafkaConsumer, KafkaProducer])
def test_every_option_is_one_that_kafka_python_knows(client: Any, tls: KafkaSettings) -> None:
    for settings in (PLAIN, SASL, tls):
        assert client_options(settings).keys() <= client.DEFAULT_CONFIG.keys()


def test_every_option_is_one_that_librdkafka_knows() -> None:
    nowhere = SASL.model_copy(update={"bootstrap_servers": "127.0.0.1:1"})
    quiet: dict[str, Any] = {"error_cb": lambda _: None, "log_level": 0}
    Producer({**librdkafka_options(nowhere), **quiet})  # raises on a name or value that it does not know


def read_as_java_does(text: str) -> str:
    """A quoted word of a JAAS line, as java.io.StreamTokenizer reads it (no octal escapes occur)."""
    return re.sub(r"\\(.)", r"\1", text)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), min_size=1))
def test_a_password_cannot_leave_its_quotes_in_the_jaas_line(password: str) -> None:
    line = _jaas("PLAIN", "me", password)
    found = re.fullmatch(r'\S+ required username="me" password="((?:[^"\\]|\\.)*)";', line)
    assert found is not None
    assert read_as_java_does(found[1]) == password


def test_secrets_never_show(tls: KafkaSettings) -> None:
    for settings, secret in ((SASL, PASSWORD), (tls, "kp'")):
        for shown in (repr(settings), str(settings), settings.model_dump_json(), str(settings.model_dump())):
            assert secret not in shown
            assert "p\\\\" not in shown


def test_a_client_error_says_what_was_done_and_where() -> None:
    with pytest.raises(BrokerUnavailable, match=r"listing topics failed at one:9092,two:9093: KafkaTimeoutError"):  # noqa: SIM117
        with reached("listing topics", PLAIN):
            raise KafkaTimeoutError


def test_topics_have_stated_partitions_retention_and_cleanup() -> None:
    plans = topic_plans("flights", KafkaSettings(partitions=6, retention_hours=1.5))
    assert {p.name: (p.partitions, p.configs["cleanup.policy"]) for p in plans.values()} == {
        "flights.examples": (6, "delete"),
        "flights.predictions": (6, "delete"),
        "flights.rejected": (1, "compact"),
        "flights.models": (1, "compact"),
        "flights.alerts": (1, "compact"),
        "flights.actions": (1, "compact"),
    }
    assert plans["examples"].configs["retention.ms"] == "5400000"
    joined = topic_plans("flights", KafkaSettings(), joined=True)
    for name in ("examples", "predictions", "labels"):
        assert joined[name].configs["message.timestamp.type"] == "LogAppendTime"
    assert "retention.ms" not in plans["models"].configs


class OldConsumer:
    """A client whose picture of a topic is older than the topic's newest partition."""

    def __init__(self, known: int, after_a_look: int) -> None:
        self.known = known
        self._after = after_a_look

    def topics(self) -> None:
        self.known = self._after

    def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {p: {TopicPartition("t", n): 7 for n in range(self.known)}[p] for p in partitions}


def log_of(consumer: OldConsumer) -> Log:
    log = Log.__new__(Log)
    log.settings, log._consumer = KafkaSettings(), consumer
    return log


def test_a_partition_that_the_client_does_not_know_yet_is_looked_up() -> None:
    assert log_of(OldConsumer(1, 2)).ends("t", [0, 1]) == {0: 7, 1: 7}


def test_a_partition_that_the_broker_does_not_know_yet_may_come() -> None:
    with pytest.raises(BrokerUnavailable, match="partition=1"):
        log_of(OldConsumer(1, 1)).ends("t", [0, 1])


@pytest.mark.parametrize("connect", [Admin, committed_reader, ControlProducer])
def test_nothing_is_left_of_a_client_that_finds_no_broker(connect: Callable[[KafkaSettings], object]) -> None:
    def held() -> tuple[int, int]:
        return threading.active_count(), psutil.Process().num_fds()

    with socket.create_server(("127.0.0.1", 0)) as silent:  # it is connected to, and says nothing
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        settings = KafkaSettings(bootstrap_servers=address, request_timeout_seconds=1)
        before = held()
        with pytest.raises((BrokerUnavailable, KafkaError)):
            connect(settings)
        assert held() == before
