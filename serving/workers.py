"""One of several processes that share a listening socket: what it was handed, and the metrics of all in one scrape.

Each worker hands its numbers to the others over a socket of its own in a private folder, so a scrape tells of all of
them whoever is asked, and nothing is added up: a series belongs to one worker, and starts again at 0 only with it.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
from prometheus_client import Metric, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from serving.metrics import PREFIX, Metrics

logger = logging.getLogger(__name__)

_ANSWER_SECONDS = 1.0
_MODEL_VERSION = f"{PREFIX}_model_version"


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """Which worker this is, and what the parent gave it.

    Attributes:
        index: from 0.
        count: how many there are.
        listeners: descriptors of the listening sockets, inherited.
        parent: descriptor that reads the end of file when the parent is gone.
        folder: where the workers' own sockets are.
    """

    index: int
    count: int
    listeners: tuple[int, ...]
    parent: int
    folder: Path

    @classmethod
    def parse(cls, text: str) -> "Worker":
        """From the form in which a command line carries it."""
        index, count, listeners, parent, folder = text.split(":", 4)
        given = tuple(int(number) for number in listeners.split(","))
        return cls(index=int(index), count=int(count), listeners=given, parent=int(parent), folder=Path(folder))

    def __str__(self) -> str:
        given = ",".join(str(number) for number in self.listeners)
        return f"{self.index}:{self.count}:{given}:{self.parent}:{self.folder}"

    def sockets(self) -> list[socket.socket]:
        """The listening sockets, in the parent's order."""
        return [socket.socket(fileno=number) for number in self.listeners]

    def address(self, index: int) -> str:
        """Where a worker hands out its numbers."""
        return str(self.folder / f"{index}.sock")

    def end_with_parent(self) -> None:
        """SIGTERM to this process once the parent is gone: nobody else would ever end it."""

        def wait() -> None:
            while os.read(self.parent, 1):
                pass
            logger.warning("the parent of worker %d is gone: it ends too", self.index)
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=wait, name="parent", daemon=True).start()


class _Family(msgspec.Struct, array_like=True):
    name: str
    text: str
    kind: str
    samples: list[tuple[str, dict[str, str], float]]


_decode = msgspec.msgpack.Decoder(list[_Family]).decode


class Peers:
    """The numbers of all workers. Hands out this one's in a thread of its own, however busy its event loop is."""

    def __init__(self, worker: Worker, metrics: Metrics) -> None:
        self._worker = worker
        self._metrics = metrics
        self._listener: socket.socket | None = None

    def start(self) -> None:
        """Begin to hand out."""
        address = self._worker.address(self._worker.index)
        Path(address).unlink(missing_ok=True)  # of the process that was this worker before
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(address)
        self._listener.listen(16)
        threading.Thread(target=self._hand_out, args=(self._listener,), name="peers", daemon=True).start()

    def stop(self) -> None:
        """Hand out no more."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()

    async def render(self) -> bytes:
        """The text exposition of all workers that answer, each series with its `worker`, and the skew among them."""
        me = self._worker.index
        others = [index for index in range(self._worker.count) if index != me]
        found = await asyncio.gather(*(self._of(index) for index in others))
        told = {index: families for index, families in zip(others, found, strict=True) if families is not None}
        registry = CollectorRegistry()
        registry.register(_Together({**told, me: families_of(self._metrics.registry.collect())}))
        return generate_latest(registry)

    async def _of(self, index: int) -> list[_Family] | None:
        """None when it does not answer: a worker that is being started again has no series."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self._worker.address(index))
                try:
                    return _decode(await reader.read(-1))
                finally:
                    writer.close()
        except (OSError, TimeoutError, msgspec.MsgspecError) as error:
            logger.warning("worker %d gives no metrics: %s", index, error or type(error).__name__)
            return None

    def _hand_out(self, listener: socket.socket) -> None:
        encode = msgspec.msgpack.Encoder().encode
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(_ANSWER_SECONDS)
                connection.sendall(encode(families_of(self._metrics.registry.collect())))


def families_of(metrics: Iterable[Metric]) -> list[_Family]:
    """What a registry holds, as it is sent."""
    return [
        _Family(m.name, m.documentation, m.type, [(s.name, dict(s.labels), s.value) for s in m.samples])
        for m in metrics
    ]


class _Together(Collector):
    """Families of several workers as one exposition."""

    def __init__(self, told: dict[int, list[_Family]]) -> None:
        self._told = dict(sorted(told.items()))

    def collect(self) -> Iterator[Metric]:
        """See `Collector.collect`."""
        merged: dict[str, Metric] = {}
        versions = []
        for index, families in self._told.items():
            for family in families:
                into = merged.setdefault(family.name, Metric(family.name, family.text, family.kind))
                for name, labels, value in family.samples:
                    into.add_sample(name, {**labels, "worker": str(index)}, value)
                    if name == _MODEL_VERSION and value:  # 0: it was started just now, and answers with none
                        versions.append(value)
        yield from merged.values()
        yield _gauge("workers", "Workers that told of themselves in this scrape.", len(self._told))
        skew = max(versions) - min(versions) if versions else 0.0
        yield _gauge("version_skew", "The highest version that a worker answers with, minus the lowest.", skew)


def _gauge(name: str, text: str, value: float) -> Metric:
    metric = Metric(f"{PREFIX}_{name}", text, "gauge")
    metric.add_sample(f"{PREFIX}_{name}", {}, value)
    return metric
