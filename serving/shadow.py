"""A challenger that shadows: it predicts what the champion has answered, is logged beside it, and never answers.

In a thread of its own behind a bounded queue. What does not fit is not predicted, and counted: no request waits.
"""

import itertools
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from torch import Tensor

from serving.lone_threads import lone_thread
from serving.metrics import Metrics
from serving.model import Served
from serving.prediction_log import PredictionSink
from serving.prediction_records import Answered
from serving.rows import Rows

logger = logging.getLogger(__name__)

_BATCH_ROWS = 1024
_TURN_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadowed:
    """One answered request that the challenger is to predict too; its records have the same prediction ids."""

    served: Served
    ids: Sequence[str]
    rows: Rows
    requested_at: datetime


class Shadow:
    """The challenger's part of every request."""

    def __init__(
        self,
        predict: Callable[[Served, Rows], Tensor],
        log: PredictionSink,
        metrics: Metrics,
        *,
        max_rows: int,
    ) -> None:
        self._predict = predict
        self._log = log
        self._metrics = metrics
        self._max_rows = max_rows
        self._queue: queue.SimpleQueue[Shadowed | None] = queue.SimpleQueue()
        self._waiting = 0
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def offer(self, shadowed: Shadowed) -> None:
        """Take a request over; returns at once. The thread begins with the first one, and ends with `close`."""
        rows = len(shadowed.rows)
        with self._lock:
            fits = not self._closed.is_set() and self._waiting + rows <= self._max_rows
            if fits:
                self._waiting += rows
        if not fits:
            self._metrics.shadow_dropped.inc(rows)
            return
        self._queue.put(shadowed)
        if self._thread is None:
            self._thread = lone_thread(self._run, "shadow")
            self._thread.start()

    def close(self, seconds: float = 1.0) -> None:
        """Take nothing over any more and end after the batch at hand, for at most so long; the rest is counted."""
        with self._lock:
            self._closed.set()
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(seconds)
        with self._lock:
            left, self._waiting = self._waiting, 0
        self._metrics.shadow_dropped.inc(left)

    def _run(self) -> None:
        while not self._closed.is_set():
            first = self._queue.get()
            if first is None or self._closed.is_set():
                return
            self._work([first, *self._arrived()])
            self._closed.wait(_TURN_SECONDS)  # in turns: requests need the interpreter more

    def _arrived(self) -> list[Shadowed]:
        found: list[Shadowed] = []
        rows = 0
        with suppress(queue.Empty):
            while rows < _BATCH_ROWS:
                work = self._queue.get_nowait()
                if work is None:
                    break
                found.append(work)
                rows += len(work.rows)
        return found

    def _work(self, works: list[Shadowed]) -> None:
        for _, group in itertools.groupby(works, key=lambda work: id(work.served)):
            some = list(group)
            rows = Rows.joined([work.rows for work in some])
            try:
                self._keep(some, self._predict(some[0].served, rows).tolist())
            except Exception:
                logger.exception("version %d could not shadow", some[0].served.number)
                self._metrics.shadow_dropped.inc(len(rows))
            finally:
                with self._lock:
                    self._waiting -= len(rows)

    def _keep(self, works: list[Shadowed], outputs: list[Any]) -> None:
        values = iter(outputs)
        for work in works:
            self._log.record(
                Answered(
                    ids=work.ids,
                    requested_at=work.requested_at,
                    rows=work.rows,
                    outputs=list(itertools.islice(values, len(work.rows))),
                    model_version=work.served.number,
                    role="challenger",
                )
            )
