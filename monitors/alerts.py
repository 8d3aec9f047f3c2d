"""The records of `P.alerts` that the monitor writes: what they say, how they are named, how open ones are found again.

An alert says which feature, segment and version, since when, how much and how sure, and where the records behind it
are. How alerts open and end is `life`'s.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal, get_args

import msgspec

from monitors.findings import Against, Effect, Finding, Kind, Severity
from monitors.history import Offsets
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


def key_of(finding: Finding) -> str:
    """`drift/<reference>/<feature>[/<segment>]`; `<kind>[/<feature>][/<segment>]` of the other kinds."""
    reference = (finding.against,) if finding.kind == "drift" else ()
    return "/".join(part for part in (finding.kind, *reference, finding.feature, finding.segment) if part)


def member_keys(alert: Alert) -> tuple[str, ...]:
    """Its own key, and those under which its columns would have been told one by one."""
    found = ("/".join(part for part in (alert.kind, name, alert.segment) if part) for name in alert.features)
    return tuple(dict.fromkeys((alert.alert_key, *found)))


def with_report(open_alerts: Mapping[str, Alert], key: str, opened_at: datetime, report: str) -> Alert | None:
    """The alert with the name of its report, None when it is not open any more."""
    alert = open_alerts.get(key)
    if alert is None or alert.opened_at != opened_at:
        return None
    return msgspec.structs.replace(alert, status="updated", report=report)


def restore(messages: Iterable[Message]) -> Open:
    """The alerts of the monitor that are open by the records of `P.alerts`; others' and unreadable ones are left out."""
    newest: Open = {}
    for message in messages:
        if message.key.partition("/")[0] not in get_args(Kind):
            continue
        newest.pop(message.key, None)
        try:
            newest[message.key] = msgspec.convert(message.value, Alert, str_keys=True)
        except msgspec.ValidationError:
            continue
    return {key: alert for key, alert in newest.items() if alert.status != "resolved"}
