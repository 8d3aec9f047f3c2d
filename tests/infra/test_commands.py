import json
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infra import commands, doctor
from infra.commands import app
from infra.doctor import Check, examine
from stream_trainer.settings import KafkaSettings, Settings


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_TRAINER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("STREAM_TRAINER_CACHE_DIR", str(tmp_path / "cache"))


def named(checks: list[Check], name: str) -> Check:
    return next(check for check in checks if check.name == name)


def test_jars_that_are_not_fetched_yet_and_missing_extras_are_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: "1.0" if name in {"torch", "pyspark"} else None)

    result = CliRunner().invoke(app, ["doctor", "--json"])

    assert result.exit_code == 0
    found = {check["name"]: check for check in json.loads(result.stdout)}
    assert "will be fetched" in found["kafka jars"]["found"]
    assert found["extra: serve"]["remedy"] == "pip install 'stream-trainer[serve]'"


def test_a_missing_requirement_fails_and_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: None)

    result = CliRunner().invoke(app, ["doctor"])

    assert result.exit_code == 1
    assert "pip install torch" in result.stdout


def test_a_configured_kafka_must_be_reachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        settings = Settings(kafka=KafkaSettings(bootstrap_servers=address))
        assert named(examine(settings), "Kafka").ok

    assert not named(examine(settings), "Kafka").ok


def test_status_without_a_broker_says_how_to_start_one(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["broker", "status", "--data-dir", str(tmp_path)])

    assert result.exit_code == 1
    assert "stream-trainer broker start" in result.stdout


def test_setup_says_nothing_when_there_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "installed", lambda settings, which: True)

    result = CliRunner().invoke(app, ["setup"])

    assert (result.exit_code, result.output) == (0, "")


@pytest.mark.parametrize("path", [["broker", "start"], ["broker", "stop"], ["broker", "status"], ["setup"], ["doctor"]])
def test_every_help_has_an_example(path: list[str]) -> None:
    assert "Example: stream-trainer" in CliRunner().invoke(app, [*path, "--help"]).stdout
