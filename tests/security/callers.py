"""Keys of every kind, and the two apps behind their gates."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from httpx import ASGITransport, AsyncClient, Response
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount
from starlette.types import ASGIApp

from serving.admin import create_admin
from serving.app import create_app
from serving.keys import KeyRing
from serving.metrics import Metrics
from serving.ways import Ways
from stream_trainer.api_keys import Key, Scope, change_keys, make_key
from stream_trainer.settings import ServingSettings
from stream_trainer.store import ModelStore
from tests.serving.fixtures import PIPELINE, Harness, commit_version, learned_state

THEN = datetime(2026, 1, 1, tzinfo=UTC)
KINDS = ("predict", "feedback", "admin", "expired")


@dataclass
class Callers:
    """A file with one key of each kind; `texts` are what their owners hold."""

    path: Path
    texts: dict[str, str] = field(default_factory=dict)
    keys: dict[str, Key] = field(default_factory=dict)

    def add(self, name: str, *scopes: Scope, **more: Any) -> str:
        text, key = make_key(name, scopes, created=THEN, **more)
        change_keys(self.path, lambda keys: (*keys, key))
        self.texts[name], self.keys[name] = text, key
        return text

    def ring(self, metrics: Metrics | None = None, *, rate: float = 1e6, burst: int = 10**6, **more: Any) -> KeyRing:
        return KeyRing(self.path, metrics or Metrics(), rate=rate, burst=burst, **more)


def all_kinds(path: Path) -> Callers:
    callers = Callers(path)
    for scope in ("predict", "feedback", "admin"):
        callers.add(scope, scope)
    callers.add("expired", "predict", "feedback", "admin", expires=THEN + timedelta(days=1))
    return callers


@dataclass
class Doors:
    """Both apps, without and with their gates."""

    public_app: ASGIApp
    admin_app: Starlette
    public: ASGIApp
    admin: ASGIApp
    harness: Harness
    looks: list[None]


def doors(store: ModelStore, keys: KeyRing | None, **settings: Any) -> Doors:
    harness = Harness(store, **settings)
    for seed in range(2):
        commit_version(store, PIPELINE, learned_state(seed=seed))
    harness.follower.look()
    app = create_app(
        harness.pipeline,
        harness.settings,
        log=harness.log,
        follower=harness.follower,
        metrics=harness.metrics,
        store=store,
        clock=harness.clock,
    )
    looks: list[None] = []
    kafka = harness.settings.kafka
    admin = create_admin(store, harness.follower, kafka, look=lambda: looks.append(None), clock=harness.clock)
    ways = Ways(serving=ServingSettings(**settings), keys=keys, metrics=harness.metrics, tls=None)
    return Doors(app, admin, ways.public_gate(app), ways.admin_gate(admin), harness, looks)


@dataclass(frozen=True)
class Asker:
    """Asks an app without a network."""

    app: ASGIApp

    def request(self, method: str, path: str, **more: Any) -> Response:
        async def ask() -> Response:
            transport = ASGITransport(self.app, raise_app_exceptions=False)
            async with AsyncClient(transport=transport, base_url="http://127.0.0.1") as asker:
                return await asker.request(method, path, **more)

        return asyncio.run(ask())

    def get(self, path: str, **more: Any) -> Response:
        return self.request("GET", path, **more)

    def post(self, path: str, **more: Any) -> Response:
        return self.request("POST", path, **more)


def client(app: ASGIApp) -> Asker:
    return Asker(app)


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


def routes_of(app: Any, prefix: str = "") -> dict[str, set[str]]:
    """Every path and its methods, mounted ones included."""
    found: dict[str, set[str]] = {}
    routes: list[BaseRoute] = app.routes
    for route in routes:
        path = prefix + str(getattr(route, "path", ""))
        if isinstance(route, Mount):
            found |= routes_of(route, path) if route.routes else {f"{path}/": {"GET"}}
        else:
            found[path] = set(getattr(route, "methods", None) or {"GET", "POST"})
    return found
