"""A challenger that shadows: it predicts what the champion has answered, is logged beside it, and never answers.

In a thread of its own behind a bounded queue. What does not fit is not predicted, and counted: no request waits.
"""

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from torch import Tensor

from serving.metrics import Metrics
from serving.model import Served
from serving.prediction_log import PredictionSink
from serving.prediction_records import Answered

logger = logging.getLogger(__name__)

_TURN_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadowed:
    """One answered request that the challenger is to predict too; its records have the same prediction ids."""

    served: Served
    ids: Sequence[str]
    rows: Sequence[Any]
    requested_at: datetime


class Shadow:
    """The challenger's share of every request."""

    def __init__(
        self,
        predict: Callable[[Served, Sequence[Any]], Tensor],
        log: PredictionSink,
        metrics: Metrics,
        *,
        max_rows: int,
    ) -> None:
        self._predict = predict
        self._log = log
        self._metrics = metrics
        self._max_rows = max_rows
        self._queue: queue.SimpleQueue[Shadowed] = queue.SimpleQueue()
        self._waiting = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def offer(self, shadowed: Shadowed) -> None:
        """Take a request over; returns at once. The thread begins with the first one."""
        rows = len(shadowed.rows)
        with self._lock:
            fits = self._waiting + rows <= self._max_rows
            if fits:
                self._waiting += rows
        if not fits:
            self._metrics.shadow_dropped.inc(rows)
            return
        self._queue.put(shadowed)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
            self._thread.start()

    def close(self, seconds: float = 2.0) -> None:
        """End the thread once it has predicted what waits, for at most so long."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        while not self._stop.wait(_TURN_SECONDS):
            self._work()
        self._work()

    def _work(self) -> None:
        while True:
            try:
                shadowed = self._queue.get_nowait()
            except queue.Empty:
                return
            try:
                self._answer(shadowed)
            except Exception:
                logger.exception("version %d could not shadow", shadowed.served.number)
                self._metrics.shadow_dropped.inc(len(shadowed.rows))
            finally:
                with self._lock:
                    self._waiting -= len(shadowed.rows)

    def _answer(self, shadowed: Shadowed) -> None:
        outputs = self._predict(shadowed.served, shadowed.rows)
        self._log.record(
            Answered(
                ids=shadowed.ids,
                requested_at=shadowed.requested_at,
                rows=shadowed.rows,
                outputs=outputs.tolist(),
                model_version=shadowed.served.number,
                role="challenger",
            )
        )
