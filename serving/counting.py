"""Counts and times one request for predictions, by what became of it: `/predict` and the protocol of `/v2` alike."""

import time
from types import TracebackType

from starlette.requests import ClientDisconnect

from serving.metrics import Metrics
from serving.problems import Problem


class Counting:
    """A block that is one request. How it ends is its outcome: `answered`, a problem's reason, `disconnected` or `failed`."""

    __slots__ = ("_metrics", "_started")

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, _kind: object, error: BaseException | None, _trace: TracebackType | None) -> None:
        (self._metrics.answered if error is None else self._metrics.requests.labels(_outcome(error))).inc()
        self._metrics.request_seconds.observe(time.perf_counter() - self._started)


def _outcome(error: BaseException) -> str:
    match error:
        case Problem(reason=reason):
            return reason
        case ClientDisconnect():
            return "disconnected"
        case _:
            return "failed"
