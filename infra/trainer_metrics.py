"""`/metrics` of the trainer: where it stands and how good its forecasts were, computed when somebody asks.

Only with `trainer.metrics_port`; it answers on loopback unless `trainer.metrics_host` says otherwise. It never touches
what the trainer is at: a lineage is a value that nobody changes.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from infra.scraping import told
from stream_trainer.evaluation.series import Score, SegmentScore, scores_of, segment_scores
from stream_trainer.evaluation.table import evaluation
from stream_trainer.lineage import Lineage
from stream_trainer.settings import TrainerSettings

PREFIX = "stream_trainer_trainer"


class Standing(Collector):
    """The gauges of a trainer.

    Args:
        lineage: where the trainer stands; None before it has opened its lineage.
        segments: names of the contract's segments.
    """

    def __init__(self, lineage: Callable[[], Lineage | None], segments: tuple[str, ...]) -> None:
        self._lineage = lineage
        self._segments = segments

    def describe(self) -> list[Metric]:
        """Nothing to look at while registering: there may be no lineage yet."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The gauges of now; no scores before the first row."""
        lineage = self._lineage()
        if lineage is None:
            return
        version = 0 if lineage.head is None else lineage.head.number
        yield GaugeMetricFamily(f"{PREFIX}_version", "The newest version; 0 before the first.", value=version)
        rows = GaugeMetricFamily(f"{PREFIX}_score_rows", "Rows in the window that is scored.", labels=("forecast",))
        for name, scores in (("trained", lineage.prequential.trained), ("served", lineage.prequential.served)):
            rows.add_metric((name,), len(scores.rows))
        yield rows
        whole = GaugeMetricFamily(f"{PREFIX}_score", "A score over the newest window.", labels=Score._fields[:-1])
        for score in scores_of(lineage.prequential.metrics()):
            whole.add_metric(score[:-1], score.value)
        yield whole
        names = SegmentScore._fields[:-1]
        parts = GaugeMetricFamily(f"{PREFIX}_segment_score", "The same of one value of a segment.", labels=names)
        for part in segment_scores(evaluation(lineage.prequential, self._segments).to_pylist()):
            parts.add_metric(part[:-1], part.score)
        yield parts


def metrics_told(
    settings: TrainerSettings, lineage: Callable[[], Lineage | None], segments: tuple[str, ...]
) -> AbstractContextManager[int | None]:
    """Answer `/metrics` for the length of the block, as `told` does; its port.

    Raises:
        UsageError: the port cannot be had.
    """
    registry = CollectorRegistry()
    registry.register(Standing(lineage, segments))
    return told(registry, "trainer", settings)
