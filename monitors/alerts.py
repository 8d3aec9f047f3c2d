"""The records of `P.alerts` that the monitor writes: what they say, how they are named, how open ones are found again.

An alert says which feature, segment and version, since when, how much and how sure, and where the records behind it
are. How alerts open and end is `life`'s.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Literal, get_args

import msgspec

from monitors.findings import VERSION, Against, Effect, Finding, Kind, Severity
from monitors.history import Offsets
from stream_trainer.acting import TWO_REFERENCES
from stream_trainer.topic_reading import Message

Status = Literal["opened", "updated", "resolved"]
Open = dict[str, "Alert"]
Ranking = tuple[tuple[str, float], ...]
MOST_RANKED = 10


class WindowSpan(msgspec.Struct, frozen=True, kw_only=True):
    """The requests that were judged: the first and the last instant in event time, and how many."""

    start: datetime
    end: datetime
    rows: int


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One record of `P.alerts`; the newest one under a key says how the alert stands.

    Attributes:
        features: those that have gone missing in the same rows since it opened; empty where there is only one. `feature`
            is then the first of those that opened it, and stays so.
        against: what the window was compared with.
        p_value: how often chance alone shows as much; `threshold`: p-values up to this one were called drift.
        psi: of `effect`, 0 where it has no meaning.
        window: what was judged when this was said; `windows`: how many windows that was, taken together.
        rows: values that were compared; `reference_rows`: those they were compared with.
        since: start of the first windows that were found to differ.
        offsets: the records behind `window`, per topic and partition `[first, next)`.
        weight: the feature's share in the change of the model's output.
        ranking: the features with the largest shares in that change, the heaviest first; empty where it is not known.
        report: the HTML report, None until it is written; `plot`: the cell of the dashboard that shows `window`. As
            published both are links (`links`); what the monitor remembers is the report's file name alone.
    """

    alert_key: str
    kind: Kind = "drift"
    pipeline: str
    status: Status
    severity: Severity
    feature: str
    features: tuple[str, ...] = ()
    segment: str = ""
    against: Against = "learned"
    statistic: float
    p_value: float = 1.0
    threshold: float
    psi: float
    effect: Effect = Effect()
    windows: int = 1
    rows: int = 0
    reference_rows: int = 0
    window: WindowSpan
    since: datetime | None = None
    offsets: Offsets = {}
    model_version: int | None
    weight: float | None = None
    ranking: Ranking = ()
    opened_at: datetime
    updated_at: datetime
    message: str
    report: str | None = None
    plot: str | None = None


def key_of(about: Finding | Alert) -> str:
    """`<kind>[/<feature>][/<segment>]`; of kinds that are compared with two references `<kind>/<reference>[…]`.

    Versions come and go: whichever differs, a version beside others has the segment `_version` here.
    """
    reference = about.against if about.kind in TWO_REFERENCES else ""
    segment = VERSION.rstrip("=") if about.segment.startswith(VERSION) else about.segment
    return "/".join(part for part in (about.kind, reference, about.feature, segment) if part)


def member_keys(alert: Alert) -> tuple[str, ...]:
    """Its own key, and those under which its columns would have been told one by one."""
    found = (key_of(msgspec.structs.replace(alert, feature=name)) for name in alert.features)
    return tuple(dict.fromkeys((alert.alert_key, *found)))


def with_report(open_alerts: Mapping[str, Alert], key: str, opened_at: datetime, report: str) -> Alert | None:
    """The alert with the name of its report, None when it is not open any more."""
    alert = open_alerts.get(key)
    if alert is None or alert.opened_at != opened_at:
        return None
    return msgspec.structs.replace(alert, status="updated", report=report)


def restore(messages: Iterable[Message]) -> tuple[Open, list[Alert]]:
    """The alerts of the monitor that are open by the records of `P.alerts`, and ends of those that cannot be read; others' are left out.

    What was written in a form of before would else stay open for whoever reads the topic: nothing here knows of it.
    """
    newest = {m.key: m for m in messages if m.key.partition("/")[0] in get_args(Kind)}
    found: Open = {}
    ends = []
    for key, message in newest.items():
        try:
            found[key] = msgspec.convert(message.value, Alert, str_keys=True)
        except msgspec.ValidationError:
            if isinstance(message.value, dict) and message.value.get("status") != "resolved":
                ends.append(_end_of(message))
    return {key: alert for key, alert in found.items() if alert.status != "resolved"}, ends


def _end_of(message: Message) -> Alert:
    """Of an alert of which only the key and the time are known."""
    at = datetime.fromtimestamp(message.timestamp, UTC)
    kind = msgspec.convert(message.key.partition("/")[0], Kind)
    return Alert(
        alert_key=message.key,
        kind=kind,
        pipeline=str(message.value.get("pipeline", "")),
        status="resolved",
        severity="info",
        feature="",
        statistic=0.0,
        threshold=0.0,
        psi=0.0,
        window=WindowSpan(start=at, end=at, rows=0),
        model_version=None,
        opened_at=at,
        updated_at=at,
        message=f"{message.key}: its record cannot be read any more",
    )
