"""Concurrent requests share a forward pass.

Nothing waits for company: what has arrived by the time the event loop is free is one batch, and what arrives while a
batch is being computed is the next one. Small quick batches run on the loop, because a hop to a thread costs more
than they do; the others run in one thread, so that others are parsed and answered meanwhile.
"""

import asyncio
import itertools
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from serving.daemon_threads import DaemonThreads
from serving.metrics import Metrics
from serving.model import Served, is_finite
from serving.problems import Problem
from serving.rows import Rows

logger = logging.getLogger(__name__)

INLINE_SECONDS = 0.004
_FEW_ROWS = 8
_SMOOTHING = 0.2

Predict = Callable[[Served, Any], Tensor]
Join = Callable[[Sequence[Any]], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """Bounds of what waits and of what is computed at once.

    Attributes:
        batch_rows: a batch is closed at so many rows; a single larger request is a batch of its own.
        queue_rows: rows that may wait; a single larger request may wait alone.
        queue_requests: requests that may wait.
        seconds: a request that has no answer after so long gets none.
    """

    batch_rows: int = 1024
    queue_rows: int = 50_000
    queue_requests: int = 2_000
    seconds: float = 5.0


class Cost:
    """What a batch will cost, by what batches have cost: so much a call, and so much a row beyond a few.

    Measured in CPU seconds of the thread that computes: waiting for the interpreter says nothing about the model.
    """

    def __init__(self) -> None:
        self._call = math.inf
        self._row = 0.0

    def observe(self, rows: int, seconds: float) -> None:
        """A batch of so many rows has cost so much; the newest count most."""
        if math.isinf(self._call):
            self._call = seconds
        elif rows <= _FEW_ROWS or seconds < self._call:  # a large batch that cost less than a call: calls are cheaper
            self._call += _SMOOTHING * (seconds - self._call)
        if rows > _FEW_ROWS:
            self._row += _SMOOTHING * (max(0.0, seconds - self._call) / rows - self._row)

    def estimate(self, rows: int) -> float:
        """Seconds; infinite before anything was observed, so that nobody waits on the loop for a model nobody knows."""
        return self._call + self._row * rows


@dataclass(slots=True, eq=False)
class _Work:
    served: Served
    rows: Sized
    done: "asyncio.Future[list[Any]]"
    arrived: float


class Batches:
    """The queue in front of the model. Used from one event loop only."""

    def __init__(
        self,
        predict: Predict,
        metrics: Metrics,
        limits: BatchLimits,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        inline_seconds: float = INLINE_SECONDS,
        join: Join = Rows.joined,
    ) -> None:
        self._predict = predict
        self._join = join
        self._metrics = metrics
        self._limits = limits
        self._monotonic = monotonic
        self._inline_seconds = inline_seconds
        self._cost = Cost()
        self._waiting: deque[_Work] = deque()
        self._rows = 0
        self._scheduled = False
        self._running: list[_Work] = []
        self._expiry: asyncio.TimerHandle | None = None
        self._pool = DaemonThreads("inference")
        metrics.queue_rows.set_function(lambda: self._rows)

    @property
    def busy(self) -> bool:
        """Whether a batch is being computed in the thread, so that whoever comes now will wait."""
        return bool(self._running)

    async def outputs(self, served: Served, rows: Sized) -> list[Any]:
        """What a version says of rows, one output each. A caller that is cancelled leaves the queue.

        Raises:
            Problem: 503 when the queue is full, or when the answer took too long.
        """
        if self._rows and (
            self._rows + len(rows) > self._limits.queue_rows or len(self._waiting) >= self._limits.queue_requests
        ):
            raise Problem(503, "queue_full", "too many requests are waiting", headers={"retry-after": "1"})
        loop = asyncio.get_running_loop()
        work = _Work(served, rows, loop.create_future(), self._monotonic())
        self._waiting.append(work)
        self._rows += len(rows)
        self._wake(loop)
        try:
            return await work.done
        except asyncio.CancelledError:
            if work in self._waiting:
                self._waiting.remove(work)
                self._rows -= len(rows)
            raise

    def close(self) -> None:
        """End the thread after the batch that it computes."""
        self._pool.shutdown(wait=False)

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        if not (self._scheduled or self._running):
            self._scheduled = True
            loop.call_soon(self._flush, loop)

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        self._scheduled = False
        works = self._take()
        if not works:
            return
        if self._cost.estimate(sum(len(work.rows) for work in works)) < self._inline_seconds:
            _settle(self._computed(works))
            if self._waiting:
                self._wake(loop)
            return
        self._running = works
        computed = loop.run_in_executor(self._pool, self._computed, works)
        computed.add_done_callback(lambda future: self._ran(loop, future))
        self._watch(loop)

    def _take(self) -> list[_Work]:
        works: list[_Work] = []
        rows = 0
        now = self._monotonic()
        while self._waiting and (not works or rows + len(self._waiting[0].rows) <= self._limits.batch_rows):
            work = self._waiting.popleft()
            self._rows -= len(work.rows)
            if now - work.arrived >= self._limits.seconds:
                _refuse(work)
            elif not work.done.done():
                works.append(work)
                rows += len(work.rows)
        if works:
            self._metrics.queue_seconds.observe(now - works[0].arrived)
        return works

    def _computed(self, works: list[_Work]) -> list[tuple[_Work, list[Any] | Exception]]:
        started, spent = self._monotonic(), time.thread_time()
        found: list[tuple[_Work, list[Any] | Exception]] = []
        for _, group in itertools.groupby(sorted(works, key=_model), key=_model):
            found += self._of_one_version(list(group))
        rows = sum(len(work.rows) for work in works)
        self._cost.observe(rows, time.thread_time() - spent)
        self._metrics.batch_rows.observe(rows)
        self._metrics.inference_seconds.observe(self._monotonic() - started)
        return found

    def _of_one_version(self, works: list[_Work]) -> list[tuple[_Work, list[Any] | Exception]]:
        rows = self._join([work.rows for work in works])
        try:
            values = self._checked(works[0].served, rows)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is one request's failure
            if len(works) == 1:
                return [(works[0], error)]
            return [pair for work in works for pair in self._of_one_version([work])]
        ends = list(itertools.accumulate(len(work.rows) for work in works))
        return [(work, values[end - len(work.rows) : end]) for work, end in zip(works, ends, strict=True)]

    def _checked(self, served: Served, rows: Sized) -> list[Any]:
        try:
            outputs = self._predict(served, rows)
        except (StopIteration, SystemExit) as error:  # a future takes the one for its own, a thread ends of the other
            raise RuntimeError(f"version {served.number} raised {type(error).__name__}") from error
        if outputs.ndim == 0 or len(outputs) != len(rows):
            raise ValueError(
                f"version {served.number} gave outputs of shape {tuple(outputs.shape)} for {len(rows)} rows"
            )
        if not is_finite(outputs):
            raise ValueError(f"version {served.number} gave an output that is not finite")
        values: list[Any] = outputs.tolist()
        return values

    def _ran(
        self, loop: asyncio.AbstractEventLoop, computed: "asyncio.Future[list[tuple[_Work, list[Any] | Exception]]]"
    ) -> None:
        self._running = []
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if not computed.cancelled():
            _settle(computed.result())
        self._wake(loop)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """A batch that hangs must not hold its requests, nor those behind it, for longer than was promised."""
        waits = [work.arrived for work in (*self._running, *itertools.islice(self._waiting, 1)) if not work.done.done()]
        oldest = min(waits, default=self._monotonic())
        self._expiry = loop.call_later(oldest + self._limits.seconds - self._monotonic(), self._expire, loop)

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        now = self._monotonic()
        for work in self._running:
            if now - work.arrived >= self._limits.seconds:
                _refuse(work)
        while self._waiting and now - self._waiting[0].arrived >= self._limits.seconds:
            work = self._waiting.popleft()
            self._rows -= len(work.rows)
            _refuse(work)
        self._watch(loop)


def _model(work: _Work) -> int:
    return id(work.served.state)  # the same weights may be served with another word of freshness


def _settle(computed: list[tuple[_Work, list[Any] | Exception]]) -> None:
    for work, outputs in computed:
        if work.done.done():
            continue
        if isinstance(outputs, Exception):
            work.done.set_exception(outputs)
        else:
            work.done.set_result(outputs)


def _refuse(work: _Work) -> None:
    if not work.done.done():
        problem = Problem(503, "timed_out", "the answer took too long", headers={"retry-after": "1"})
        work.done.set_exception(problem)
