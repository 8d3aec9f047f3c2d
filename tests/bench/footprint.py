"""What processes hold and use: proportional memory (PSS), open file descriptors, CPU time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from tests.bench.processes import tree

MIB = 2**20
_INTERVAL = 0.5


def pss(pid: int | None) -> int:
    """Bytes of a process and all that it has started."""
    total = 0
    for process in tree(pid):
        with suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total


def descriptors(pid: int | None) -> int:
    """Open files and sockets of a process and all that it has started."""
    total = 0
    for process in tree(pid):
        with suppress(psutil.Error):
            total += process.num_fds()
    return total


def cpu_seconds(pid: int | None) -> float:
    """User and system time so far of a process and all that it has started and that still lives."""
    total = 0.0
    for process in tree(pid):
        with suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


class Peak:
    """The largest that was seen."""

    def __init__(self) -> None:
        self.bytes = 0

    def look(self, pid: int | None) -> None:
        """One sample."""
        self.bytes = max(self.bytes, pss(pid))


@contextmanager
def peak(pid: int | None) -> Iterator[Peak]:
    """Samples twice a second while the block runs, and once at its end."""
    found, stopped = Peak(), threading.Event()

    def sample() -> None:
        while not stopped.wait(_INTERVAL):
            found.look(pid)

    thread = threading.Thread(target=sample, name="footprint", daemon=True)
    thread.start()
    try:
        yield found
    finally:
        stopped.set()
        thread.join()
        found.look(pid)
