"""Many keep-alive clients in one event loop: each asks again as soon as it was answered, and keeps every answer.

Raw protocols, because an HTTP library would spend more on a request than the service does.
"""

import asyncio
import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

import msgspec

_AGAIN_SECONDS = 0.1
_DRAIN_SECONDS = 10.0


class _Prediction(msgspec.Struct):
    output: float


class _Answer(msgspec.Struct):
    model_version: int
    predictions: list[_Prediction]


class Journal:
    """What was answered: parallel columns, an entry an answer with status 200; everything else is in `errors`.

    `started` is on the monotonic clock, which all processes of a machine share; `seconds` is the latency, `row`
    which request it was. `errors` counts by what went wrong, `failed` says when.
    """

    def __init__(self) -> None:
        self.started = array("d")
        self.seconds = array("d")
        self.row = array("I")
        self.version = array("I")
        self.output = array("d")
        self.failed = array("d")
        self.errors: Counter[str] = Counter()
        self.versions: set[int] = set()

    def fail(self, what: str) -> None:
        """Count an error."""
        self.errors[what] += 1
        self.failed.append(time.monotonic())


def request(port: int, body: bytes, authorization: str | None = None) -> bytes:
    """The bytes of a `POST /predict`."""
    lines = ["POST /predict HTTP/1.1", f"host: 127.0.0.1:{port}", "content-type: application/json"]
    lines += [f"authorization: {authorization}"] if authorization else []
    lines += [f"content-length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


class Crowd:
    """So many clients of one service.

    Args:
        port: of the service, on loopback.
        requests: of one row each, from `request`; every client begins at another one and goes round.
        clients: how many.
        on_version: called once for each version that answers, in the order of their first answers.
        every: seconds from a client's request to its next one; 0: as soon as it was answered.
    """

    def __init__(
        self,
        port: int,
        requests: Sequence[bytes],
        clients: int,
        on_version: Callable[[int], None] | None = None,
        *,
        every: float = 0.0,
    ) -> None:
        self.journal = Journal()
        self.stopping = False
        self.requests = requests
        self.every = every
        self._port = port
        self._clients = clients
        self._on_version = on_version
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open: set[_Client] = set()
        self._all_closed = asyncio.Event()

    async def ask(self) -> None:
        """Until `stop`; what is on its way then is waited for."""
        self._loop = asyncio.get_running_loop()
        for number in range(self._clients):
            await self._connect(number * len(self.requests) // self._clients)
        await self._stop.wait()
        self.stopping = True
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS if self._open else 0):
                await self._all_closed.wait()
        for client in list(self._open):
            self.journal.fail("no answer")
            client.close()

    def stop(self) -> None:
        """End; from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)

    def answered(self, answer: bytes, row: int, started: float) -> None:
        """Keep a whole answer."""
        seconds = time.monotonic() - started
        journal = self.journal
        try:
            found = msgspec.json.decode(answer, type=_Answer)
            output = found.predictions[0].output
        except (msgspec.MsgspecError, IndexError):
            journal.fail("not an answer")
            return
        journal.started.append(started)
        journal.seconds.append(seconds)
        journal.row.append(row)
        journal.version.append(found.model_version)
        journal.output.append(output)
        if found.model_version not in journal.versions:
            journal.versions.add(found.model_version)
            if self._on_version is not None:
                self._on_version(found.model_version)

    def opened(self, client: "_Client") -> None:
        """A connection is there."""
        self._open.add(client)

    def lost(self, client: "_Client") -> None:
        """A connection is gone; while the crowd asks, that is an error, and another takes its place."""
        self._open.discard(client)
        if self.stopping:
            if not self._open:
                self._all_closed.set()
        else:
            self.journal.fail("connection lost")
            self._again(client.row)

    async def _connect(self, row: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(partial(_Client, self, row), "127.0.0.1", self._port)
        except OSError:
            self.journal.fail("not connected")
            self._again(row)

    def _again(self, row: int) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(_AGAIN_SECONDS, lambda: self.stopping or loop.create_task(self._connect(row)))


class _Client(asyncio.Protocol):
    def __init__(self, crowd: Crowd, row: int) -> None:
        self.row = row
        self._crowd = crowd
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._started = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._crowd.opened(self)
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found or len(body) < _length(head):
            return
        self._buffer = b""
        if head[9:12] == b"200":
            self._crowd.answered(body, self.row, self._started)
        else:
            self._crowd.journal.fail(f"status {head[9:12].decode(errors='replace')}")
        self.row = (self.row + 1) % len(self._crowd.requests)
        pause = self._started + self._crowd.every - time.monotonic()
        if pause > 0:
            asyncio.get_running_loop().call_later(pause, self._go_on)
        else:
            self._go_on()

    def _go_on(self) -> None:
        if self._crowd.stopping:
            self.close()
        elif self._transport is not None and not self._transport.is_closing():
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.lost(self)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _ask(self) -> None:
        assert self._transport is not None
        self._started = time.monotonic()
        self._transport.write(self._crowd.requests[self.row])


def _length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.split(b"\r\n", 1)[0]) if found else 0


def columns(journal: Journal) -> dict[str, Any]:
    """For a file: the columns, and the errors as two."""
    names = ("started", "seconds", "row", "version", "output", "failed")
    return {name: getattr(journal, name) for name in names} | {
        "error": list(journal.errors),
        "times": list(journal.errors.values()),
    }
