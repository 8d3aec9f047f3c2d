from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from stream_trainer.settings import KafkaSettings, Settings, TrialSettings, environment, exported


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory: the file is looked for there."""
    monkeypatch.chdir(tmp_path)
    for name in environment():
        if name.startswith("STREAM_TRAINER_"):
            monkeypatch.delenv(name)
    return tmp_path


def test_a_flag_wins_over_the_environment_and_that_over_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().serving.port == 8000
    (folder / "stream-trainer.toml").write_text("[serving]\nport = 1\nmax_rows = 7\n[kafka]\npartitions = 5\n")
    assert Settings().serving.port == 1
    monkeypatch.setenv("STREAM_TRAINER_SERVING__PORT", "2")
    assert Settings().serving.port == 2
    found = Settings(serving={"port": 3})
    assert (found.serving.port, found.serving.max_rows, found.kafka.partitions) == (3, 7, 5)


@pytest.mark.parametrize("text", ["[kafka]\nbootstrap = 'x:1'\n", "[kafak]\n", "port = 1\n"])
def test_an_unknown_name_in_the_file_is_refused(folder: Path, text: str) -> None:
    (folder / "stream-trainer.toml").write_text(text)
    with pytest.raises(ValidationError, match="Extra inputs"):
        Settings()


def test_an_unknown_nested_name_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_TRAINER_KAFKA__BOOTSTRAP", "x:1")
    with pytest.raises(ValidationError, match="Extra inputs"):
        Settings()


@pytest.mark.parametrize(
    "fields",
    [
        {"security_protocol": "SASL_SSL"},
        {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_username": "u"},
        {"sasl_mechanism": "PLAIN", "sasl_username": "u", "sasl_password": "p"},
        {"sasl_password": "p"},
        {"security_protocol": "TLS"},
        {"sasl_mechanism": "GSSAPI"},
        {"bootstrap_servers": "nohost"},
        {"bootstrap_servers": "a:1 b:2"},
        {"bootstrap_servers": "a:1,"},
        {"partitions": 0},
    ],
)
def test_kafka_settings_that_cannot_work_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        KafkaSettings.model_validate(fields)


def test_a_trial_that_could_never_bet_is_refused_and_both_settings_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert TrialSettings(max_rows=100).block_rows == 100
    monkeypatch.setenv("STREAM_TRAINER_TRIAL__MAX_ROWS", "99")
    with pytest.raises(ValidationError, match="block_rows 100 is more than max_rows 99"):
        Settings()


PORTS = ("trainer.metrics_port", "serving.admin_port", "monitor.page_port", "monitor.metrics_port", "join.metrics_port")


@pytest.mark.parametrize("name", PORTS)
@pytest.mark.parametrize(("text", "port"), [("none", None), ("-1", None), ("0", 0), ("65535", 65535)])
def test_a_port_that_may_be_off_is_off_by_none_or_less_than_nothing(
    folder: Path, name: str, text: str, port: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    section, field = name.split(".")
    (folder / "stream-trainer.toml").write_text(
        f"[{section}]\n{field} = {text if text[-1].isdigit() else repr(text)}\n"
    )
    assert getattr(getattr(Settings(), section), field) == port
    (folder / "stream-trainer.toml").write_text(f"[{section}]\n{field} = 7\n")
    monkeypatch.setenv(f"STREAM_TRAINER_{section}__{field}".upper(), text)
    assert getattr(getattr(Settings(), section), field) == port


@pytest.mark.parametrize("name", PORTS)
@pytest.mark.parametrize("value", [-2, 65536, "off", "", 1.5])
def test_what_is_no_port_is_refused(name: str, value: object) -> None:
    section, field = name.split(".")
    with pytest.raises(ValidationError, match=field):
        Settings.model_validate({section: {field: value}})


@pytest.mark.parametrize("servers", ["a:1", "a:1,b-c.d:2", "[::1]:9092"])
def test_lists_of_servers_are_read(servers: str) -> None:
    assert KafkaSettings(bootstrap_servers=servers).bootstrap_servers == servers


def secret_settings() -> Settings:
    return Settings.model_validate(
        {
            "kafka": {
                "bootstrap_servers": "a:1",
                "security_protocol": "SASL_SSL",
                "sasl_mechanism": "PLAIN",
                "sasl_username": "u",
                "sasl_password": "hush-kafka",
                "ssl_key_password": "hush-key",
            },
            "store": {"s3_access_key_id": "hush-id", "s3_secret_access_key": "hush-secret"},
        }
    )


def test_no_way_of_printing_shows_a_secret() -> None:
    settings = secret_settings()
    assert settings.kafka.sasl_password == SecretStr("hush-kafka")
    for shown in (repr(settings), str(settings), settings.model_dump_json(), str(settings.model_dump())):
        assert "hush" not in shown


def test_a_refused_setting_does_not_show_the_secret_beside_it() -> None:
    from stream_trainer.cli import _settings_problem

    with pytest.raises(ValidationError) as caught:
        KafkaSettings.model_validate({"sasl_password": "hush", "partitions": 0})
    assert "hush" not in _settings_problem(caught.value)
    assert "partitions" in _settings_problem(caught.value)


def test_the_fingerprint_tells_configurations_apart_but_not_secrets() -> None:
    settings = secret_settings()
    other = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"sasl_password": SecretStr("x")})})
    assert settings.fingerprint() == other.fingerprint() == secret_settings().fingerprint()
    moved = settings.model_copy(update={"data_dir": Path("elsewhere")})
    assert moved.fingerprint() != settings.fingerprint()
    assert len(settings.fingerprint()) == 12


def test_settings_do_not_change() -> None:
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.kafka.partitions = 9  # type: ignore[misc]


def test_the_store_is_the_url_or_a_folder_of_the_data_folder() -> None:
    assert Settings(data_dir=Path("d")).store_url == "d/models"
    assert Settings(store={"url": "s3://b"}).store_url == "s3://b"


def test_exported_variables_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_NAME", "before")
    monkeypatch.delenv("B_NAME", raising=False)
    with exported({"A_NAME": None, "B_NAME": "1"}):
        assert "A_NAME" not in environment()
        assert environment()["B_NAME"] == "1"
    assert environment()["A_NAME"] == "before"
    assert "B_NAME" not in environment()


def test_the_environment_cannot_be_written() -> None:
    with pytest.raises(TypeError):
        environment()["X"] = "1"  # type: ignore[index]
