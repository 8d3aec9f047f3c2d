"""The parts of one pipeline as supervised children: the command line and the environment of each."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from infra.supervisor import Unit
from stream_trainer.settings import Settings

_CLI = "stream_trainer.cli"
_SERVING_DRAIN_SECONDS = 60.0  # it may have workers of its own to drain


def variables(settings: Settings) -> dict[str, str]:
    """What a child must be told so that it uses the same Kafka and the same folders."""
    assert settings.kafka.bootstrap_servers is not None, "children are started once Kafka is known"  # noqa: S101
    return {
        "STREAM_TRAINER_DATA_DIR": str(settings.data_dir),
        "STREAM_TRAINER_CACHE_DIR": str(settings.cache_dir),
        "STREAM_TRAINER_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
    }


def train_unit(
    pipeline: str,
    settings: Settings,
    log: Path | None = None,
    more: Mapping[str, str] = MappingProxyType({}),
    *,
    joined: bool = False,
) -> Unit:
    """Trainer, monitor and, when the pipeline is `joined`, joiner, on one Spark; `more` are further variables."""
    arguments = ["train", pipeline, "--with-monitor", *(["--with-joiner"] if joined else [])]
    return Unit(name="trainer", module=_CLI, arguments=arguments, variables={**variables(settings), **more}, log=log)


def serve_unit(
    pipeline: str,
    settings: Settings,
    port: int | None = None,
    log: Path | None = None,
    *,
    admin_port: int | None = None,
    more: Mapping[str, str] = MappingProxyType({}),
) -> Unit:
    """The HTTP service; ports as `serve` takes them, None as the settings say. `more` are further variables."""
    given = {"--port": port, "--admin-port": admin_port}
    arguments = ["serve", pipeline, *(part for name, n in given.items() if n is not None for part in (name, str(n)))]
    return Unit(
        name="serving",
        module=_CLI,
        arguments=arguments,
        variables={**variables(settings), **more},
        log=log,
        drain_seconds=_SERVING_DRAIN_SECONDS,
    )
