"""The page in a process that does something else: a port, a thread that looks, a thread that answers, and an end.

The port is bound before anything slow begins, so that one which is taken is told at once.
"""

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from monitors.page.app import create_page
from monitors.page.board import Board
from monitors.page.events import Hub
from monitors.page.protocol import PageProtocol
from monitors.page.sources import Sources
from stream_trainer.errors import UsageError
from stream_trainer.settings import is_loopback

LOOK_SECONDS = 2.0
IDLE_SECONDS = 30.0
MAX_CONNECTIONS = 128
_GRACE_SECONDS = 2
_JOIN_SECONDS = 10.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Address:
    """Where the page answers: a listening socket, closed by whoever opened it."""

    listener: socket.socket

    @property
    def near_only(self) -> bool:
        """Whether it is bound to loopback."""
        return is_loopback(str(self.listener.getsockname()[0]))

    @property
    def url(self) -> str:
        """For a browser on this machine, or one that knows its name."""
        host, port = self.listener.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


@contextmanager
def bound(host: str, port: int) -> Iterator[Address]:
    """The port of the page for the length of the block; 0 takes a free one.

    Raises:
        UsageError: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=MAX_CONNECTIONS)
    except OSError as error:
        raise UsageError(
            f"the page cannot be served at {host}:{port}: {error.strerror}; choose another --port, 0 for any, or --no-page"
        ) from error
    with listener:
        address = Address(listener)
        if not address.near_only:
            _log.warning(
                "the page at %s has no keys: whoever reaches it reads features, alerts and versions", address.url
            )
        yield address


@contextmanager
def served(
    address: Address, sources: Sources, *, every: float = LOOK_SECONDS, said: Callable[[str], None] = lambda _: None
) -> Iterator[Board]:
    """Answer for the length of the block; `said` is told the URL once it does.

    Args:
        address: see `bound`.
        sources: what is shown; looked at by one thread, every so many seconds.
        every: those seconds, while a page is open; otherwise seldom, and at once when one is opened.
        said: called with the URL.
    """
    hub = Hub()
    board = Board(sources, hub.publish)
    started = threading.Event()
    server = _Server(_config(board, hub, address), started)
    stop = threading.Event()
    threads = [
        threading.Thread(target=server.run, kwargs={"sockets": [address.listener]}, name="page", daemon=True),
        threading.Thread(target=_look, args=(board, hub, every, stop), name="page-looks", daemon=True),
    ]
    for thread in threads:
        thread.start()
    started.wait(_JOIN_SECONDS)
    said(address.url)
    try:
        yield board
    finally:
        stop.set()
        hub.close()
        server.should_exit = True
        for thread in threads:
            thread.join(_JOIN_SECONDS)


def _look(board: Board, hub: Hub, every: float, stop: threading.Event) -> None:
    while not stop.is_set():
        board.refresh()
        if not hub.idle(IDLE_SECONDS):
            stop.wait(every)


def _config(board: Board, hub: Hub, address: Address) -> uvicorn.Config:
    return uvicorn.Config(
        create_page(board, hub, near_only=address.near_only),
        http=PageProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",  # its lines are one a bad request: whoever sends those would write our log
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        h11_max_incomplete_event_size=32 * 2**10,
    )


class _Server(uvicorn.Server):
    """Says when it listens; signals are the business of the thread that it runs beside."""

    def __init__(self, config: uvicorn.Config, started: threading.Event) -> None:
        super().__init__(config)
        self._listening = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server.startup`."""
        await super().startup(sockets)
        self._listening.set()
