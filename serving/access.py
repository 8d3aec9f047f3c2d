"""`Gate`: the outermost thing on a port. Who asks, whether they may, how often, and how many at a time.

What a path needs stands in one table, and what is not in it needs the scope admin: a route that somebody adds is closed
until somebody opens it. Raw ASGI, because every prediction passes through here.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from time import monotonic_ns
from types import MappingProxyType

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.keys import ANYBODY, NOBODY, Caller, KeyRing
from serving.metrics import Metrics
from serving.oip.response import refusal
from serving.problems import Problem
from serving.rate_limit import MonotonicNs, retry_after
from stream_trainer.near import is_near, is_near_page

Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Need:
    """What a path takes: a scope (None: nothing), and whether it counts among the concurrent requests."""

    scope: str | None
    counted: bool = True


OPEN = Need(None, counted=False)
PREDICT = Need("predict")
FEEDBACK = Need("feedback")
ADMIN = Need("admin")
WATCH = Need("predict", counted=False)  # a full service can still be looked at


@dataclass(frozen=True, slots=True)
class Table:
    """What the paths of an app take; an exact path before a prefix, everything else admin."""

    exact: Mapping[str, Need]
    prefixes: tuple[tuple[str, Need], ...] = ()

    def need(self, path: str) -> Need:
        """What this path takes."""
        found = self.exact.get(path)
        return self.named(path) or ADMIN if found is None else found

    def named(self, path: str) -> Need | None:
        """What the table says of it; None for what it does not name."""
        if path in self.exact:
            return self.exact[path]
        if ".." in path:  # what a prefix opens ends at its own folder
            return None
        return next((need for prefix, need in self.prefixes if path.startswith(prefix)), None)


PUBLIC = Table(
    MappingProxyType(
        {
            "/": OPEN,
            "/health/live": OPEN,
            "/health/ready": OPEN,
            "/v2/health/live": OPEN,
            "/v2/health/ready": OPEN,
            "/v2": PREDICT,
            "/predict": PREDICT,
            "/metrics": WATCH,
            "/openapi.json": PREDICT,
            "/docs": PREDICT,
            "/docs/oauth2-redirect": PREDICT,
            "/feedback": FEEDBACK,
        }
    ),
    (("/static/", OPEN), ("/v2/", PREDICT), ("/lineage/", PREDICT), ("/page/", PREDICT)),
)
ADMIN_PORT = Table(
    MappingProxyType(
        {
            "/health/live": OPEN,
            "/status": ADMIN,
            "/promote": ADMIN,
            "/rollback": ADMIN,
            "/pin": ADMIN,
            "/release": ADMIN,
            "/reload": ADMIN,
        }
    )
)

# One answer for a key that is missing, wrong, revoked or expired: which of these it is, is nobody's business.
_UNAUTHORIZED = Problem(401, "unauthorized", "this takes an API key", headers={"www-authenticate": "Bearer"})
_FORBIDDEN = Problem(403, "forbidden", "this key may not do that")
_MISDIRECTED = Problem(421, "misdirected", "without API keys only a loopback name or address is answered")
_FOREIGN = Problem(403, "foreign_origin", "without API keys only pages of this machine are answered")
_BUSY = Problem(503, "busy", "too many requests are being answered; ask again soon", headers={"retry-after": "1"})


class Gate:
    """Lets through what may pass and puts the `Caller` into `scope["state"]["caller"]`.

    Args:
        app: what is behind.
        table: what its paths take.
        keys: those in force; None lets everybody do everything, and then only loopback may be bound: requests that
            name another host (DNS rebinding) or come from another site's page are refused.
        metrics: counts what was refused, by reason.
        most: requests that may be under way at a time.
        origins: whose pages may ask without keys, beside this machine's.
        monotonic_ns: for the rates.
    """

    def __init__(
        self,
        app: ASGIApp,
        table: Table,
        *,
        keys: KeyRing | None,
        metrics: Metrics,
        most: int,
        origins: Iterable[str] = (),
        monotonic_ns: MonotonicNs = monotonic_ns,
    ) -> None:
        self.app = app
        self.table = table
        self._keys = keys
        self._refused = metrics.refused_requests
        self._most = most
        self._origins = frozenset(origin.encode() for origin in origins)
        self._monotonic_ns = monotonic_ns
        self._admit: Callable[[Scope, Need], Caller | Problem]
        self._admit = self._by_nearness if keys is None else self._by_key
        self.active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        need = self.table.need(scope["path"])
        admitted = self._admit(scope, need)
        if not isinstance(admitted, Caller):
            await self._no(admitted, scope)(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = admitted
        if not need.counted:
            await self.app(scope, receive, send)
            return
        if self.active >= self._most:
            await self._no(_BUSY, scope)(scope, receive, send)
            return
        self.active += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.active -= 1

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _by_key(self, scope: Scope, need: Need) -> Caller | Problem:
        if need.scope is None:
            return NOBODY
        assert self._keys is not None  # noqa: S101
        text = presented(scope["headers"])
        known = None if text is None else self._keys.verify(text)
        if known is None:
            return _UNAUTHORIZED
        if need.scope not in known.caller.scopes:
            return _FORBIDDEN
        wait = known.bucket.take(self._monotonic_ns())
        if wait:
            headers = {"retry-after": retry_after(wait)}
            return Problem(429, "rate", "this key asks too often", headers=headers)
        return known.caller

    def _by_nearness(self, scope: Scope, need: Need) -> Caller | Problem:  # noqa: ARG002 - all is open
        host: bytes | None = None
        for name, value in scope["headers"]:
            if name == b"host":
                if host is not None:
                    return _MISDIRECTED
                host = value
            elif name == b"origin" and value not in self._origins and not is_near_page(value):
                return _FOREIGN
        if host is None or not is_near(host):
            return _MISDIRECTED
        return ANYBODY

    def _no(self, problem: Problem, scope: Scope) -> Response:
        self._refused.labels(problem.reason).inc()
        of_protocol = scope["path"].startswith("/v2")
        return refusal(problem) if of_protocol else problem.response()


def presented(headers: Headers) -> bytes | None:
    """The one key that a request shows, in `X-API-Key` or else as a bearer token; None for none or for two of a kind."""
    key: bytes | None = None
    bearer: bytes | None = None
    for name, value in headers:
        if name == b"authorization":
            if bearer is not None:
                return None
            bearer = value
        elif name == b"x-api-key":
            if key is not None:
                return None
            key = value
    if key is not None:
        return key
    if bearer is not None and bearer[:7].lower() == b"bearer ":
        return bearer[7:].strip()
    return None
