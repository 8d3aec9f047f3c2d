"""`/events`: server-sent events (WHATWG HTML, 9.2). One event for each part of the board that has changed.

An event says a part's new revision, never its content; whoever is slow gets the newest revision only, so nothing piles
up. Streams are bounded in number, in how long a client may leave one unread, and in age: whoever has vanished gives
back its place, and whoever is there connects again by itself.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from monitors.page.problems import problem

MAX_STREAMS = 32
RETRY_MS = 2_000
BUSY_SECONDS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Times of a stream, in seconds: between two heartbeats, until an unread one is ended, until any one is."""

    heartbeat: float = 15.0
    unread: float = 30.0
    age: float = 900.0


@dataclass(slots=True, eq=False)
class Stream:
    """What one client has not been told yet; `wake` is set when there is something."""

    loop: asyncio.AbstractEventLoop
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    pending: dict[str, str] = field(default_factory=dict)


class Hub:
    """Tells all streams; `publish` and `close` may be called by any thread."""

    def __init__(self, most: int = MAX_STREAMS) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._streams: set[Stream] = set()
        self._opened = threading.Event()
        self.closed = False

    def open(self, loop: asyncio.AbstractEventLoop) -> Stream | None:
        """A new stream; None when there are as many as there may be."""
        with self._lock:
            if self.closed or len(self._streams) >= self._most:
                return None
            stream = Stream(loop)
            self._streams.add(stream)
            self._opened.set()
            return stream

    def idle(self, seconds: float) -> bool:
        """Wait until somebody listens, so long at most, or until the end; False at once when somebody does."""
        self._opened.clear()
        if self._streams or self.closed:
            return False
        self._opened.wait(seconds)
        return True

    def leave(self, stream: Stream) -> None:
        """A stream has ended."""
        with self._lock:
            self._streams.discard(stream)

    def publish(self, revisions: Mapping[str, str]) -> None:
        """Parts have changed."""
        with self._lock:
            for stream in self._streams:
                stream.pending.update(revisions)
                _wake(stream)

    def close(self) -> None:
        """All streams end."""
        with self._lock:
            self.closed = True
            self._opened.set()
            for stream in self._streams:
                _wake(stream)

    def take(self, stream: Stream) -> dict[str, str]:
        """What a stream is to say now."""
        with self._lock:
            stream.wake.clear()
            taken, stream.pending = stream.pending, {}
            return taken

    def __len__(self) -> int:
        return len(self._streams)


def _wake(stream: Stream) -> None:
    with suppress(RuntimeError):  # its loop has ended, and it with it
        stream.loop.call_soon_threadsafe(stream.wake.set)


class Events:
    """The ASGI endpoint. `revisions` are those of all parts, which a stream begins with."""

    def __init__(self, hub: Hub, revisions: Callable[[], Mapping[str, str]], pace: Pace) -> None:
        self._hub = hub
        self._revisions = revisions
        self._pace = pace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One stream, until the client goes, the pace ends it, or the hub closes."""
        if scope["method"] == "HEAD":
            await Response(media_type="text/event-stream")(scope, receive, send)
            return
        stream = self._hub.open(asyncio.get_running_loop())
        if stream is None:
            full = problem(503, "busy", "as many pages are open as there may be; close one, or ask again soon")
            full.headers["retry-after"] = str(BUSY_SECONDS)
            await full(scope, receive, send)
            return
        gone: asyncio.Future[Any] = asyncio.ensure_future(_gone(receive))
        try:
            with suppress(TimeoutError):  # nobody reads: the connection is closed without an end
                await self._tell(stream, gone, send)
        finally:
            self._hub.leave(stream)
            gone.cancel()

    async def _tell(self, stream: Stream, gone: "asyncio.Future[Any]", send: Send) -> None:
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._pace.age
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send(send, f"retry: {RETRY_MS}\n\n" + _event("hello", self._revisions()))
        while not (gone.done() or self._hub.closed or loop.time() >= ends):
            waking: asyncio.Future[Any] = asyncio.ensure_future(stream.wake.wait())
            patience = min(self._pace.heartbeat, ends - loop.time())
            await asyncio.wait({waking, gone}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            waking.cancel()
            changed = self._hub.take(stream)
            said = "".join(_event(part, {"revision": revision}) for part, revision in changed.items())
            if not gone.done():
                await self._send(send, said or ": still here\n\n")
        if not gone.done():
            await send({"type": "http.response.body", "body": b""})

    async def _send(self, send: Send, text: str) -> None:
        async with asyncio.timeout(self._pace.unread):
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _event(name: str, data: Mapping[str, str]) -> str:
    return f"event: {name}\ndata: {msgspec.json.encode(data).decode()}\n\n"
