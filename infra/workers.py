"""`stream-trainer serve --workers N`: one parent that listens and answers nothing, and N processes that do.

The socket is inherited, not bound N times: what waits to be accepted when a worker dies is accepted by another.
"""

import logging
import os
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from infra.supervisor import Supervisor, Unit
from infra.units import variables
from serving.workers import Worker
from stream_trainer.settings import Settings

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.1
# More than a worker's parts may take one after the other: answers 10 s, shadow 1, log 5, keys, trial and follower 5 each, traces 3.
_DRAIN_SECONDS = 45.0


def serve_with_workers(
    arguments: Sequence[str], settings: Settings, listeners: Sequence[int], stop: threading.Event
) -> int:
    """Run `settings.serving.workers` workers until told to stop, or until one ends for good; the exit code.

    A worker that dies is started again after a pause that grows; all end at once at SIGTERM, each after the answers
    it owes, and by themselves when the parent is killed.

    Args:
        arguments: the command line of one worker, to which `--as-worker` is added.
        settings: where Kafka and the store are.
        listeners: descriptors of listening sockets, which each worker takes over in this order.
        stop: ends it.
    """
    alive, held = os.pipe()
    try:
        with tempfile.TemporaryDirectory(prefix="stream-trainer-", ignore_cleanup_errors=True) as folder:
            units = [
                _unit(arguments, settings, worker)
                for worker in _workers(settings.serving.workers, tuple(listeners), alive, Path(folder))
            ]
            return _run(Supervisor(units), stop)
    finally:
        os.close(alive)
        os.close(held)


def _workers(count: int, listeners: tuple[int, ...], parent: int, folder: Path) -> list[Worker]:
    return [
        Worker(index=index, count=count, listeners=listeners, parent=parent, folder=folder) for index in range(count)
    ]


def _unit(arguments: Sequence[str], settings: Settings, worker: Worker) -> Unit:
    return Unit(
        name=f"worker {worker.index}",
        module="stream_trainer.cli",
        arguments=[*arguments, "--as-worker", str(worker)],
        variables=variables(settings),
        drain_seconds=_DRAIN_SECONDS,
        descriptors=(*worker.listeners, worker.parent),
        endless=True,
        watches=True,
    )


def _run(supervisor: Supervisor, stop: threading.Event) -> int:
    try:
        supervisor.start()
        while not stop.wait(_POLL_SECONDS):
            if not supervisor.look():
                return next(child.code for child in supervisor.children if child.finished)
    finally:
        for child in supervisor.children:
            child.ask_to_end()
        supervisor.drain()
    return 0
