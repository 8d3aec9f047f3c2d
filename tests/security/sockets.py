"""A real server of ours on real sockets, with bounds of a test's choice."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from serving.metrics import Metrics
from serving.ports import Server, config_of, listen
from stream_trainer.settings import ServingSettings

LONG = 10.0  # so long a test waits for what it expects much sooner


@dataclass(frozen=True)
class Running:
    """A server in a thread; `loop` is its event loop."""

    port: int
    server: Server
    metrics: Metrics
    loop: asyncio.AbstractEventLoop

    def connect(self, receive_buffer: int | None = None) -> socket.socket:
        client = socket.socket()
        if receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(LONG)
        client.connect(("127.0.0.1", self.port))
        return client

    def connections(self) -> int:
        return len(self.server.server_state.connections)

    def cut(self, reason: str) -> float:
        name = "stream_trainer_serving_cut_connections_total"
        return self.metrics.registry.get_sample_value(name, {"reason": reason}) or 0.0

    def settled(self, condition: Callable[[], bool]) -> bool:
        """Whether it came true; looked at by the server's own loop, so between two steps of it."""

        async def wait() -> None:
            while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
                await asyncio.sleep(0.005)

        try:
            asyncio.run_coroutine_threadsafe(asyncio.wait_for(wait(), LONG), self.loop).result(2 * LONG)
        except TimeoutError:
            return False
        return True


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the body and answers with as many bytes as the query says."""
    more = scope["path"] != "/early"
    while more:
        more = (await receive()).get("more_body", False)
    size = int(scope["query_string"] or b"2")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
    for at in range(0, size, 2**16):
        part = min(2**16, size - at)
        await send({"type": "http.response.body", "body": b"x" * part, "more_body": at + part < size})


@contextmanager
def running(app: ASGIApp = echo, *, tls: ssl.SSLContext | None = None, **settings: object) -> Iterator[Running]:
    serving = ServingSettings.model_validate(settings)
    metrics = Metrics()
    loops: list[asyncio.AbstractEventLoop] = []
    started = threading.Event()

    def listening() -> None:
        loops.append(asyncio.get_running_loop())
        started.set()

    server = Server(config_of(app, serving, metrics), listening, tls=tls, handshake_seconds=serving.head_seconds)
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        assert started.wait(LONG)
        try:
            yield Running(listener.getsockname()[1], server, metrics, loops[0])
        finally:
            server.should_exit = True
            thread.join(2 * LONG)
        assert not thread.is_alive()


def read_all(client: socket.socket) -> bytes:
    """What comes until the server closes."""
    parts = []
    try:
        while part := client.recv(2**16):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])
