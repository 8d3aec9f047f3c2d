"""What Prometheus reads, in a registry of its own: several services in one process do not collide."""

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from stream_trainer.evaluation.series import Score, scores_of

PREFIX = "stream_trainer_serving"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
_FRESHNESS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """The service's counters, gauges and histograms; one instance a service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._scored: set[tuple[str, ...]] = set()

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"{PREFIX}_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(f"{PREFIX}_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"{PREFIX}_{name}", text, registry=self.registry, buckets=buckets)

        self.requests = counter("requests", "Requests for predictions by outcome.", ("outcome",))
        self.feedback = counter("feedback_requests", "Requests with labels by outcome.", ("outcome",))
        self.labels_taken = counter("labels_taken", "Labels that Kafka has acknowledged.")
        self.answered = self.requests.labels("answered")  # looked up once: most requests are
        self.request_seconds = histogram("request_seconds", "Seconds from the request's head to its answer.", _SECONDS)
        self.refused_requests = counter("refused_requests", "Requests the gate did not let through.", ("reason",))
        self.cut_connections = counter("cut_connections", "Connections given up, by reason.", ("reason",))
        self.keys_refused = counter("keys_refused", "Times the file of API keys could not be used.")
        self.queue_rows = gauge("queue_rows", "Rows that wait for a forward pass.")
        self.queue_seconds = histogram("queue_seconds", "Seconds the oldest request of a batch waited.", _SECONDS)
        self.inference_seconds = histogram(
            "inference_seconds", "Seconds from parsed rows to outputs, a batch.", _SECONDS
        )
        self.batch_rows = histogram("batch_rows", "Rows that shared a forward pass.", _ROWS)
        self.rows = counter("rows", "Rows answered with an output.")
        self.model_version = gauge("model_version", "The version that answers; 0 while there is none.")
        self.champion_version = gauge("champion_version", "The version that should answer; 0 while none is known.")
        self.staleness = gauge("staleness_seconds", "Now minus the last time the end of the log was covered.")
        self.weight_age = gauge("weight_age_seconds", "Now minus the commit of the version that answers.")
        self.score = gauge("score", "A score of the version that answers.", Score._fields[:-1])
        self.swaps = counter("swaps", "Times another version began to answer.")
        self.swap_seconds = histogram("swap_seconds", "Seconds to read, check and warm up a version.", _SECONDS)
        self.refused = counter("refused_versions", "Versions that failed a check, by reason.", ("reason",))
        self.follower_errors = counter("follower_errors", "Failures while following versions, by kind.", ("kind",))
        self.shadow_dropped = counter("shadow_dropped", "Rows that the challenger was to shadow and did not.")
        # Both ends of a version's append times are observed: the newest row waited least and the oldest most, so the
        # upper quantiles err on the slow side.
        self.event_to_served = histogram(
            "event_to_served_seconds", "Seconds from a record's append to weights that learned from it.", _FRESHNESS
        )
        self.log_queued = counter("prediction_log_queued", "Prediction records accepted for writing.")
        self.log_sent = counter("prediction_log_sent", "Prediction records the broker has acknowledged.")
        self.log_dropped = counter("prediction_log_dropped", "Prediction records lost, by reason.", ("reason",))
        self.trial_rows = gauge("trial_rows", "Labelled rows on which champion and challenger were compared.")
        self.trial_loss = gauge("trial_loss", "Mean log loss (numbers: squared error) over these rows.", ("role",))
        self.trial_evidence = gauge("trial_evidence", "E-value of the trial; 1/alpha decides it.", ("for",))
        self.trial_errors = counter("trial_errors", "Failures of the trial, by kind.", ("kind",))
        self.trace_spans = counter(
            "trace_spans", "Spans that ended, and those sent to the collector or lost.", ("result",)
        )

    def show_scores(self, metrics: Mapping[str, Any]) -> None:
        """What the manifest of the version that answers says of its forecasts; series that it lacks end."""
        told: dict[tuple[str, ...], float] = {score[:-1]: score.value for score in scores_of(metrics)}
        for labels, value in told.items():
            self.score.labels(*labels).set(value)
        for labels in self._scored - told.keys():
            self.score.remove(*labels)
        self._scored = set(told)

    def render(self) -> bytes:
        """The text exposition format."""
        return generate_latest(self.registry)
