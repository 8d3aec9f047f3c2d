"""`stream-trainer serve` with the net of `mlp`, as a user starts it: prediction log, metrics and a key for the API."""

import http.client
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from infra import broker
from infra.units import serve_unit
from stream_trainer import api_keys
from stream_trainer.pipeline import Pipeline
from stream_trainer.settings import Settings
from stream_trainer.store import ModelStore, open_store
from tests.bench import mlp
from tests.bench.processes import free_port, running
from tests.bench.world import fresh_settings, with_broker

_METRIC = re.compile(r"^stream_trainer_serving_(\w+?)(?:_total)?(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What a client sends as `authorization`, and what the service must be told so that it takes it."""

    authorization: str | None = None
    variables: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def make_key(settings: Settings) -> Key:
    """A key that may predict, at a rate that no load reaches: what is counted is what a request costs."""
    text, key = api_keys.make_key("bench", ["predict"], created=datetime.now(UTC), rate=1e6, burst=1_000_000)
    path = settings.data_dir / "keys.json"
    api_keys.change_keys(path, lambda keys: (*keys, key))
    variables = {"STREAM_TRAINER_SERVING__KEYS_FILE": str(path)}
    return Key(authorization=f"Bearer {text}", variables=MappingProxyType(variables))


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A broker and a store; nothing has been committed."""

    settings: Settings
    store: ModelStore
    key: Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The running service."""

    port: int
    pid: int
    key: Key
    log: Path

    def metrics(self) -> dict[str, float]:
        """`/metrics` by short name (`rows`, `swaps`, …), summed over labels."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        headers = {"authorization": self.key.authorization} if self.key.authorization else {}
        connection.request("GET", "/metrics", headers=headers)
        text = connection.getresponse().read().decode()
        connection.close()
        found: dict[str, float] = {}
        for name, value in _METRIC.findall(text):
            found[name] = found.get(name, 0.0) + float(value)
        return found


@contextmanager
def world(*pipelines: str, of: Pipeline = mlp.pipeline) -> Iterator[World]:
    """Ended when the block ends; `of`: whose store it is, `pipelines`: further ones whose topics are made."""
    with fresh_settings() as alone:
        try:
            settings = with_broker(alone, of.name, *pipelines)
            yield World(settings=settings, store=open_store(settings, of.name), key=make_key(settings))
        finally:
            broker.stop(alone.broker_dir)


@contextmanager
def service(here: World, address: str = mlp.ADDRESS) -> Iterator[Service]:
    """Started, not yet ready."""
    port, log = free_port(), here.settings.data_dir / "serving.log"
    unit = serve_unit(address, here.settings, port, log, admin_port=-1)
    unit = replace(unit, variables={**unit.variables, **here.key.variables})
    with running([unit]) as (child,):
        assert child.pid is not None
        yield Service(port=port, pid=child.pid, key=here.key, log=log)
