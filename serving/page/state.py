"""`GET /page/state`: how the service is doing, as JSON of the form of `State`; the page asks every second.

Seconds are seconds, instants are RFC 3339 in UTC, rates are per second over `window_seconds`: the last minute, or
longer when nobody looked meanwhile and no version came. The answer is kept for half a second, so that many pages
cost no more than one.
"""

import time
from collections.abc import Callable, Mapping
from datetime import datetime

import msgspec

from serving.clock import Clock
from serving.follower import Follower
from serving.metrics import Metrics
from serving.model import Served
from serving.page.samples import (
    Sample,
    Samples,
    bounds,
    by_label,
    counts,
    difference,
    pairs,
    quantile,
    total,
)
from serving.page.swaps import Swap, Swaps
from stream_trainer.offsets import Offsets
from stream_trainer.store import Rows

WINDOW_SECONDS = 60.0
SERIES_SECONDS = 120.0
KEPT_SECONDS = 0.5
_ANSWERED = "answered"
_NEVER_ACCEPTED = "queue_full"


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """The version that serves: `next_offsets` is where its knowledge of each partition ends, `rows` what it counted."""

    number: int
    since: datetime | None
    staleness_seconds: float
    weight_age_seconds: float
    trained_through: datetime | None
    rows: Rows
    next_offsets: Offsets


class Count(msgspec.Struct, frozen=True):
    """How often something happened, since the start and within the window (None where that is not followed)."""

    reason: str
    total: int
    recent: int | None = None


class Point(msgspec.Struct, frozen=True):
    """A moment of the last two minutes."""

    seconds_ago: float
    requests_per_second: float
    p99_seconds: float | None


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """Requests to /predict; `errors` are those that were not answered, by reason, the most frequent first."""

    window_seconds: float
    requests_per_second: float
    rows_per_second: float
    requests: int
    rows: int
    errors: list[Count]
    series: list[Point]


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Of the requests of the window; None without any. A quantile beyond the last bound is that bound, `beyond`."""

    p50_seconds: float | None
    p99_seconds: float | None
    beyond: float


class SwapCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Versions that began to serve; `event_to_served_seconds` is the median over all of them, from append to serving."""

    count: int
    last_seconds: float | None
    event_to_served_seconds: float | None
    refused: list[Count]
    following_errors: list[Count]
    timeline: list[Swap]


class PredictionLogCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Records of predictions: acknowledged by the broker, waiting for it, and lost, by reason."""

    sent: int
    waiting: int
    dropped: list[Count]


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """Which worker answers, from 1; all numbers are its own."""

    number: int
    count: int


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The answer. `reason` says why nothing serves, and is empty when something does; `worker` None: there is one process."""

    at: datetime
    pipeline: str
    reason: str
    served: Version | None
    loaded: list[int]
    traffic: Traffic
    latency: Latency
    swaps: SwapCounts
    log: PredictionLogCounts
    queue_rows: int
    worker: Process | None


class PageState:
    """Computes the answer from the metrics and the follower. Used from one event loop."""

    def __init__(
        self,
        pipeline: str,
        follower: Follower,
        metrics: Metrics,
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        worker: Process | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._worker = worker
        self._follower = follower
        self._metrics = metrics
        self._clock = clock
        self._monotonic = monotonic
        self._samples = Samples(metrics, monotonic)
        self._swaps = Swaps(follower, self._samples, clock)
        self._bounds = bounds(metrics.request_seconds)
        self._kept: tuple[float, bytes] | None = None

    def encoded(self) -> bytes:
        """The JSON, computed at most twice a second."""
        now = self._monotonic()
        if self._kept is None or now - self._kept[0] >= KEPT_SECONDS:
            self._kept = now, msgspec.json.encode(self.state())
        return self._kept[1]

    def state(self) -> State:
        """As it is now."""
        now, timeline, served = self._clock(), self._swaps.last(), self._follower.served
        since = timeline[-1].at if timeline and served is not None and timeline[-1].version == served.number else None
        sample = self._samples.take()
        window = self._samples.since(sample, WINDOW_SECONDS)
        return State(
            at=now,
            pipeline=self._pipeline,
            reason="" if served is not None else self._follower.reason,
            served=None if served is None else _version(served, now, since),
            loaded=[one.number for one in self._follower.loaded()],
            traffic=self._traffic(window[0], sample),
            latency=self._latency(window[0], sample),
            swaps=self._swap_counts(timeline),
            log=self._log(),
            queue_rows=int(total(self._metrics.queue_rows)),
            worker=self._worker,
        )

    def _traffic(self, old: Sample, new: Sample) -> Traffic:
        seconds = new.at - old.at
        return Traffic(
            window_seconds=seconds,
            requests_per_second=_rate(new.requests - old.requests, seconds),
            rows_per_second=_rate(new.rows - old.rows, seconds),
            requests=int(new.requests),
            rows=int(new.rows),
            errors=_errors(old.outcomes, new.outcomes),
            series=self._series(new),
        )

    def _series(self, new: Sample) -> list[Point]:
        return [
            Point(
                round(new.at - b.at, 3),
                _rate(b.requests - a.requests, b.at - a.at),
                quantile(self._bounds, difference(b.latency, a.latency), 0.99),
            )
            for a, b in pairs(self._samples.since(new, SERIES_SECONDS))
        ]

    def _latency(self, old: Sample, new: Sample) -> Latency:
        counted = difference(new.latency, old.latency)
        return Latency(
            p50_seconds=quantile(self._bounds, counted, 0.5),
            p99_seconds=quantile(self._bounds, counted, 0.99),
            beyond=self._bounds[-2],
        )

    def _swap_counts(self, timeline: list[Swap]) -> SwapCounts:
        metrics = self._metrics
        return SwapCounts(
            count=int(total(metrics.swaps)),
            last_seconds=next((swap.seconds for swap in reversed(timeline) if swap.seconds is not None), None),
            event_to_served_seconds=quantile(bounds(metrics.event_to_served), counts(metrics.event_to_served), 0.5),
            refused=_counts(by_label(metrics.refused)),
            following_errors=_counts(by_label(metrics.follower_errors)),
            timeline=timeline,
        )

    def _log(self) -> PredictionLogCounts:
        metrics = self._metrics
        sent, dropped = total(metrics.log_sent), by_label(metrics.log_dropped)
        lost = sum(number for reason, number in dropped.items() if reason != _NEVER_ACCEPTED)
        waiting = max(0.0, total(metrics.log_queued) - sent - lost)
        return PredictionLogCounts(sent=int(sent), waiting=int(waiting), dropped=_counts(dropped))


def _version(served: Served, now: datetime, since: datetime | None) -> Version:
    manifest = served.manifest
    return Version(
        number=served.number,
        since=since,
        staleness_seconds=served.staleness(now),
        weight_age_seconds=max(0.0, (now - manifest.created_at).total_seconds()),
        trained_through=served.trained_through,
        rows=manifest.total,
        next_offsets=manifest.next_offsets,
    )


def _errors(old: Mapping[str, float], new: Mapping[str, float]) -> list[Count]:
    failed = {reason: number for reason, number in new.items() if reason != _ANSWERED}
    return [Count(one.reason, one.total, one.total - int(old.get(one.reason, 0))) for one in _counts(failed)]


def _counts(numbers: Mapping[str, float]) -> list[Count]:
    some = [Count(reason, int(number)) for reason, number in numbers.items() if number]
    return sorted(some, key=lambda one: (-one.total, one.reason))


def _rate(number: float, seconds: float) -> float:
    return round(number / seconds, 3) if seconds > 0 else 0.0
