"""One `Settings` a process: flags over environment over file, built once at the front door and passed on.

The only module that reads the environment. Secrets are `SecretStr`: they cannot print.
"""

import hashlib
import ipaddress
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from platformdirs import user_cache_path, user_data_path
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, StringConstraints, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from stream_trainer.acting import Severity

SETTINGS_FILE = "stream-trainer.toml"
# Each by name: whoever lists one says whose pages may ask; `*` would be anybody's.
Origin = Annotated[str, StringConstraints(pattern=r"^https?://[a-z0-9.\-\[\]:]+$")]


def _none_is_off(value: object) -> object:
    return None if value in ("none", "-1", -1) else value


# Neither TOML nor the environment has a None: it is written "none", or -1.
PortOrNone = Annotated[Annotated[int, Field(ge=0, le=65535)] | None, BeforeValidator(_none_is_off)]


def is_loopback(host: str) -> bool:
    """Whether a host name or address (IPv6 with or without brackets) can only mean this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


class Section(BaseModel):
    """A nested group of settings; unknown names are refused, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


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
        secret = self.sasl_password.get_secret_value() if self.sasl_password else ""
        if not f"{self.sasl_username or ''}{secret}".isprintable():
            raise ValueError("sasl_username and sasl_password hold no control characters")
        return self

    @property
    def leaves_the_machine_readable(self) -> bool:
        """Whether what is sent can be read on a network: no TLS, and a broker that is not on this machine."""
        if self.security_protocol in ("SSL", "SASL_SSL") or self.bootstrap_servers is None:
            return False
        hosts = (address.rpartition(":")[0] for address in self.bootstrap_servers.split(","))
        return not all(is_loopback(host) for host in hosts)


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
    signing_key: SecretStr | None = Field(
        default=None, min_length=32, description="signs manifests; others are refused"
    )
    former_signing_keys: tuple[Annotated[SecretStr, Field(min_length=32)], ...] = ()
    unsigned_through: int = Field(default=0, ge=0, description="versions up to this one may lack a signature")

    @model_validator(mode="after")
    def _signing_is_whole(self) -> "StoreSettings":
        if self.signing_key is None and (self.former_signing_keys or self.unsigned_through):
            raise ValueError("former_signing_keys and unsigned_through need signing_key")
        return self


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
    metrics_host: str = "127.0.0.1"
    metrics_port: PortOrNone = Field(default=None, description="of /metrics; 0 takes a free one")


class ServingSettings(Section):
    """The HTTP service and its admin port. Without `keys_file` all is open, so only loopback is bound."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    admin_host: str = "127.0.0.1"
    admin_port: PortOrNone = Field(default=8001, description="0 takes a free one")
    poll_seconds: float = Field(default=2.0, gt=0)
    swap_every_seconds: float = Field(
        default=0.25, ge=0, description="versions swap at most so often; one that comes sooner waits, or is overtaken"
    )
    max_body_bytes: int = Field(default=8 * 2**20, ge=1024)
    max_rows: int = Field(default=10_000, ge=1)
    profile: Literal["development", "production"] = "development"
    prediction_queue: int = Field(default=100_000, ge=1, description="records that may wait for Kafka before drops")
    batch_rows: int = Field(default=1_024, ge=1, description="rows that share a forward pass")
    queue_rows: int = Field(default=50_000, ge=1, description="rows that may wait for one before requests are refused")
    queue_requests: int = Field(default=2_000, ge=1, description="and requests")
    answer_seconds: float = Field(default=5.0, gt=0, description="a request waits at most so long for its outputs")
    min_version_wait_seconds: float = Field(default=2.0, ge=0, description="X-Min-Model-Version waits at most so long")
    max_staleness_seconds: float | None = Field(
        default=None, gt=0, description="beyond it `/health/ready` is 503; None: ready while a model serves"
    )
    workers: int = Field(default=1, ge=1, le=256, description="processes that answer on one port")
    versions_loaded: int = Field(
        default=3, ge=1, description="versions that answer by number, the serving one included"
    )
    otlp_endpoint: str | None = Field(
        default=None, pattern=r"^https?://[^\s/]+(/\S*)?$", description="where traces go; none: there are none"
    )
    trace_ratio: float = Field(default=0.01, ge=0, le=1, description="share of requests that are traced by our choice")
    log_format: Literal["json", "text"] | None = Field(default=None, description="None: text on a terminal, else json")

    keys_file: Path | None = Field(default=None, description="API keys; see `stream-trainer keys`")
    rate_per_second: float = Field(default=1_000.0, gt=0, le=1e6, description="requests of a key that names none")
    rate_burst: int = Field(default=2_000, ge=1, le=10**6, description="requests at once of a key that names none")
    cors_origins: tuple[Origin, ...] = Field(default=(), description="pages of these origins may ask; none by default")

    tls_certfile: Path | None = None
    tls_keyfile: Path | None = None
    tls_client_ca: Path | None = Field(default=None, description="only clients with a certificate of it are heard")

    max_concurrent_requests: int = Field(default=512, ge=1, description="more are answered 503")
    max_connections: int = Field(default=800, ge=1, description="more are closed at once; mind `ulimit -n`")
    max_head_bytes: int = Field(default=32 * 2**10, ge=1024, description="of a request: its line and headers")
    head_seconds: float = Field(default=10.0, gt=0, description="a head, or a TLS handshake, takes at most so long")
    send_seconds: float = Field(default=30.0, gt=0, description="an answer nobody reads is given up after so long")
    keep_alive_seconds: int = Field(default=20, ge=1, description="an idle connection is closed after so long")
    backlog: int = Field(default=2048, ge=1)

    @model_validator(mode="after")
    def _tls_is_whole(self) -> "ServingSettings":
        if (self.tls_certfile is None) != (self.tls_keyfile is None):
            raise ValueError("tls_certfile and tls_keyfile belong together")
        if self.tls_client_ca is not None and self.tls_certfile is None:
            raise ValueError(
                "tls_client_ca needs tls_certfile and tls_keyfile: certificates are asked for over TLS only"
            )
        return self


class TrialSettings(Section):
    """How a challenger is compared with the champion: see `docs/trials.md`."""

    alpha: float = Field(default=0.01, gt=0, lt=1, description="probability of promoting one that is no better")
    margin: float = Field(default=0.0, ge=0, lt=1, description="how much better it must be, in units of the score")
    max_rows: int = Field(default=100_000, ge=1, description="labelled rows after which it is withdrawn as no better")
    rows_per_second: float = Field(default=1_000.0, gt=0, description="the trial predicts at most so many")
    block_rows: int = Field(default=100, ge=1, description="rows whose mean difference is one bet")
    least_reach: float = Field(default=0.1, gt=0, le=1, description="what a bet takes a block to be able to lose")

    @model_validator(mode="after")
    def _a_block_can_fill(self) -> "TrialSettings":
        if self.block_rows > self.max_rows:
            raise ValueError(
                f"block_rows {self.block_rows} is more than max_rows {self.max_rows}: the trial would end before its first "
                "bet, so no challenger could win; raise max_rows or lower block_rows"
            )
        return self


class MonitorSettings(Section):
    """Where the monitor keeps its state, and where it tells what; how a pipeline is watched is its `Monitoring`."""

    checkpoint_url: str | None = None
    max_records_per_batch: int = Field(
        default=20_000, ge=1, description="predictions and examples together; blocks count 1"
    )
    report_rows: int = Field(default=2_000, ge=100, description="rows of a window that are kept for a report")
    page_host: str = Field(default="127.0.0.1", description="of the dashboard, which has no keys and only reads")
    page_port: PortOrNone = Field(default=8002, description="0 takes a free one")
    dashboard_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s?#]+$",
        description="of the dashboard, for the links in alerts; None: page_host and page_port",
    )
    webhook_url: SecretStr | None = Field(default=None, description="alerts are also posted here; http or https")
    webhook_allow: tuple[str, ...] = Field(
        default=(), description="the only hosts that may be called; a private address needs its address:port here"
    )
    webhook_secret: SecretStr | None = Field(default=None, min_length=16, description="signs what is posted")
    webhook_least: Severity = Field(default="warning", description="the least severity that is posted")
    metrics_host: str = Field(default="127.0.0.1", description="nothing but figures is told there")
    metrics_port: PortOrNone = Field(default=None, description="of /metrics; 0 takes a free one")
    workspace: bool = Field(default=True, description="reports also go into a workspace of Evidently")

    @model_validator(mode="after")
    def _webhook_is_whole(self) -> "MonitorSettings":
        if self.webhook_url is None and (self.webhook_allow or self.webhook_secret):
            raise ValueError("webhook_allow and webhook_secret need webhook_url")
        return self


class JoinSettings(Section):
    """The joiner's process; by which rules it joins is the pipeline's `Join`."""

    checkpoint_url: str | None = Field(default=None, description="its state; None: under the data folder")
    trigger_seconds: float = Field(default=0.5, ge=0, description="micro-batches start at most this often")
    max_records_per_batch: int = Field(
        default=10_000, ge=1, description="predictions and labels together; blocks count 1"
    )
    state_partitions: int = Field(default=2, ge=1, description="fixed with the first batch of a checkpoint")
    state_cache_mb: int = Field(default=128, ge=16, description="memory of RocksDB, all partitions together")
    max_restarts: int = Field(default=5, ge=0)
    spark_driver_memory: str = "512m"
    transaction_seconds: float = Field(default=30.0, gt=0, description="one left open holds readers up for so long")
    metrics_port: PortOrNone = Field(default=8003, description="of /metrics; 0 takes a free one")
    metrics_host: str = Field(default="127.0.0.1", description="nothing but figures is told there")


class Settings(BaseSettings):
    """Everything a process may be told. Names nest with `__`: `STREAM_TRAINER_KAFKA__BOOTSTRAP_SERVERS`."""

    model_config = SettingsConfigDict(
        env_prefix="STREAM_TRAINER_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
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
    join: JoinSettings = JoinSettings()

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

    @model_validator(mode="after")
    def _production_is_encrypted(self) -> "Settings":
        if self.serving.profile == "production" and self.kafka.leaves_the_machine_readable:
            raise ValueError(
                f"kafka.security_protocol {self.kafka.security_protocol} to {self.kafka.bootstrap_servers} can be read on the "
                "network, which serving.profile production refuses: use SASL_SSL or SSL"
            )
        return self

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
