"""One `Settings` a process: flags over environment over file, built once at the front door and passed on.

The only module that reads the environment. Secrets are `SecretStr`: they cannot print.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from platformdirs import user_cache_path, user_data_path
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

SETTINGS_FILE = "stream-trainer.toml"


class Section(BaseModel):
    """A nested group of settings; unknown names are refused, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class KafkaSettings(Section):
    """How to reach Kafka. The only options that are passed on: no free dictionary of client settings.

    `bootstrap_servers` None means the local development broker, started when a command needs it.
    """

    bootstrap_servers: str | None = Field(default=None, pattern=r"^[^\s,]+:\d+(,[^\s,]+:\d+)*$")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    ssl_key_password: SecretStr | None = None
    request_timeout_seconds: float = Field(default=10.0, gt=0)
    partitions: int = Field(default=3, ge=1, description="partitions of the topics that a command creates")
    replication_factor: int = Field(default=1, ge=1)
    retention_hours: float = Field(default=24 * 7, gt=0, description="retention of the examples topic it creates")

    @model_validator(mode="after")
    def _sasl_is_whole(self) -> "KafkaSettings":
        wants_sasl = self.security_protocol.startswith("SASL")
        has_sasl = self.sasl_mechanism and self.sasl_username and self.sasl_password
        if wants_sasl and not has_sasl:
            raise ValueError(
                f"security_protocol {self.security_protocol} needs sasl_mechanism, sasl_username and sasl_password"
            )
        if not wants_sasl and (self.sasl_mechanism or self.sasl_username or self.sasl_password):
            raise ValueError("sasl_* settings need security_protocol SASL_SSL or SASL_PLAINTEXT")
        return self


class StoreSettings(Section):
    """Where versions live: a folder, or an `s3://`, `gs://`, `az://` URL. None: a folder under the data folder."""

    url: str | None = None
    keep_versions: int = Field(default=500, ge=0, description="data of so many newest versions is kept; 0 keeps all")
    keep_every: int = Field(default=100, ge=1, description="and that of one in so many older ones")
    s3_endpoint: str | None = None
    s3_region: str = "us-east-1"
    s3_access_key_id: SecretStr | None = None
    s3_secret_access_key: SecretStr | None = None
    s3_allow_http: bool = False


class TrainerSettings(Section):
    """How the stream is cut and how often the trainer tries again."""

    max_rows_per_batch: int = Field(default=20_000, ge=1)
    trigger_seconds: float = Field(default=0.5, ge=0, description="micro-batches start at most this often")
    commit_every_rows: int = Field(default=1, ge=1, description="a version a micro-batch; more for large models")
    commit_every_seconds: float | None = Field(default=None, ge=0, description="or after so long, if that is sooner")
    promotion: Literal["auto", "manual", "gated"] = Field(default="auto", description="how a version becomes champion")
    announce_idle_seconds: float = Field(default=1.0, gt=0)
    max_restarts: int = Field(default=5, ge=0)
    spark_master: str = "local[2]"
    spark_driver_memory: str = "1g"


class ServingSettings(Section):
    """The HTTP service. Without API keys it binds loopback only."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    poll_seconds: float = Field(default=2.0, gt=0)
    max_body_bytes: int = Field(default=8 * 2**20, ge=1024)
    max_rows: int = Field(default=10_000, ge=1)
    profile: Literal["development", "production"] = "development"
    prediction_queue: int = Field(default=100_000, ge=1, description="records that may wait for Kafka before drops")
    batch_rows: int = Field(default=1_024, ge=1, description="rows that share a forward pass")
    queue_rows: int = Field(default=50_000, ge=1, description="rows that may wait for one before requests are refused")
    queue_requests: int = Field(default=2_000, ge=1, description="and requests")
    answer_seconds: float = Field(default=5.0, gt=0, description="a request waits at most so long for its outputs")
    min_version_wait_seconds: float = Field(default=2.0, ge=0, description="X-Min-Model-Version waits at most so long")
    versions_loaded: int = Field(
        default=3, ge=1, description="versions that answer by number, the serving one included"
    )
    otlp_endpoint: str | None = Field(
        default=None, pattern=r"^https?://[^\s/]+(/\S*)?$", description="where traces go; none: there are none"
    )
    trace_ratio: float = Field(default=0.01, ge=0, le=1, description="share of requests that are traced by our choice")


class TrialSettings(Section):
    """How a challenger is compared with the champion: see `docs/trials.md`."""

    alpha: float = Field(default=0.01, gt=0, lt=1, description="probability of promoting one that is no better")
    margin: float = Field(default=0.0, ge=0, lt=1, description="how much better it must be, in units of the score")
    max_rows: int = Field(default=100_000, ge=1, description="labelled rows after which it is withdrawn as no better")
    rows_per_second: float = Field(default=1_000.0, gt=0, description="the trial predicts at most so many")


class MonitorSettings(Section):
    """Windows and provisional thresholds of the drift monitor."""

    window_rows: int = Field(default=2_000, ge=50)
    window_seconds: float = Field(default=60.0, gt=0)
    checkpoint_url: str | None = None
    report_rows: int = Field(default=2_000, ge=100)


class Settings(BaseSettings):
    """Everything a process may be told. Names nest with `__`: `STREAM_TRAINER_KAFKA__BOOTSTRAP_SERVERS`."""

    model_config = SettingsConfigDict(
        env_prefix="STREAM_TRAINER_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        toml_file=SETTINGS_FILE,
    )

    data_dir: Path = Field(default_factory=lambda: user_data_path("stream-trainer"))
    cache_dir: Path = Field(default_factory=lambda: user_cache_path("stream-trainer"))
    kafka: KafkaSettings = KafkaSettings()
    store: StoreSettings = StoreSettings()
    trainer: TrainerSettings = TrainerSettings()
    serving: ServingSettings = ServingSettings()
    trial: TrialSettings = TrialSettings()
    monitor: MonitorSettings = MonitorSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags over environment over file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def store_url(self) -> str:
        """The store to use: the configured URL, or a folder under the data folder."""
        return self.store.url or str(self.data_dir / "models")

    @property
    def broker_dir(self) -> Path:
        """Where the local development broker keeps its data, state file and log."""
        return self.data_dir / "broker"

    def fingerprint(self) -> str:
        """Twelve hex digits that tell two configurations apart in a log; secrets are masked before hashing."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]


def environment() -> Mapping[str, str]:
    """The environment as it is now, read-only: for code that looks for programs of the machine (Java, a proxy)."""
    return MappingProxyType(dict(os.environ))


@contextmanager
def exported(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Set variables for the block (None removes one) and put back what was there.

    Only for libraries that can be told no other way: Spark takes the path of Java and Python from here alone.
    """
    before = {name: os.environ.get(name) for name in variables}
    _export(variables)
    try:
        yield
    finally:
        _export(before)


def _export(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
