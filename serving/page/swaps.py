"""Which versions began to serve lately, and how long each swap took. A listener of the follower; the list is bounded."""

import threading
from collections import deque
from datetime import datetime

import msgspec

from serving.clock import Clock
from serving.follower import Follower
from serving.model import Served
from serving.page.samples import Samples

MOST = 40


class Swap(msgspec.Struct, frozen=True, kw_only=True):
    """A version that began to serve.

    Attributes:
        at: when it did.
        seconds: how long reading, checking and warming it up took; None when that is not known.
        rows: rows that all versions up to it have learned from.
    """

    version: int
    at: datetime
    seconds: float | None
    rows: int
    trained_through: datetime | None


class Swaps:
    """The last versions, the newest last."""

    def __init__(self, follower: Follower, samples: Samples, clock: Clock) -> None:
        self._samples = samples
        self._clock = clock
        self._lock = threading.Lock()
        self._begun: deque[Swap] = deque(maxlen=MOST)
        if follower.served is not None:
            self._note(follower.served, None)
        follower.on_swap(self._swapped)

    def last(self) -> list[Swap]:
        """At most `MOST`."""
        with self._lock:
            return list(self._begun)

    def _swapped(self, served: Served, seconds: float) -> None:
        self._samples.note()
        self._note(served, seconds)

    def _note(self, served: Served, seconds: float | None) -> None:
        swap = Swap(
            version=served.number,
            at=self._clock(),
            seconds=seconds,
            rows=served.manifest.total.trained,
            trained_through=served.trained_through,
        )
        with self._lock:
            self._begun.append(swap)
