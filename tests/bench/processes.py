"""Starting and ending what is measured: every process that a measurement started is ended by its id."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import psutil

from infra.supervisor import Child, Unit

_GRACE_SECONDS = 15.0


@contextmanager
def running(units: Sequence[Unit]) -> Iterator[list[Child]]:
    """The units as processes; last started, first ended, with all that they have started."""
    children: list[Child] = []
    try:
        for unit in units:
            child = Child(unit)
            children.append(child)
            child.start()
        yield children
    finally:
        for child in reversed(children):
            _end(child)


def tree(pid: int | None) -> list[psutil.Process]:
    """A process and its descendants that live now."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def _end(child: Child) -> None:
    started = tree(child.pid)
    child.drain()
    _, left = psutil.wait_procs(started[1:], timeout=_GRACE_SECONDS)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
