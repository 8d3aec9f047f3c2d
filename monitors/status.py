"""The monitor's own metrics, in a registry of its own so that several can live in one process."""

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from monitors.alerts import Alert
from monitors.findings import Finding
from monitors.gauges import PREFIX, OpenAlert, Round, Standing
from monitors.summary import Summary

_BATCH_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """Counters and gauges; names begin with `stream_trainer_monitor_`. `clock`: seconds since the epoch."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self.registry = CollectorRegistry()
        self._clock = clock
        self._standing = Standing()
        self._open: dict[str, tuple[OpenAlert, ...]] = {}
        self.registry.register(self._standing)
        self._rows = self._counter("rows", "Predictions read.")
        self._skipped = self._counter("skipped_rows", "Records that were not looked at.", "reason")
        self._late = self._counter("late_rows", "Predictions that came after their window was closed.")
        self._windows = self._counter("windows", "Windows that were closed, by why.", "closing")
        self._verdicts = self._counter("verdicts", "Tests that were made, by what came of them.", "verdict")
        self._events = self._counter("alert_events", "Published alert events.", "status")
        self._webhook = self._counter("webhook_alerts", "Alerts for the webhook.", "outcome")
        self._waiting = self._gauge("webhook_waiting", "Alerts that the webhook has not taken yet.")
        self._reports = self._counter("reports", "Drift reports.", "outcome")
        self._explained = self._counter("explanations", "Explanations of what moved the output.", "outcome")
        self._seconds = Histogram(
            f"{PREFIX}_batch_seconds", "Time in a micro-batch.", buckets=_BATCH_SECONDS, registry=self.registry
        )
        self._batch_at = self._gauge("batch_timestamp_seconds", "When the last micro-batch ended, by the clock.")
        self._read_at = self._gauge("read_timestamp_seconds", "When a prediction was last read, by the clock.")
        self._newest = self._gauge(
            "newest_prediction_timestamp_seconds", "The highest time of a request that was read."
        )
        self._behind = self._gauge("behind_records", "Records of the predictions topic that were not read yet.")

    def read(self, summary: Summary) -> None:
        """Records of one micro-batch."""
        self._rows.inc(summary.rows)
        for reason, count in summary.skipped.items():
            self._skipped.labels(reason).inc(count)
        if summary.rows:
            self._read_at.set(self._clock())
        if summary.end is not None:
            self._newest.set(summary.end.timestamp())

    def late(self, rows: int) -> None:
        """So many predictions came after their window was closed."""
        self._late.inc(rows)

    def behind_by(self, records: Callable[[], float]) -> None:
        """How many records wait in the topic; asked whenever somebody looks."""
        self._behind.set_function(records)

    def evaluated(
        self,
        findings: Iterable[Finding],
        *,
        window_end: datetime | None = None,
        figures: Mapping[str, float] | None = None,
        half: str = "predictions",
    ) -> None:
        """The tests that were made of one window, of its predictions or of its labels."""
        found = tuple(findings)
        for finding in found:
            self._verdicts.labels(finding.state).inc()
        self._standing.evaluated(half, Round(found, self._clock(), window_end, figures or {}))

    def closed(self, closing: str, windows: int = 1) -> None:
        """So many windows were closed."""
        self._windows.labels(closing).inc(windows)

    def alerts(self, events: Iterable[Alert], open_alerts: Iterable[Alert], *, part: str = "windows") -> None:
        """What was published, and what is open now of what this part of the monitor raises."""
        for event in events:
            self._events.labels(event.status).inc()
        self._open[part] = tuple(map(_open, open_alerts))
        self.standing(alert for alerts in tuple(self._open.values()) for alert in alerts)

    def standing(self, open_alerts: Iterable[OpenAlert]) -> None:
        """What is open now."""
        self._standing.standing(open_alerts)

    def report(self, outcome: str) -> None:
        """A report was written, or failed."""
        self._reports.labels(outcome).inc()

    def explained(self, outcome: str) -> None:
        """An explanation was computed, or failed."""
        self._explained.labels(outcome).inc()

    def webhook(self, outcome: str) -> None:
        """An alert was posted to the webhook, or given up."""
        self._webhook.labels(outcome).inc()

    def webhook_waits(self, alerts: int) -> None:
        """So many alerts have to be posted yet."""
        self._waiting.set(alerts)

    def batch(self, seconds: float) -> None:
        """One micro-batch took so long."""
        self._seconds.observe(seconds)
        self._batch_at.set(self._clock())

    def value(self, name: str, **labels: str) -> float:
        """The present value of a metric, by its short name, over all series with these labels; 0 when there is none."""
        samples = (sample for metric in self.registry.collect() for sample in metric.samples)
        wanted = labels.items()
        return sum(s.value for s in samples if s.name == f"{PREFIX}_{name}" and wanted <= s.labels.items())

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"{PREFIX}_{name}", text, registry=self.registry)


def _open(alert: Alert) -> OpenAlert:
    return OpenAlert(
        alert_key=alert.alert_key,
        kind=alert.kind,
        severity=alert.severity,
        feature=alert.feature,
        segment=alert.segment,
        against=alert.against,
    )
