"""The two ports: what may be bound where, the bounds of their connections, and one event loop that serves both."""

import asyncio
import contextlib
import functools
import logging
import signal
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from serving.metrics import Metrics
from serving.protocol import Bounds, bounded
from stream_trainer.errors import UsageError
from stream_trainer.settings import ServingSettings, is_loopback

logger = logging.getLogger(__name__)

_GRACE_SECONDS = 10
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# On every answer; what belongs to the content, such as its policy, is set beside it.
_HEADERS = [
    ("x-content-type-options", "nosniff"),
    ("cache-control", "no-store"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
]


class Server(uvicorn.Server):
    """Uvicorn that says when it listens, and returns after a signal instead of raising it again.

    Args:
        config: see `config_of`.
        listening: called once connections are accepted.
        tls: what they are wrapped in.
        handshake_seconds: how long that may take.
        companions: servers that end with this one; it alone hears signals.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        listening: Callable[[], None],
        *,
        tls: ssl.SSLContext | None = None,
        handshake_seconds: float = 10.0,
        companions: Sequence[uvicorn.Server] = (),
    ) -> None:
        super().__init__(config)
        self._listening = listening
        self._tls = tls
        self._handshake_seconds = handshake_seconds
        self._companions = companions

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept, then say so. Uvicorn's own has no bound on handshakes."""
        await self.lifespan.startup()
        make: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        protocol = functools.partial(
            make,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(
                protocol,
                sock=listener,
                ssl=self._tls,
                backlog=self.config.backlog,
                ssl_handshake_timeout=self._handshake_seconds if self._tls else None,
            )
            for listener in sockets or ()
        ]
        self.started = True
        self._listening()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal: this one and its companions end, the second SIGINT at once."""
        super().handle_exit(sig, frame)
        for companion in self._companions:
            companion.handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals end the server; afterwards they are ignored, until `signals_restored` is left."""
        try:
            for number in _SIGNALS:
                signal.signal(number, self.handle_exit)
        except ValueError:  # not the main thread: whoever started this one stops it
            yield
            return
        try:
            yield
        finally:
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_IGN)


class Companion(Server):
    """A server that hears no signals itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The other server hears them."""
        yield


@contextlib.contextmanager
def signals_restored() -> Iterator[None]:
    """Around a server and all that ends after it: what is queued for Kafka is written then, whatever is signalled."""
    before = [(number, signal.getsignal(number)) for number in _SIGNALS]
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # not the main thread: nothing was changed
            for number, handler in before:
                signal.signal(number, handler)


def serve(ports: Sequence[tuple[Server, socket.socket]]) -> None:
    """All of them in one event loop until one ends; then the others end too, each after the answers it owes."""

    async def one(server: Server, listener: socket.socket) -> None:
        try:
            await server.serve(sockets=[listener])
        finally:
            for other, _ in ports:
                other.should_exit = True

    async def every() -> None:
        ended = await asyncio.gather(*(one(*port) for port in ports), return_exceptions=True)
        for failure in (outcome for outcome in ended if outcome is not None):
            raise failure

    with asyncio.Runner(loop_factory=ports[0][0].config.get_loop_factory()) as runner:
        runner.run(every())


def config_of(app: ASGIApp, settings: ServingSettings, metrics: Metrics) -> uvicorn.Config:
    """How uvicorn runs an app of ours: bounded, without a word about itself, its log through ours."""
    bounds = Bounds(
        head_seconds=settings.head_seconds,
        send_seconds=settings.send_seconds,
        max_head_bytes=settings.max_head_bytes,
        max_connections=settings.max_connections,
    )
    secure = settings.profile == "production" and settings.tls_certfile is not None
    return uvicorn.Config(
        app,
        http=bounded(bounds, metrics),
        ws="none",
        lifespan="off",
        workers=1,
        log_config=None,
        log_level="error",  # its warnings are one a bad request: whoever sends those would write our log
        access_log=False,
        server_header=False,
        proxy_headers=False,  # whoever asks would choose the address that it seems to come from
        headers=[*_HEADERS, *([("strict-transport-security", "max-age=31536000")] if secure else [])],
        backlog=settings.backlog,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )


def refuse_open(settings: ServingSettings) -> None:
    """Nothing is reachable from elsewhere unless it asks for a key.

    Raises:
        UsageError: a port would be bound beyond loopback without keys, or profile production has none.
    """
    create = "make a key with `stream-trainer keys create NAME` and set serving.keys_file"
    keyed = settings.keys_file is not None
    if not keyed and settings.profile == "production":
        raise UsageError(f"serving.profile production needs API keys: {create}")
    hosts = [("--host", settings.host)]
    if settings.admin_port is not None:
        hosts.append(("serving.admin_host", settings.admin_host))
    for name, host in hosts:
        if is_loopback(host):
            continue
        if not keyed:
            raise UsageError(
                f"{name} {host} would be open to anyone, because no API keys are configured: {create}, or use 127.0.0.1"
            )
        if settings.tls_certfile is None:
            logger.warning(
                "%s %s without TLS: keys can be read on the way unless a proxy in front ends TLS", name, host
            )


def listen(host: str, port: int, option: str = "--port") -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        UsageError: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise UsageError(
            f"{host}:{port} cannot be bound: {error.strerror}; choose another {option}, 0 for any"
        ) from error


@contextlib.contextmanager
def open_ports(serving: ServingSettings) -> Iterator[list[socket.socket]]:
    """The listening sockets: the public one, then the admin port's if there is one.

    Raises:
        UsageError: an address cannot be bound.
    """
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(listen(serving.host, serving.port))]
        if serving.admin_port is not None:
            found.append(stack.enter_context(listen(serving.admin_host, serving.admin_port, "--admin-port")))
        yield found


def url_of(listener: socket.socket, *, tls: bool = False) -> str:
    """Where it listens."""
    host, port = listener.getsockname()[:2]
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
