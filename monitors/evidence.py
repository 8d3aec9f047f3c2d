"""What a report is told beside its samples: the monitor's own scores, as a file between the two processes."""

import math
from collections.abc import Iterable
from datetime import datetime

import msgspec

from monitors.findings import Finding
from monitors.gauges import bounded, label, scores_of


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """One test of the monitor: `scores` by name (`p_value`, `psi`, …), `alarm` whether it was called drift."""

    kind: str
    feature: str
    segment: str
    against: str
    alarm: bool
    scores: dict[str, float]


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """The window that a report is about.

    Attributes:
        pipeline: becomes the project of the workspace.
        end: the window's end in event time, and so the time of its snapshot.
        version: the model version that served it.
        alerts: the keys of the alerts that opened.
        scores: all tests of the round that have a verdict, as many as the gauges have series for.
    """

    pipeline: str
    end: datetime
    version: int | None = None
    alerts: list[str] = []
    scores: list[Score] = []


def scores_for_report(findings: Iterable[Finding]) -> list[Score]:
    """The numbers that the gauges tell of the same findings, under the same names."""
    kept, _ = bounded(findings)
    return [
        Score(
            kind=finding.kind,
            feature=label(finding.feature),
            segment=label(finding.segment),
            against=finding.against,
            alarm=finding.state == "drift",
            scores={name: value for name, value in scores_of(finding).items() if math.isfinite(value)},
        )
        for finding in kept
        if finding.state != "not enough data"
    ]


def encoded(evidence: Evidence) -> bytes:
    """As JSON."""
    return msgspec.json.encode(evidence)


def decoded(data: bytes) -> Evidence:
    """The inverse of `encoded`.

    Raises:
        msgspec.MsgspecError: it is something else.
    """
    return msgspec.json.decode(data, type=Evidence)
