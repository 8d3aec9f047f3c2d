"""What the newest look at the data says, as gauges: a score, its threshold, how many rows and when, for each test.

Predictions and labels are looked at by themselves. A round replaces the one before it of the same half, so nothing that
is gone is told for ever, and says nothing of the other half. Labels are bounded: so many features, so
many segments, so many open alerts; what is left out is counted. Names come from data, so they are made printable.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from monitors.findings import RANKS, Finding

PREFIX = "stream_trainer_monitor"
MOST_FEATURES = 500
MOST_SEGMENTS = 100
MOST_ALERTS = 200
MOST_FIGURES = 50
MOST_CHARACTERS = 100
TEST = ("kind", "feature", "segment", "against")


class OpenAlert(NamedTuple):
    """What a gauge says of an open alert."""

    alert_key: str
    kind: str
    severity: str
    feature: str = ""
    segment: str = ""
    against: str = ""


class Round(NamedTuple):
    """One evaluation: what it found, when by the clock, and the end of its window in event time."""

    findings: Sequence[Finding]
    at: float
    window_end: datetime | None
    figures: Mapping[str, float]


class Standing(Collector):
    """The gauges of a monitor. Written by one thread, read by any: each value is replaced as a whole."""

    def __init__(self) -> None:
        self._rounds: dict[str, Round] = {}
        self._times: dict[str, dict[tuple[str, ...], float]] = {}
        self._alerts: tuple[OpenAlert, ...] = ()

    def evaluated(self, half: str, newest: Round) -> None:
        """Another round of one half; a test that could not be made keeps the time of its last verdict."""
        before = self._times.get(half, {})
        kept = {labels: before[labels] for finding in newest.findings if (labels := _labels(finding)) in before}
        made = {_labels(finding): newest.at for finding in newest.findings if finding.state != "not enough data"}
        self._times = {**self._times, half: {**kept, **made}}
        self._rounds = {**self._rounds, half: newest}

    def standing(self, alerts: Iterable[OpenAlert]) -> None:
        """The alerts that are open now."""
        self._alerts = tuple(alerts)

    def describe(self) -> list[Metric]:
        """Nothing to look at while registering."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The gauges of now."""
        rounds, times = self._rounds, self._times
        kept, left_out = bounded(finding for each in rounds.values() for finding in each.findings)
        yield from _tests(kept, {labels: at for half in times.values() for labels, at in half.items()})
        yield from _windows(list(rounds.values()), left_out)
        yield from _alerts(self._alerts)


def bounded(findings: Iterable[Finding]) -> tuple[list[Finding], int]:
    """The findings that get series, and how many do not: whole features first, then the least likely segments.

    The same test at several scales counts once, with its smallest p-value.
    """
    least: dict[tuple[str, ...], Finding] = {}
    for finding in findings:
        key = _labels(finding)
        if key not in least or _order(finding) < _order(least[key]):
            least[key] = finding
    whole = [finding for finding in least.values() if not finding.segment]
    parts = sorted((finding for finding in least.values() if finding.segment), key=_order)
    features = set(list(dict.fromkeys(f.feature for f in whole))[:MOST_FEATURES])
    kept = [f for f in whole if f.feature in features] + parts[:MOST_SEGMENTS]
    return kept, len(least) - len(kept)


def label(text: str) -> str:
    """A value of a label: printable, valid UTF-8, and not long."""
    plain = text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)
    return plain if len(plain) <= MOST_CHARACTERS else f"{plain[: MOST_CHARACTERS - 1]}…"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _order(finding: Finding) -> tuple[bool, float, str, str]:
    return finding.state == "not enough data", finding.p_value, finding.feature, finding.segment


def _labels(finding: Finding) -> tuple[str, ...]:
    return finding.kind, label(finding.feature), label(finding.segment), finding.against


def _tests(findings: Iterable[Finding], times: Mapping[tuple[str, ...], float]) -> Iterator[Metric]:
    def gauge(name: str, text: str, labels: Sequence[str] = TEST) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=labels)

    scores = gauge("score", "p_value, psi, jensen_shannon or wasserstein of the last test.", (*TEST, "score"))
    threshold = gauge("threshold", "p-values up to this one were called drift in the last round.")
    rows = gauge("sample_rows", "Known values in the window of the last test.")
    reference = gauge("reference_rows", "Known values they were compared with.")
    drift = gauge("drift", "1 when the last test was called drift, 0 when quiet; none without enough data.")
    weight = gauge("weight", "The feature's share in the change of the model's output, 0 to 1.")
    at = gauge("evaluated_timestamp_seconds", "When the last verdict was made, by the clock.")
    for finding in findings:
        labels = _labels(finding)
        rows.add_metric(labels, finding.rows)
        reference.add_metric(labels, finding.reference_rows)
        if labels in times:
            at.add_metric(labels, times[labels])
        if finding.weight is not None:
            weight.add_metric(labels, finding.weight)
        if finding.state == "not enough data":
            continue
        threshold.add_metric(labels, finding.threshold)
        drift.add_metric(labels, float(finding.state == "drift"))
        for name, value in scores_of(finding).items():
            scores.add_metric((*labels, name), value)
    yield from (scores, threshold, rows, reference, drift, weight, at)


def scores_of(finding: Finding) -> dict[str, float]:
    """The numbers of a finding by name, those that it has."""
    effect = finding.effect
    found = {
        "p_value": finding.p_value,
        "psi": effect.psi,
        "jensen_shannon": effect.jensen_shannon,
        "wasserstein": effect.wasserstein,
    }
    return {name: value for name, value in found.items() if value is not None}


def _windows(newest: Sequence[Round], left_out: int) -> Iterator[Metric]:
    yield GaugeMetricFamily(f"{PREFIX}_tests_left_out", "Tests of the last rounds without series.", value=left_out)
    ends = [each.window_end.timestamp() for each in newest if each.window_end is not None]
    if ends:
        text = "The end of the newest judged window, in event time."
        yield GaugeMetricFamily(f"{PREFIX}_window_end_timestamp_seconds", text, value=max(ends))
    figures = GaugeMetricFamily(f"{PREFIX}_figure", "Figures of the newest judged windows, by name.", labels=("name",))
    told = {name: value for each in newest for name, value in each.figures.items()}
    for name, value in sorted(told.items())[:MOST_FIGURES]:
        figures.add_metric((label(name),), value)
    yield figures


def _alerts(alerts: Sequence[OpenAlert]) -> Iterator[Metric]:
    counts = GaugeMetricFamily(f"{PREFIX}_open_alerts", "Open alerts.", labels=("kind", "severity"))
    for (kind, severity), count in sorted(Counter((a.kind, a.severity) for a in alerts).items()):
        counts.add_metric((kind, severity), count)
    yield counts
    single = GaugeMetricFamily(f"{PREFIX}_open_alert", "1 for each open alert.", labels=OpenAlert._fields)
    worst = sorted(alerts, key=lambda a: (RANKS.get(a.severity, 3), a.alert_key))[:MOST_ALERTS]
    for labels in dict.fromkeys(tuple(label(value) for value in alert) for alert in worst):
        single.add_metric(labels, 1)
    yield single
