"""Delivery reports of a producer: counted for each request, and served by a thread while any are due."""

import threading
from collections.abc import Callable
from typing import Any

_TURN_SECONDS = 0.05


class Count:
    """Counts the reports of some records and calls `done` with how many were acknowledged, once all are in."""

    def __init__(self, records: int, done: Callable[[int], None]) -> None:
        self._left = records
        self._acknowledged = 0
        self._done = done
        self._lock = threading.Lock()

    def delivered(self, error: Any, _: Any) -> None:
        """One report."""
        with self._lock:
            self._left -= 1
            self._acknowledged += error is None
            finished = self._left == 0
        if finished:
            self._done(self._acknowledged)


class Poller:
    """Calls `poll` while somebody waits; sleeps otherwise."""

    def __init__(self, poll: Callable[[float], int], waiting: Callable[[], int]) -> None:
        self._poll = poll
        self._waiting = waiting
        self._wanted = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="labels", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Records were handed to the producer."""
        self._wanted.set()

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._wanted.set()
        self._thread.join(1)

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            while not self._closed and self._waiting():
                self._poll(_TURN_SECONDS)
            if self._closed:
                return
