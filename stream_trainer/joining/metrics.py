"""The joiner's metrics for Prometheus, in a registry of their own; needs prometheus_client, which the extras bring.

They count from the joiner's start: the topics and the markers hold what must not be lost.
"""

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from stream_trainer.joining.commits import Plan
from stream_trainer.joining.matching import EXAMPLE, EXPIRED, JOINED, OUTCOMES
from stream_trainer.joining.recovery import Marker

PREFIX = "stream_trainer_joiner"
_DELAYS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 4 * 3_600.0, 24 * 3_600.0, 7 * 24 * 3_600.0)


class Metrics:
    """Counters and gauges; `clock` gives seconds since 1970."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._oldest: int | None = None
        self.registry = CollectorRegistry()

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"{PREFIX}_{name}", text, registry=self.registry)

        self.outcomes = Counter(f"{PREFIX}_outcomes", "What became of it.", ["outcome"], registry=self.registry)
        for outcome in OUTCOMES:
            self.outcomes.labels(outcome)
        self.batches = Counter(f"{PREFIX}_batches", "Micro-batches that were written.", registry=self.registry)
        self.join_delay_seconds = Histogram(
            f"{PREFIX}_join_delay_seconds", "From prediction to label.", buckets=_DELAYS, registry=self.registry
        )
        self.waiting = gauge("waiting", "Predictions that wait for a label.")
        self.oldest_waiting_seconds = gauge("oldest_waiting_seconds", "How long the oldest of them has waited.")
        self.oldest_waiting_seconds.set_function(self._oldest_seconds)
        self.match_rate = gauge("match_rate", "Share of labelled predictions among those that are decided.")
        self.match_rate.set_function(self._match_rate)
        self.state_bytes = gauge("state_bytes", "Memory that RocksDB uses for the state.")
        self.state_disk_bytes = gauge("state_disk_bytes", "Files of the state, compressed.")

    def wrote(self, _: Marker, todo: Plan) -> None:
        """A batch that was written."""
        self.batches.inc()
        for outcome in OUTCOMES:
            self.outcomes.labels(outcome).inc(todo.counts.get(outcome, 0))
        for row in todo.rows:
            if row.kind == EXAMPLE and row.amount >= 0:
                self.join_delay_seconds.observe(row.amount / 1000)
        self.waiting.set(sum(todo.waiting.values()))
        self._oldest = min(todo.waiting, default=None)

    def sized(self, memory: int, disk: int) -> None:
        """What Spark said of the state after a batch."""
        self.state_bytes.set(memory)
        self.state_disk_bytes.set(disk)

    def _oldest_seconds(self) -> float:
        oldest = self._oldest
        return 0.0 if oldest is None else max(0.0, self._clock() - oldest / 1000)

    def _match_rate(self) -> float:
        joined, expired = (self._counted(outcome) for outcome in (JOINED, EXPIRED))
        return joined / (joined + expired) if joined + expired else float("nan")

    def _counted(self, outcome: str) -> float:
        return self.registry.get_sample_value(f"{PREFIX}_outcomes_total", {"outcome": outcome}) or 0.0
