"""HTTP/1.1 with bounds that uvicorn lacks: on a head's time and size, on connections, on answers that nobody reads.

Without them a client that sends a byte now and then, or reads none, keeps a connection and what belongs to it for ever.
A head that comes in one piece on an open connection starts no timer, so the bounds cost it almost nothing.
An offer to speak another protocol is never taken: such a request is read as if it had not been made.
"""

import asyncio
from asyncio import TimerHandle
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from serving.metrics import Metrics
from serving.problems import Problem
from stream_trainer.problems import MEDIA_TYPE

LINGER_SECONDS = 2.0
MOST_HEADERS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What one connection may take; seconds and bytes. `max_connections` is of one port."""

    head_seconds: float = 10.0
    send_seconds: float = 30.0
    linger_seconds: float = LINGER_SECONDS
    max_head_bytes: int = 32 * 2**10
    max_connections: int = 800


class BoundedProtocol(HttpToolsProtocol):
    """One connection. `bounded` binds the bounds; uvicorn makes one of these for every connection it accepts."""

    bounds = Bounds()
    metrics: Metrics | None = None

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._head_timer: TimerHandle | None = None
        self._send_timer: TimerHandle | None = None
        self._linger_timer: TimerHandle | None = None
        self._in_head = False
        self._head_bytes = 0
        self._chunk_bytes = 0
        self._too_large = False
        self._lost = False
        self._offer = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected: its first head has to come in time."""
        super().connection_made(transport)
        if len(self.connections) > self.bounds.max_connections:
            self._count("too_many")
            transport.abort()
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave no timer behind."""
        self._lost = True
        for timer in (self._head_timer, self._send_timer, self._linger_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._send_timer = self._linger_timer = None
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn leaves it when the connection broke

    def data_received(self, data: bytes) -> None:
        """Bytes came. Those of an unfinished head count, and its time goes on however many more come."""
        if self.transport.is_closing():
            return  # what was already on its way when we closed
        self._chunk_bytes = len(data)
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except (HttpParserError, HttpParserUpgrade):
            self.send_400_response("")
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self.bounds.max_head_bytes:
                self._refuse(431, "head_too_large")
                return
        elif self._is_answering():
            if len(self.headers) > MOST_HEADERS:  # trailers of a body
                self._refuse(431, "head_too_large")
            return
        # A part of a head, or of a body that is already answered, or idle bytes between requests.
        self._unset_keepalive_if_required()
        if self._head_timer is None:
            self._await_head()

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is whole."""
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        most = self.bounds.max_head_bytes
        if len(self.headers) > MOST_HEADERS or (
            self._head_bytes + self._chunk_bytes > most and self._head_size() > most
        ):
            self._too_large = True
            raise _HeadTooLarge
        if not self.parser.should_upgrade():
            super().on_headers_complete()
        elif self.parser.get_method() == b"CONNECT":
            raise _Tunnel
        else:  # `_parse` goes on
            version = self.parser.get_http_version()
            self._offer = _head(self.parser.get_method(), self.url, version, self.headers)

    def on_message_complete(self) -> None:
        """A request is whole. After an offer the parser says so too, but then there is none yet."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer was given; what is still to be read of it has its time too."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._close(self.bounds.send_seconds)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words are text
        """What is not HTTP is answered by a problem like every other."""
        if self._too_large:
            self._refuse(431, "head_too_large")
        else:
            self._refuse(400, "not_http")

    def pause_writing(self) -> None:
        """The client does not read: it has so long to begin again."""
        super().pause_writing()
        if self._send_timer is None:
            self._send_timer = self.loop.call_later(self.bounds.send_seconds, self._give_up, "unread")

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def timeout_keep_alive_handler(self) -> None:
        """Idle for long enough."""
        self._close(self.bounds.send_seconds)

    def shutdown(self) -> None:
        """The server ends: an idle connection at once, another after its answer."""
        super().shutdown()
        if self.transport.is_closing():
            self._close(self.bounds.send_seconds)

    def _parse(self, data: bytes) -> None:
        """Read what came. The parser ends at an offer: a new one takes the same head without it, then what follows.

        Uvicorn answers the head and drops what follows: a body would be lost, or be read as the next request.
        """
        rest = memoryview(data)
        while rest:
            try:
                self.parser.feed_data(rest)
            except HttpParserUpgrade as ended:
                rest = rest[ended.args[0] :]
            else:
                return
            self.parser = HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
            self.parser.feed_data(self._offer)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.bounds.head_seconds, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._is_answering():  # while an answer is under way, what follows may wait unread
            self._await_head()
        elif self._in_head:
            self._refuse(408, "head_timeout")
        else:
            self._count("silent")
            self._close(self.bounds.linger_seconds)

    def _refuse(self, status: int, reason: str) -> None:
        self._count(reason)
        if self._is_answering():
            self.transport.abort()  # another answer in the middle of one would be taken for a part of it
            return
        if not self.transport.is_closing():
            self.transport.write(_answer(status, reason, self.server_state.default_headers))
        self._close(self.bounds.linger_seconds)

    def _close(self, seconds: float) -> None:
        """Close, and when the client does not take what is left within so long, cut."""
        if not self.transport.is_closing():
            self.transport.close()
        if not self._lost and self._linger_timer is None:
            self._linger_timer = self.loop.call_later(seconds, self._give_up, "unread")

    def _give_up(self, reason: str) -> None:
        if not self._lost:
            self._count(reason)
            self.transport.abort()

    def _count(self, reason: str) -> None:
        if self.metrics is not None:
            self.metrics.cut_connections.labels(reason).inc()

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)


class _HeadTooLarge(Exception):
    """Raised inside the parser, which ends the request."""


class _Tunnel(Exception):
    """The same, for a request whose body would be of another protocol."""


def bounded(bounds: Bounds, metrics: Metrics) -> type[BoundedProtocol]:
    """The protocol with these bounds, for `uvicorn.Config(http=…)`."""
    return type("Bounded", (BoundedProtocol,), {"bounds": bounds, "metrics": metrics})


_DETAILS = {
    400: "this is not HTTP/1.1",
    408: "the head of the request did not arrive in time",
    431: "the head of the request is too large",
}


def _head(method: bytes, url: bytes, version: str, headers: list[tuple[bytes, bytes]]) -> bytes:
    """The head as it was read, without its offer."""
    lines = [method + b" " + url + b" HTTP/" + version.encode()]
    lines += [name + b": " + value for name, value in headers if name != b"upgrade"]
    return b"\r\n".join([*lines, b"", b""])


def _answer(status: int, reason: str, headers: list[tuple[bytes, bytes]]) -> bytes:
    body = bytes(Problem(status, reason, _DETAILS[status]).response().body)
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()]
    lines += [name + b": " + value for name, value in headers]
    lines += [b"content-type: " + MEDIA_TYPE.encode(), b"content-length: %d" % len(body), b"connection: close"]
    return b"\r\n".join([*lines, b"", body])
