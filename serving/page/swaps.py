"""Which versions began to serve lately, and how long each swap took.

A listener of the follower; it keeps a bounded list and must never raise. The follower tells its listeners before it
knows how long the swap took, so that is read off the histogram afterwards.
"""

import threading
from collections import deque
from dataclasses import dataclass
from datetime import datetime

import msgspec

from serving.clock import Clock
from serving.follower import Follower
from serving.metrics import Metrics
from serving.page.samples import Samples, sum_and_count

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


@dataclass(frozen=True, slots=True)
class _Begun:
    swap: Swap
    sum: float
    count: float


class Swaps:
    """The last versions, the newest last."""

    def __init__(self, follower: Follower, metrics: Metrics, samples: Samples, clock: Clock) -> None:
        self._follower = follower
        self._metrics = metrics
        self._samples = samples
        self._clock = clock
        self._lock = threading.Lock()
        self._begun: deque[_Begun] = deque(maxlen=MOST)
        if follower.served is not None:
            self._note()
        follower.on_swap(self._swapped)

    def last(self) -> list[Swap]:
        """At most `MOST`."""
        with self._lock:
            begun = list(self._begun)
        now = _Begun(begun[-1].swap, *sum_and_count(self._metrics.swap_seconds)) if begun else None
        after = [*begun[1:], now] if now is not None else []
        return [
            msgspec.structs.replace(one.swap, seconds=next_.sum - one.sum if next_.count - one.count == 1 else None)
            for one, next_ in zip(begun, after, strict=True)
        ]

    def _swapped(self) -> None:
        self._samples.take()
        self._note()

    def _note(self) -> None:
        served = self._follower.served
        if served is None:
            return
        total, count = sum_and_count(self._metrics.swap_seconds)
        swap = Swap(
            version=served.number,
            at=self._clock(),
            seconds=None,
            rows=served.manifest.total.trained,
            trained_through=served.trained_through,
        )
        with self._lock:
            self._begun.append(_Begun(swap, total, count))
