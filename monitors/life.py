"""The life of alerts: findings open them, keep them and end them. A pure state machine; publishing is somebody else's.

One certain finding opens an alert, because a finding's error is known. It is resolved after several quiet rounds, on a
softer threshold than it was opened by, so it does not flap. Every instant comes from the windows: a round that is judged
again after a crash, from the same state, gives the same events under the same keys.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from monitors.alerts import Alert, Ranking, Status, WindowSpan, key_of, member_keys
from monitors.findings import Finding, Severity
from monitors.history import Offsets
from monitors.telling import message_of
from stream_trainer.acting import SEVERITIES


@dataclass(frozen=True, slots=True, kw_only=True)
class LifePolicy:
    """When alerts open, speak again and end.

    Attributes:
        resolve_after: so many quiet rounds in a row, of the scale that found it or a longer one.
        quiet_above: a round is quiet for an open alert when its p-value is above this one.
        repeat_every: an open alert that goes on is published again so often, in event time; a higher severity at once.
        cooldown: so long after it was resolved an alert does not open again, in event time, but for a higher severity.
        warning: from this PSI on an alert is a warning, below it is for information; `critical` likewise.
    """

    resolve_after: int = 2
    quiet_above: float = 0.01
    repeat_every: timedelta = timedelta(hours=1)
    cooldown: timedelta = timedelta(minutes=15)
    warning: float = 0.1
    critical: float = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The windows that a round is about: `[start, end)` in event time, and the records behind them.

    `ranking`: the features by their share in the change of the model's output, where that is known.
    """

    pipeline: str
    window: WindowSpan
    model_version: int | None
    offsets: Offsets
    ranking: Ranking = ()


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """How it goes with one alert: quiet rounds in a row, the smallest scale that found it, when it was last resolved."""

    quiet: int = 0
    windows: int = 1
    resolved_at: datetime | None = None
    resolved_severity: Severity = "info"


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """What is known between two rounds; msgspec can write it."""

    open: dict[str, Alert] = {}
    courses: dict[str, Course] = {}


def step(life: Life, findings: Iterable[Finding], seen: Seen, policy: LifePolicy) -> tuple[Life, list[Alert]]:
    """Take in one round's findings (one scale): what is known after it, and what is to be published.

    Rounds are taken in the order in which they end; of those that end together the smallest scale first.
    """
    open_alerts, courses, events = dict(life.open), dict(life.courses), []
    for key, finding, learned in _spoken_for(list(findings), life):
        before, course = open_alerts.get(key), courses.get(key, Course())
        status, after = _next(before, course, finding, seen, policy)
        if after != course or key in courses:
            courses[key] = after
        if status is None:
            continue
        alert = _alert(status, key, finding, learned, seen, before, policy)
        events.append(alert)
        if status == "resolved":
            del open_alerts[key]
            courses |= {member: after for member in member_keys(alert) if member not in open_alerts}
        else:
            open_alerts[key] = alert
    return Life(open=open_alerts, courses=courses), events


def severity_of(finding: Finding, policy: LifePolicy) -> Severity:
    """By its own word, else by PSI; a finding that has none is a warning."""
    if finding.severity is not None:
        return finding.severity
    if finding.effect.psi is None:
        return "warning"
    if finding.effect.psi >= policy.critical:
        return "critical"
    return "warning" if finding.effect.psi >= policy.warning else "info"


def _spoken_for(findings: Sequence[Finding], life: Life) -> list[tuple[str, Finding, Finding | None]]:
    """The finding that speaks for each alert, and for drift from the baseline what the learned reference says.

    What differs from both references is told once, as differing from what was learned; meanwhile nothing is said of
    the baseline. Kinds that have one alert for both references are spoken for by what drifted, learned first.
    """
    learned = {(f.feature, f.segment): f for f in findings if f.kind == "drift" and f.against == "learned"}
    chosen: dict[str, tuple[Finding, Finding | None]] = {}
    for finding in findings:
        if finding.state == "not enough data":
            continue
        key, other = key_of(finding), None
        if finding.kind == "drift" and finding.against == "baseline":
            other = learned.get((finding.feature, finding.segment))
            if other is not None and (other.state == "drift" or key_of(other) in life.open):
                continue
        if key not in chosen or _order(finding) < _order(chosen[key][0]):
            chosen[key] = finding, other
    return [(key, finding, other) for key, (finding, other) in chosen.items()]


def _order(finding: Finding) -> tuple[bool, bool, float]:
    return finding.state != "drift", finding.against != "learned", finding.p_value


def _next(
    before: Alert | None, course: Course, finding: Finding, seen: Seen, policy: LifePolicy
) -> tuple[Status | None, Course]:
    if before is None:
        opens = finding.state == "drift" and not _told_already(course, finding, seen, policy)
        return ("opened", Course(windows=finding.windows)) if opens else (None, course)
    if finding.state == "drift":
        course = msgspec.structs.replace(course, quiet=0, windows=min(course.windows, finding.windows))
        worse = SEVERITIES.index(severity_of(finding, policy)) > SEVERITIES.index(before.severity)
        due = seen.window.end - before.updated_at >= policy.repeat_every
        joined = bool(set(finding.together) - set(before.features))
        return ("updated" if worse or due or joined else None), course
    if finding.windows < course.windows:
        return None, course
    if finding.p_value <= policy.quiet_above:
        return None, msgspec.structs.replace(course, quiet=0)
    quiet = course.quiet + 1
    if quiet < policy.resolve_after:
        return None, msgspec.structs.replace(course, quiet=quiet)
    return "resolved", Course(resolved_at=seen.window.end, resolved_severity=before.severity)


def _told_already(course: Course, finding: Finding, seen: Seen, policy: LifePolicy) -> bool:
    """Whether these windows belong to an alert that was resolved, or come so soon after it that they are let pass."""
    if course.resolved_at is None:
        return False
    if seen.window.start < course.resolved_at:
        return True
    worse = SEVERITIES.index(severity_of(finding, policy)) > SEVERITIES.index(course.resolved_severity)
    return not worse and seen.window.end - course.resolved_at < policy.cooldown


def _alert(
    status: Status,
    key: str,
    finding: Finding,
    learned: Finding | None,
    seen: Seen,
    before: Alert | None,
    policy: LifePolicy,
) -> Alert:
    at = seen.window.end
    features = _features(finding, before)
    named = msgspec.structs.replace(finding, together=features) if status == "resolved" else finding
    return Alert(
        alert_key=key,
        kind=finding.kind,
        pipeline=seen.pipeline,
        status=status,
        severity=before.severity if before and status == "resolved" else severity_of(finding, policy),
        feature=finding.feature,
        features=features,
        segment=finding.segment,
        against=finding.against,
        statistic=finding.statistic,
        p_value=finding.p_value,
        threshold=finding.threshold,
        psi=finding.effect.psi or 0.0,
        effect=finding.effect,
        windows=finding.windows,
        rows=finding.rows,
        reference_rows=finding.reference_rows,
        window=seen.window,
        since=before.since if before else seen.window.start,
        offsets=seen.offsets,
        model_version=seen.model_version,
        weight=finding.weight,
        ranking=seen.ranking,
        opened_at=before.opened_at if before else at,
        updated_at=max(before.updated_at, at) if before else at,
        message=message_of(status, named, learned, seen.model_version, unlikely_above=policy.quiet_above),
        report=before.report if before else None,
    )


def _features(finding: Finding, before: Alert | None) -> tuple[str, ...]:
    """All that have belonged to the alert: one that leaves and comes back changes nothing."""
    known = before.features if before else ()
    return (*known, *(name for name in finding.together if name not in known))
