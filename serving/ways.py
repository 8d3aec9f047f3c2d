"""The two ways into the process: what stands in front of the public app and of the admin app."""

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from serving.access import ADMIN_PORT, PUBLIC, Gate
from serving.keys import KeyRing
from serving.metrics import Metrics
from serving.ports import Companion, Server, config_of
from stream_trainer.settings import ServingSettings

_MOST_ORDERS = 16
# What the documents tell a client to send: a page of a listed site may send it too.
_ASKED_WITH = [
    "authorization",
    "content-type",
    "inference-header-content-length",
    "traceparent",
    "x-api-key",
    "x-max-staleness",
    "x-min-model-version",
    "x-on-conflict",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """Who may come in, and how, to either port."""

    serving: ServingSettings
    keys: KeyRing | None
    metrics: Metrics
    tls: ssl.SSLContext | None

    def public(self, app: ASGIApp, listening: Callable[[], None], companions: Sequence[Server] = ()) -> Server:
        """The server of the public port, which its companions follow."""
        return Server(
            config_of(self.public_gate(app), self.serving, self.metrics),
            listening,
            tls=self.tls,
            handshake_seconds=self.serving.head_seconds,
            companions=companions,
        )

    def admin(self, app: ASGIApp) -> Server:
        """The server of the admin port."""
        return Companion(
            config_of(self.admin_gate(app), self.serving, self.metrics),
            lambda: None,
            tls=self.tls,
            handshake_seconds=self.serving.head_seconds,
        )

    def public_gate(self, app: ASGIApp) -> ASGIApp:
        """What stands in front of the public app. Preflights carry no key, so they are answered before the gate."""
        origins = self.serving.cors_origins
        most = self.serving.max_concurrent_requests
        gate = Gate(app, PUBLIC, keys=self.keys, metrics=self.metrics, most=most, origins=origins)
        if not origins:
            return gate
        return CORSMiddleware(
            gate,
            allow_origins=list(origins),
            allow_methods=["GET", "POST"],
            allow_headers=_ASKED_WITH,
            expose_headers=["retry-after", "inference-header-content-length"],
        )

    def admin_gate(self, app: ASGIApp) -> Gate:
        """What stands in front of the admin app; no other site's page may ask here."""
        return Gate(app, ADMIN_PORT, keys=self.keys, metrics=self.metrics, most=_MOST_ORDERS)
