"""The life of a drift alert: opened, updated, resolved. A pure state machine; publishing is somebody else's.

An alert opens after `open_after` drifted windows in a row and is resolved after `resolve_after` quiet ones, so it does
not flap. A window with too little data says nothing and changes nothing. Every instant comes from the window, so a
window that is judged again after a crash yields the same events under the same keys.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import msgspec

from monitors.drift import FeatureDrift
from stream_trainer.kafka import Message

Status = Literal["opened", "updated", "resolved"]
Severity = Literal["info", "warning", "critical"]

PREFIX = "drift/"


class WindowSpan(msgspec.Struct, frozen=True, kw_only=True):
    """The requests a window holds: the first and the last instant, and how many."""

    start: datetime
    end: datetime
    rows: int


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One record of `P.alerts`; the newest one under a key says how the alert stands."""

    alert_key: str
    kind: Literal["drift"] = "drift"
    pipeline: str
    status: Status
    severity: Severity
    feature: str
    statistic: float
    threshold: float
    psi: float
    window: WindowSpan
    model_version: int | None
    opened_at: datetime
    updated_at: datetime
    message: str
    report: str | None = None


class Streak(msgspec.Struct, frozen=True, kw_only=True):
    """How many windows in a row a feature has drifted or been quiet, and since when its alert was last published."""

    drifted: int = 0
    quiet: int = 0
    silent: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertPolicy:
    """How many windows it takes to open, to repeat and to resolve an alert."""

    open_after: int = 2
    resolve_after: int = 2
    repeat_after: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The window that a verdict is about."""

    pipeline: str
    window: WindowSpan
    model_version: int | None


Open = dict[str, Alert]
Streaks = dict[str, Streak]


def step(
    open_alerts: Mapping[str, Alert],
    streaks: Mapping[str, Streak],
    verdicts: Iterable[FeatureDrift],
    evidence: Evidence,
    policy: AlertPolicy,
) -> tuple[Open, Streaks, list[Alert]]:
    """Take in one window's verdicts: the open alerts and streaks after it, and what is to be published."""
    now_open, now_streaks, events = dict(open_alerts), dict(streaks), []
    for verdict in verdicts:
        if verdict.verdict == "insufficient data":
            continue
        streak = _count(now_streaks.get(verdict.feature, Streak()), verdict)
        event = _event(now_open.get(PREFIX + verdict.feature), streak, verdict, evidence, policy)
        now_streaks[verdict.feature] = msgspec.structs.replace(streak, silent=0) if event else streak
        if event is None:
            continue
        events.append(event)
        if event.status == "resolved":
            del now_open[event.alert_key]
        else:
            now_open[event.alert_key] = event
    return now_open, now_streaks, events


def with_report(open_alerts: Mapping[str, Alert], key: str, opened_at: datetime, report: str) -> Alert | None:
    """The alert with the path of its report, None when it is not open any more."""
    alert = open_alerts.get(key)
    if alert is None or alert.opened_at != opened_at:
        return None
    return msgspec.structs.replace(alert, status="updated", report=report)


def restore(messages: Iterable[Message]) -> Open:
    """The drift alerts that are open by the records of `P.alerts`; records of other kinds and unreadable ones are not ours."""
    newest: dict[str, Alert] = {}
    for message in messages:
        if not message.key.startswith(PREFIX):
            continue
        newest.pop(message.key, None)
        try:
            newest[message.key] = msgspec.convert(message.value, Alert)
        except msgspec.ValidationError:
            continue
    return {key: alert for key, alert in newest.items() if alert.status != "resolved"}


def _count(streak: Streak, verdict: FeatureDrift) -> Streak:
    if verdict.verdict == "drift":
        return Streak(drifted=streak.drifted + 1, quiet=0, silent=streak.silent + 1)
    return Streak(drifted=0, quiet=streak.quiet + 1, silent=streak.silent + 1)


def _event(
    before: Alert | None, streak: Streak, verdict: FeatureDrift, evidence: Evidence, policy: AlertPolicy
) -> Alert | None:
    severity: Severity = "critical" if verdict.critical else "warning"
    if before is None:
        return _alert("opened", severity, verdict, evidence, None) if streak.drifted >= policy.open_after else None
    if streak.quiet >= policy.resolve_after:
        return _alert("resolved", before.severity, verdict, evidence, before)
    if streak.drifted and (severity != before.severity or streak.silent >= policy.repeat_after):
        return _alert("updated", severity, verdict, evidence, before)
    return None


def _alert(
    status: Status, severity: Severity, verdict: FeatureDrift, evidence: Evidence, before: Alert | None
) -> Alert:
    at = evidence.window.end
    return Alert(
        alert_key=PREFIX + verdict.feature,
        pipeline=evidence.pipeline,
        status=status,
        severity=severity,
        feature=verdict.feature,
        statistic=verdict.statistic,
        threshold=verdict.threshold,
        psi=verdict.psi,
        window=evidence.window,
        model_version=evidence.model_version,
        opened_at=before.opened_at if before else at,
        updated_at=at,
        message=_message(status, verdict, evidence),
        report=before.report if before else None,
    )


def _message(status: Status, verdict: FeatureDrift, evidence: Evidence) -> str:
    if status == "resolved":
        return f"{verdict.feature} looks again like what was learned (PSI {verdict.psi:.3f})"
    version = f"version {evidence.model_version}" if evidence.model_version else "the newest version"
    return (
        f"{verdict.feature} differs in {evidence.window.rows} requests from what {version} has learned "
        f"(PSI {verdict.psi:.3f}): {verdict.detail}"
    )
