"""Settings that would open a door are refused at start; secrets do not print."""

import io
import logging
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from serving.ports import refuse_open
from stream_trainer.errors import UsageError
from stream_trainer.kafka import client_options, librdkafka_options, spark_options
from stream_trainer.settings import KafkaSettings, ServingSettings, Settings, environment, is_loopback
from tests.security.callers import Callers

SASL = {"sasl_mechanism": "PLAIN", "sasl_username": "u", "sasl_password": "canary-kafka"}


@pytest.fixture(autouse=True)
def _nothing_else_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in environment():
        if name.startswith("STREAM_TRAINER_"):
            monkeypatch.delenv(name)


def production(**kafka: Any) -> Settings:
    return Settings.model_validate({"serving": {"profile": "production"}, "kafka": kafka})


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SASL_PLAINTEXT"])
@pytest.mark.parametrize(
    "servers", ["kafka-1:9092", "127.0.0.1:9092,10.0.0.1:9092", "localhost.example:1", "[::2]:9092"]
)
def test_s10_production_refuses_a_broker_that_can_be_listened_to(protocol: str, servers: str) -> None:
    more = SASL if protocol == "SASL_PLAINTEXT" else {}
    with pytest.raises(ValidationError, match="use SASL_SSL or SSL") as caught:
        production(security_protocol=protocol, bootstrap_servers=servers, **more)
    assert "canary" not in str(caught.value.errors(include_input=False))
    assert KafkaSettings.model_validate({"security_protocol": protocol, "bootstrap_servers": servers, **more})


@pytest.mark.parametrize("servers", ["127.0.0.1:9092", "localhost:9092,[::1]:9092", None])
def test_s10_production_may_talk_to_this_machine_or_over_tls(servers: str | None) -> None:
    assert production(bootstrap_servers=servers)
    assert production(bootstrap_servers="kafka-1:9092", security_protocol="SSL")
    assert production(bootstrap_servers="kafka-1:9092", security_protocol="SASL_SSL", **SASL)


@pytest.mark.parametrize(
    "name",
    [
        "sasl.jaas.config",
        "sasl_jaas_config",
        "jaas",
        "ssl_check_hostname",
        "ssl_endpoint_identification_algorithm",
        "ssl.endpoint.identification.algorithm",
        "enable.ssl.certificate.verification",
        "enable_ssl_certificate_verification",
        "ssl_context",
        "ssl_cert_reqs",
        "options",
        "api_version",
    ],
)
def test_s10_an_option_that_is_not_ours_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        KafkaSettings.model_validate({name: "x"})
    monkeypatch.setenv(f"STREAM_TRAINER_KAFKA__{name.upper()}", "x")
    with pytest.raises(ValidationError, match="Extra inputs"):
        Settings()


def test_s10_host_names_of_brokers_are_verified_by_every_client() -> None:
    from confluent_kafka import libversion
    from kafka import KafkaProducer

    settings = KafkaSettings.model_validate({"bootstrap_servers": "a:1", "security_protocol": "SASL_SSL", **SASL})
    for options in (client_options(settings), librdkafka_options(settings), spark_options(settings)):
        for name, value in options.items():
            assert not any(part in name.lower() for part in ("hostname", "endpoint", "verif", "ssl_context")), name
            assert value not in ("", None), name
    assert KafkaProducer.DEFAULT_CONFIG["ssl_check_hostname"] is True
    assert libversion()[1] >> 24 >= 2, "librdkafka verifies host names by default since 2.0"


@pytest.mark.parametrize("bad", ["u\n evil.Module required", "u\r", "u\x00", "u\x1b"])
@pytest.mark.parametrize("field", ["sasl_username", "sasl_password"])
def test_s10_a_credential_cannot_add_to_the_login_of_java(field: str, bad: str) -> None:
    with pytest.raises(ValidationError, match="control characters"):
        KafkaSettings.model_validate({"security_protocol": "SASL_SSL", **SASL, field: bad})
    quoted = {**SASL, field: 'x"; evil.Module required y="'}
    settings = KafkaSettings.model_validate({"bootstrap_servers": "a:1", "security_protocol": "SASL_SSL", **quoted})
    jaas = spark_options(settings)["kafka.sasl.jaas.config"]
    assert 'x\\"; evil.Module required y=\\"' in jaas


@pytest.mark.parametrize("field", ["host", "admin_host"])
@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.1", "::", "example.org", "localhost.example", ""])  # noqa: S104
def test_s05_without_keys_no_port_is_bound_beyond_loopback(field: str, host: str, callers: Callers) -> None:
    with pytest.raises(UsageError, match="keys create"):
        refuse_open(ServingSettings.model_validate({field: host}))
    refuse_open(ServingSettings.model_validate({field: host, "keys_file": callers.path}))
    for good in ("127.0.0.1", "::1", "localhost"):
        refuse_open(ServingSettings.model_validate({field: good}))


def test_s05_an_admin_port_that_is_off_binds_nothing() -> None:
    refuse_open(ServingSettings(admin_host="0.0.0.0", admin_port=None))  # noqa: S104


def test_s05_production_needs_keys(callers: Callers) -> None:
    with pytest.raises(UsageError, match="needs API keys"):
        refuse_open(ServingSettings(profile="production"))
    refuse_open(ServingSettings(profile="production", keys_file=callers.path))


def test_keys_over_the_network_without_tls_are_warned_of(callers: Callers, caplog: pytest.LogCaptureFixture) -> None:
    refuse_open(ServingSettings(host="0.0.0.0", keys_file=callers.path))  # noqa: S104
    assert "without TLS" in caplog.text


@pytest.mark.parametrize(
    "fields",
    [
        {"tls_certfile": "c"},
        {"tls_keyfile": "k"},
        {"tls_client_ca": "a"},
        {"admin_port": -2},
        {"admin_port": 65536},
        {"admin_port": "off"},
        {"cors_origins": ["*"]},
        {"cors_origins": ["https://shop.example/path"]},
        {"cors_origins": ["null"]},
        {"rate_per_second": 0},
        {"rate_burst": 0},
        {"max_concurrent_requests": 0},
        {"max_connections": 0},
        {"max_head_bytes": 100},
        {"head_seconds": 0},
        {"log_format": "xml"},
        {"keys": "x"},
    ],
)
def test_settings_of_the_service_that_cannot_work_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ServingSettings.model_validate(fields)


def test_settings_of_the_service_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_TRAINER_SERVING__ADMIN_PORT", "none")
    monkeypatch.setenv("STREAM_TRAINER_SERVING__CORS_ORIGINS", '["https://a.example"]')
    monkeypatch.setenv("STREAM_TRAINER_SERVING__KEYS_FILE", "k.json")
    found = Settings().serving
    assert (found.admin_port, found.cors_origins, found.keys_file) == (None, ("https://a.example",), Path("k.json"))
    assert ServingSettings().admin_port == 8001


@pytest.mark.parametrize(("host", "near"), [("127.1.2.3", True), ("[::1]", True), ("127.0.0.1.x", False), ("[", False)])
def test_what_counts_as_this_machine(host: str, near: bool) -> None:
    assert is_loopback(host) is near


def test_s09_no_way_of_printing_shows_a_secret(callers: Callers) -> None:
    secrets = {"kafka": {**SASL, "security_protocol": "SASL_SSL", "ssl_key_password": "canary-tls"}}
    settings = Settings.model_validate(
        {**secrets, "store": {"s3_access_key_id": "canary-id", "s3_secret_access_key": "canary-s3"}}
    )
    ring = callers.ring()
    known = ring.verify(callers.texts["predict"].encode())
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    logger = logging.getLogger("tests.canary")
    logger.addHandler(handler)
    for shown in (settings, settings.kafka, settings.store, ring, known, vars(ring), settings.model_dump()):
        logger.warning("%s %r", shown, shown)
    logger.removeHandler(handler)
    text = out.getvalue() + settings.model_dump_json() + repr(settings) + f"{settings}"
    assert "canary" not in text
    assert not [name for name, key in callers.texts.items() if key in text or key.split("_")[2] in text]
