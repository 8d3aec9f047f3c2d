"""Starting and ending what is measured: every process that a measurement started is ended by its id."""

import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

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


@contextmanager
def program(command: Sequence[str | Path], *, variables: Mapping[str, str], cwd: Path, log: Path) -> Iterator[int]:
    """A program that is not ours, as a process; ended with all that it has started. Its id."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **variables},
            cwd=cwd,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield process.pid
    finally:
        started = tree(process.pid)
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)
        _end_all(started)
        process.wait()


def tree(pid: int | None) -> list[psutil.Process]:
    """A process and its descendants that live now."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def _end(child: Child) -> None:
    started = tree(child.pid)
    child.drain()
    _end_all(started[1:])


def _end_all(started: Sequence[psutil.Process]) -> None:
    _, left = psutil.wait_procs(started, timeout=_GRACE_SECONDS)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
