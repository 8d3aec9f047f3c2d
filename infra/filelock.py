"""One writer at a time among processes of this machine: an advisory lock on a file, freed by the kernel on any exit."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stream_trainer.errors import SetupError

_POLL_SECONDS = 0.1


@contextmanager
def exclusive(path: Path, *, wait_seconds: float) -> Iterator[None]:
    """Hold the lock `path` for the block; another holder is waited for.

    Raises:
        SetupError: the other holder did not finish within `wait_seconds`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_seconds
    with path.open("a") as handle:
        while not _taken(handle.fileno()):
            if time.monotonic() > deadline:
                raise SetupError(f"{path} is still held by another process after {wait_seconds:.0f} s: try again later")
            time.sleep(_POLL_SECONDS)
        yield


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
