"""The monitor's own metrics, in a registry of its own so that several can live in one process."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from monitors.alerts import Alert
from monitors.drift import FeatureDrift
from monitors.summary import Summary

_BATCH_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """Counters and gauges; names begin with `stream_trainer_monitor_`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        name = "stream_trainer_monitor_"
        self._rows = Counter(f"{name}rows", "Predictions read", registry=self.registry)
        self._skipped = Counter(f"{name}skipped_rows", "Records not looked at", ["reason"], registry=self.registry)
        self._windows = Counter(f"{name}windows", "Windows closed, by why", ["closing"], registry=self.registry)
        self._verdicts = Counter(f"{name}verdicts", "Verdicts on features", ["verdict"], registry=self.registry)
        self._statistic = Gauge(
            f"{name}drift_statistic", "Chi-squared of the last window", ["feature"], registry=self.registry
        )
        self._psi = Gauge(f"{name}drift_psi", "PSI of the last window", ["feature"], registry=self.registry)
        self._open = Gauge(f"{name}open_alerts", "Open alerts", registry=self.registry)
        self._events = Counter(f"{name}alert_events", "Published alert events", ["status"], registry=self.registry)
        self._webhook = Counter(f"{name}webhook_alerts", "Alerts for the webhook", ["outcome"], registry=self.registry)
        self._reports = Counter(f"{name}reports", "Drift reports", ["outcome"], registry=self.registry)
        self._seconds = Histogram(
            f"{name}batch_seconds", "Time in a micro-batch", buckets=_BATCH_SECONDS, registry=self.registry
        )

    def read(self, summary: Summary) -> None:
        """Records of one micro-batch."""
        self._rows.inc(summary.rows)
        for reason, count in summary.skipped.items():
            self._skipped.labels(reason).inc(count)

    def judged(self, closing: str, verdicts: Iterable[FeatureDrift]) -> None:
        """One window was closed."""
        self._windows.labels(closing).inc()
        for verdict in verdicts:
            self._verdicts.labels(verdict.verdict).inc()
            if verdict.verdict != "insufficient data":
                self._statistic.labels(verdict.feature).set(verdict.statistic)
                self._psi.labels(verdict.feature).set(verdict.psi)

    def alerts(self, events: Iterable[Alert], open_alerts: int) -> None:
        """What was published, and what is open now."""
        for event in events:
            self._events.labels(event.status).inc()
        self._open.set(open_alerts)

    def report(self, outcome: str) -> None:
        """A report was written, or failed."""
        self._reports.labels(outcome).inc()

    def webhook(self, outcome: str) -> None:
        """An alert was posted to the webhook, or not."""
        self._webhook.labels(outcome).inc()

    def batch(self, seconds: float) -> None:
        """One micro-batch took so long."""
        self._seconds.observe(seconds)

    def value(self, name: str, **labels: str) -> float:
        """The present value of a metric, by its short name; 0 when it was never set."""
        return self.registry.get_sample_value(f"stream_trainer_monitor_{name}", labels) or 0.0
