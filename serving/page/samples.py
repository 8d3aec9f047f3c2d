"""What the counters were at some moments of the last minutes, so that the page can show rates and not only totals.

A sample is taken when somebody looks at the page and when another version begins to serve: nobody looking costs
nothing, and no task of its own has to be ended. How many are kept is bounded.
"""

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import Histogram
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.samples import Sample as PrometheusSample

from serving.metrics import Metrics

MOST = 240
SPACING_SECONDS = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Cumulative counts at an instant.

    Attributes:
        at: monotonic seconds.
        outcomes: requests by outcome.
        rows: rows answered.
        latency: requests by duration, as `counts` gives them.
    """

    at: float
    outcomes: Mapping[str, float]
    rows: float
    latency: tuple[float, ...]

    @property
    def requests(self) -> float:
        """All requests, whatever came of them."""
        return sum(self.outcomes.values())


class Samples:
    """A bounded series of samples. Used from any thread."""

    def __init__(self, metrics: Metrics, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._kept: deque[Sample] = deque([self._read()], maxlen=MOST)

    def take(self) -> Sample:
        """What the counters are now; kept unless the last one is too near."""
        with self._lock:
            sample = self._read()
            if sample.at - self._kept[-1].at >= SPACING_SECONDS:
                self._kept.append(sample)
            return sample

    def note(self) -> None:
        """As `take`, for whoever needs no sample: nothing is counted when the last one is near."""
        with self._lock:
            if self._monotonic() - self._kept[-1].at >= SPACING_SECONDS:
                self._kept.append(self._read())

    def since(self, now: Sample, seconds: float) -> list[Sample]:
        """Those of so many seconds before `now`, then `now`; at least the last one, however old it is."""
        with self._lock:
            before = [sample for sample in self._kept if sample is not now]
        if not before:
            return [now]
        near = [sample for sample in before if now.at - sample.at <= seconds]
        return [*(near or before[-1:]), now]

    def _read(self) -> Sample:
        return Sample(
            at=self._monotonic(),
            outcomes=by_label(self._metrics.requests),
            rows=total(self._metrics.rows),
            latency=counts(self._metrics.request_seconds),
        )


def pairs(samples: Sequence[Sample]) -> Iterator[tuple[Sample, Sample]]:
    """Each sample with the next one, unless they are too near for a rate to mean anything."""
    return ((old, new) for old, new in itertools.pairwise(samples) if new.at - old.at >= SPACING_SECONDS)


def total(metric: MetricWrapperBase) -> float:
    """The value of a counter or gauge without labels."""
    return next((s.value for s in _samples(metric) if not s.name.endswith("_created")), 0.0)


def by_label(metric: MetricWrapperBase) -> dict[str, float]:
    """The values of a counter with one label, by that label."""
    return {next(iter(s.labels.values())): s.value for s in _samples(metric) if s.name.endswith("_total")}


def counts(histogram: Histogram) -> tuple[float, ...]:
    """Cumulative observations up to each bound of the histogram; the last is all."""
    return tuple(s.value for s in _samples(histogram) if s.name.endswith("_bucket"))


def bounds(histogram: Histogram) -> tuple[float, ...]:
    """The upper bounds that `counts` belongs to; the last is infinity."""
    return tuple(float(s.labels["le"]) for s in _samples(histogram) if s.name.endswith("_bucket"))


def difference(new: Sequence[float], old: Sequence[float]) -> tuple[float, ...]:
    """What was counted in between."""
    return tuple(a - b for a, b in zip(new, old, strict=True))


def quantile(upper: Sequence[float], cumulative: Sequence[float], q: float) -> float | None:
    """A quantile of a histogram by linear interpolation within its bucket, as PromQL's `histogram_quantile`.

    Returns:
        None without observations; the largest finite bound when the quantile lies beyond it.
    """
    everything = cumulative[-1]
    if everything <= 0:
        return None
    rank = q * everything
    below, low = 0.0, 0.0
    for high, count in zip(upper[:-1], cumulative[:-1], strict=True):
        if count >= rank and count > below:
            return low + (high - low) * (rank - below) / (count - below)
        below, low = count, high
    return low


def _samples(metric: MetricWrapperBase) -> Iterator[PrometheusSample]:
    return (sample for family in metric.collect() for sample in family.samples)
