"""S09: a secret of the settings is in no output, log, error, metric, manifest, file or plan of Spark."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import httpx
import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from examples.flights.pipeline import pipeline as flights
from stream_trainer.kafka import client_options, librdkafka_options, spark_options
from stream_trainer.settings import KafkaSettings, Settings
from stream_trainer.store import open_store
from tests.serving.fixtures import commit_version

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROOT = Path(__file__).parents[2]
PIPELINE = "examples.flights.pipeline:pipeline"
CANARY = re.compile(r"canary-[0-9]+-of-a-secret", re.IGNORECASE)
NOWHERE = "127.0.0.1:9"  # the port to which nothing ever answers


def holds_secret(kind: Any) -> bool:
    return kind is SecretStr or any(holds_secret(part) for part in get_args(kind))


def secret_fields(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Every field with a secret in it, and whether it holds several."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from secret_fields(kind, (*path, name))
        elif holds_secret(kind):
            yield (*path, name), "tuple" in str(kind)


FIELDS = list(secret_fields(Settings))


def environment(folder: Path, **more: str) -> dict[str, str]:
    """A process that was told a canary for every secret there is, a broker that does not answer, and a folder."""
    told = {
        "STREAM_TRAINER_DATA_DIR": str(folder / "data"),
        "STREAM_TRAINER_STORE__URL": str(folder / "models"),
        "STREAM_TRAINER_KAFKA__BOOTSTRAP_SERVERS": NOWHERE,
        "STREAM_TRAINER_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
        "STREAM_TRAINER_KAFKA__SASL_MECHANISM": "PLAIN",
        "STREAM_TRAINER_KAFKA__SASL_USERNAME": "somebody",
        "STREAM_TRAINER_KAFKA__REQUEST_TIMEOUT_SECONDS": "1",
        "STREAM_TRAINER_TRAINER__MAX_RESTARTS": "0",
    }
    for number, (path, several) in enumerate(FIELDS):
        value = f"canary-{number}-of-a-secret-that-is-long-enough"
        if path[-1] == "webhook_url":
            value = f"https://hooks.example.com/{value}"
        told["STREAM_TRAINER_" + "__".join(path).upper()] = json.dumps([value]) if several else value
    return {**os.environ, **told, **more, "PYTHONPATH": str(ROOT)}


def chosen(told: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in told.items():
        if name.startswith("STREAM_TRAINER_"):
            monkeypatch.setenv(name, value)
    return Settings()


def run(folder: Path, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore", "-m", "stream_trainer.cli", *command],
        cwd=folder,
        env=environment(folder, **more),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    clean(f"{command}", done.stdout, done.stderr)
    return done


def clean(where: str, *texts: str) -> None:
    for text in texts:
        found = CANARY.search(text)
        assert found is None, f"{where}: {text[max(0, found.start() - 200) : found.end() + 20]}"


def clean_folder(folder: Path) -> int:
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        clean(str(path), path.read_bytes().decode(errors="replace"))
    return len(files)


def test_s09_every_secret_of_the_settings_is_found() -> None:
    paths = {".".join(path) for path, _ in FIELDS}
    assert paths >= {
        "kafka.sasl_password",
        "kafka.ssl_key_password",
        "store.s3_access_key_id",
        "store.s3_secret_access_key",
        "store.signing_key",
        "store.former_signing_keys",
        "monitor.webhook_url",
        "monitor.webhook_secret",
    }


def test_s09_no_field_that_sounds_like_a_secret_is_a_plain_text() -> None:
    def names(model: type[BaseModel]) -> Iterator[tuple[str, Any]]:
        for name, field in model.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                yield from names(field.annotation)
            else:
                yield name, field.annotation

    for name, kind in names(Settings):
        if re.search(r"password|secret|token|signing_key|access_key|api_key", name) and kind not in (int, float, bool):
            assert holds_secret(kind), name


def test_s09_settings_do_not_show_their_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = chosen(environment(tmp_path), monkeypatch)
    shown = [
        repr(settings),
        str(settings),
        settings.model_dump_json(),
        str(settings.model_dump()),
        json.dumps(settings.model_dump(mode="json")),
        settings.fingerprint(),
        repr(settings.kafka),
        f"{settings.store} {settings.monitor}",
    ]
    clean("settings", *shown)
    told = str(client_options(settings.kafka)) + str(librdkafka_options(settings.kafka))
    assert CANARY.search(told), "the canaries do reach the clients"


@pytest.mark.parametrize(
    "wrong",
    [
        {"kafka": {"sasl_password": "canary-1-of-a-secret"}},
        {"kafka": {"sasl_pasword": "canary-1-of-a-secret"}},
        {"kafka": {"sasl_password": ["canary-1-of-a-secret"]}},
        {"store": {"signing_key": "canary-1-of-a-secret"}},
        {"store": {"former_signing_keys": ["canary-1-of-a-secret"]}},
        {"store": "canary-1-of-a-secret"},
        {"monitor": {"webhook_secret": "canary-1-of-a-secret"}},
    ],
)
def test_s09_settings_that_are_wrong_are_told_without_their_values(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as error:
        Settings.model_validate(wrong)
    clean("the error", str(error.value), repr(error.value))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STREAM_TRAINER_STORE", '{"signing_key": "canary-1-of-a-secret'),
        ("STREAM_TRAINER_KAFKA__SECURITY_PROTOCOL", "PLAINTEXT"),
        ("STREAM_TRAINER_KAFKA__SASL_PASWORD", "canary-1-of-a-secret"),
        ("STREAM_TRAINER_STORE__SIGNING_KEY", "canary-1-of-a-secret"),
    ],
)
def test_s09_a_command_with_wrong_settings_ends_with_one_clean_line(tmp_path: Path, name: str, value: str) -> None:
    done = run(tmp_path, "models", "list", PIPELINE, **{name: value})
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1


def test_s09_a_settings_file_that_cannot_be_read_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "stream-trainer.toml").write_text('[store]\nsigning_key = "canary-1-of-a-secret\n')
    done = run(tmp_path, "models", "list", PIPELINE)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1


def committed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One version in the store of the commands, signed with the canary key."""
    store = open_store(chosen(environment(folder), monkeypatch), flights.name)
    commit_version(store, flights, flights.learner.init(flights.spec, 0), files={"golden.arrow": b""})


def test_s09_commands_that_look_at_the_store_and_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    committed(tmp_path, monkeypatch)
    assert "1" in run(tmp_path, "models", "list", PIPELINE).stdout
    assert run(tmp_path, "models", "show", PIPELINE, "1").returncode == 0
    run(tmp_path, "models", "verify", PIPELINE)
    run(tmp_path, "doctor")
    refused = run(
        tmp_path, "models", "list", PIPELINE, STREAM_TRAINER_STORE__SIGNING_KEY="another key of enough length"
    )
    assert refused.stdout + refused.stderr
    assert run(tmp_path, "lineage", PIPELINE, "--version", "1").returncode in (0, 2)
    assert clean_folder(tmp_path / "models") >= 4


def test_s09_a_bucket_that_does_not_answer(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        "models",
        "list",
        PIPELINE,
        STREAM_TRAINER_STORE__URL="s3://bucket/models",
        STREAM_TRAINER_STORE__S3_ENDPOINT=f"http://{NOWHERE}",
        STREAM_TRAINER_STORE__S3_ALLOW_HTTP="true",
    )
    assert done.returncode != 0


def test_s09_a_service_whose_broker_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    committed(tmp_path, monkeypatch)
    command = [sys.executable, "-m", "stream_trainer.cli", "serve", PIPELINE, "--port", "0"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as service:
        said = []
        try:
            assert service.stdout is not None
            url = None
            for line in service.stdout:
                said.append(line)
                if match := re.search(r"http://127\.0\.0\.1:\d+", line):
                    url = match[0]
                    break
            assert url is not None, said
            for path in ("/metrics", "/health/ready", "/lineage/1", "/lineage/2", "/openapi.json", "/nowhere"):
                clean(path, httpx.get(url + path).text)
            clean("/predict", httpx.post(f"{url}/predict", content=b'{"instances": [{}]}').text)
        finally:
            service.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                said.append(service.communicate(timeout=60)[0])
            service.kill()
    clean("the service's log", *said)


@pytest.mark.spark
def test_s09_a_trainer_that_cannot_start(tmp_path: Path) -> None:
    done = run(tmp_path, "train", PIPELINE, "--until-caught-up")
    assert done.returncode != 0
    assert NOWHERE in done.stderr
    clean_folder(tmp_path)


def test_s09_spark_shows_no_password_in_its_plans_and_configuration(spark: "SparkSession") -> None:
    settings = KafkaSettings(
        bootstrap_servers=NOWHERE,
        security_protocol="SASL_SSL",
        sasl_mechanism="PLAIN",
        sasl_username="somebody",
        sasl_password=SecretStr("canary-1-of-a-secret"),
        ssl_key_password=SecretStr("canary-2-of-a-secret"),
    )
    options = spark_options(settings)
    assert CANARY.search(str(options))
    frame = spark.readStream.format("kafka").options(**options, subscribe="t").load().select("value")
    plan = frame._jdf.queryExecution().logical()
    clean("the plan", plan.toString(), plan.treeString(), plan.verboseStringWithSuffix(10_000))
    clean("the configuration", str(spark.sparkContext.getConf().getAll()))
