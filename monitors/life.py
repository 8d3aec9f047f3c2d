"""The life of alerts: findings open them, keep them and end them. A pure state machine; publishing is somebody else's.

One certain finding opens an alert, because a finding's error is known. It is resolved after several quiet rounds, on a
softer threshold than it was opened by, so it does not flap. Every instant comes from the windows: a round that is judged
again after a crash, from the same state, gives the same events under the same keys.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from monitors.alerts import Alert, Ranking, Status, WindowSpan, key_of, member_keys
from monitors.findings import VERSION, Finding, Severity, of_examples
from monitors.history import Offsets
from monitors.telling import about, message_of
from stream_trainer.acting import SEVERITIES


@dataclass(frozen=True, slots=True, kw_only=True)
class LifePolicy:
    """When alerts open, speak again and end.

    Attributes:
        resolve_after: so many quiet rounds in a row, of the scale that found it or a longer one.
        quiet_above: a round is quiet for an open alert when its p-value is above this one.
        repeat_every: an open alert that goes on is published again so often, in event time; a higher severity at once.
        repeat_followed: the same of one that differs from the baseline alone, which may be for good.
        cooldown: so long after it was resolved an alert does not open again, in event time, but for a higher severity.
        patience: an alert that so many windows of predictions in a row have not asked about ends; one of several windows together
            after three times as many as they are, if that is later. `label_patience`: one that labels have to speak for.
        remember: so long after it was resolved it is known when that was: windows from before do not open it again.
        warning: from this PSI on an alert is a warning, below it is for information; `critical` likewise.
    """

    resolve_after: int = 2
    quiet_above: float = 0.01
    repeat_every: timedelta = timedelta(hours=1)
    repeat_followed: timedelta = timedelta(days=1)
    cooldown: timedelta = timedelta(minutes=15)
    patience: int = 288
    label_patience: int = 288
    remember: timedelta = timedelta(days=1)
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
    """How it goes with one alert: quiet rounds in a row, the smallest scale that found it, when it was last resolved.

    `unasked`: windows of predictions since it was last asked about, with the one that did.
    """

    quiet: int = 0
    unasked: int = 0
    windows: int = 1
    resolved_at: datetime | None = None
    resolved_severity: Severity = "info"


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """What is known between two rounds; msgspec can write it."""

    open: dict[str, Alert] = {}
    courses: dict[str, Course] = {}


def step(life: Life, findings: Iterable[Finding], seen: Seen, policy: LifePolicy) -> tuple[Life, list[Alert]]:
    """Take in one round's findings (one scale): what is known after it, and what is to be published.

    Rounds are taken in the order in which they end; of those that end together the smallest scale first. Windows that are judged
    again after the state was lost say nothing of alerts that were told since.
    """
    findings = list(findings)
    open_alerts, courses, events = dict(life.open), dict(life.courses), []
    for key in {key_of(finding) for finding in findings if _asks(finding)} & open_alerts.keys():
        courses[key] = msgspec.structs.replace(_course(life, key), unasked=0)
    for key, finding, learned in _spoken_for(findings, life):
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


def end(life: Life, reasons: Mapping[str, str], at: datetime | None = None) -> tuple[Life, list[Alert]]:
    """End open alerts that nothing speaks for any more.

    Args:
        life: before it.
        reasons: why, by key.
        at: in event time; None: when each was told last.
    """
    open_alerts, courses, events = dict(life.open), dict(life.courses), []
    for key, why in reasons.items():
        before = open_alerts.pop(key)
        when = max(at or before.updated_at, before.updated_at)
        message = f"{about(before.kind, before.feature, before.segment, before.features)}: {why}"
        events.append(msgspec.structs.replace(before, status="resolved", updated_at=when, message=message))
        after = Course(resolved_at=when, resolved_severity=before.severity)
        courses |= {member: after for member in member_keys(before) if member not in open_alerts}
    return Life(open=open_alerts, courses=courses), events


def pass_window(life: Life, at: datetime, policy: LifePolicy) -> tuple[Life, list[Alert]]:
    """A window of predictions that ended `at` was judged: alerts that none of many has asked about end, what is long over is forgotten.

    Data may come back, so one window without them ends nothing.
    """
    courses = {
        key: course
        for key, course in life.courses.items()
        if key in life.open or (course.resolved_at is not None and at - course.resolved_at < policy.remember)
    }
    reasons: dict[str, str] = {}
    late: dict[str, str] = {}
    for key, alert in life.open.items():
        if at < alert.updated_at:
            continue
        course = _course(life, key)
        courses[key] = msgspec.structs.replace(course, unasked=course.unasked + 1)
        of_labels = of_examples(alert.kind, alert.feature)
        patience = max(policy.label_patience if of_labels else policy.patience, 3 * course.windows)
        if courses[key].unasked > patience:
            (late if of_labels else reasons)[key] = f"nothing was there to compare in {patience} windows"
    ended, events = end(Life(open=life.open, courses=courses), reasons, at)
    after, more = end(ended, late)  # in the time of the labels, which may come back from before this window
    return after, [*events, *more]


def severity_of(finding: Finding, policy: LifePolicy) -> Severity:
    """By its own word, else by PSI; a finding that has none is a warning."""
    if finding.severity is not None:
        return finding.severity
    if finding.effect.psi is None:
        return "warning"
    if finding.effect.psi >= policy.critical:
        return "critical"
    return "warning" if finding.effect.psi >= policy.warning else "info"


def _asks(finding: Finding) -> bool:
    """Whether there was anything to compare; labels that wait for more of them will be."""
    return finding.state != "not enough data" or finding.kind in ("loss", "concept")


def _course(life: Life, key: str) -> Course:
    """Of an open alert; where only the alert is known, it was found by as many windows as it says."""
    return life.courses.get(key) or Course(windows=life.open[key].windows)


def _spoken_for(findings: Sequence[Finding], life: Life) -> list[tuple[str, Finding, Finding | None]]:
    """The finding that speaks for each alert, and for one against the baseline what the learned reference says.

    What differs from both references is told once, as differing from what was learned; meanwhile nothing is said of
    the baseline.
    """
    learned: dict[str, Finding] = {}
    for finding in findings:
        if finding.against == "learned":
            _take(learned, finding, _keys(finding))
    is_open = {key for alert in life.open.values() for key in member_keys(alert)}
    chosen: dict[str, Finding] = {}
    for finding in findings:
        if finding.state == "not enough data":
            continue
        beside = _keys(msgspec.structs.replace(finding, against="learned")) if finding.against == "baseline" else []
        if not any(key in is_open or (key in learned and learned[key].state == "drift") for key in beside):
            _take(chosen, finding, [key_of(finding)])
    other = {key: key_of(msgspec.structs.replace(finding, against="learned")) for key, finding in chosen.items()}
    return [(key, one, learned.get(other[key]) if one.against == "baseline" else None) for key, one in chosen.items()]


def _keys(finding: Finding) -> list[str]:
    """Of its own name and of those of its companions."""
    return [key_of(msgspec.structs.replace(finding, feature=name)) for name in (finding.feature, *finding.together)]


def _take(best: dict[str, Finding], finding: Finding, keys: Iterable[str]) -> None:
    for key in keys:
        if key not in best or _order(finding) < _order(best[key]):
            best[key] = finding


def _order(finding: Finding) -> tuple[bool, bool, float]:
    return finding.state != "drift", finding.state == "not enough data", finding.p_value


def _next(
    before: Alert | None, course: Course, finding: Finding, seen: Seen, policy: LifePolicy
) -> tuple[Status | None, Course]:
    if before is None:
        opens = finding.state == "drift" and not _told_already(course, finding, seen, policy)
        return ("opened", Course(windows=finding.windows)) if opens else (None, course)
    if seen.window.end < before.updated_at:
        return None, course
    if finding.state == "drift":
        course = msgspec.structs.replace(course, quiet=0, windows=min(course.windows, finding.windows))
        worse = SEVERITIES.index(severity_of(finding, policy)) > SEVERITIES.index(before.severity)
        pause = policy.repeat_followed if finding.against == "baseline" else policy.repeat_every
        due = seen.window.end - before.updated_at >= pause
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
    own = finding.segment.removeprefix(VERSION)
    version = seen.model_version if own == finding.segment else int(own)
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
        model_version=version,
        weight=finding.weight,
        ranking=seen.ranking,
        opened_at=before.opened_at if before else at,
        updated_at=max(before.updated_at, at) if before else at,
        message=message_of(status, named, learned, version, unlikely_above=policy.quiet_above),
        report=before.report if before else None,
    )


def _features(finding: Finding, before: Alert | None) -> tuple[str, ...]:
    """All that have belonged to the alert: one that leaves and comes back changes nothing."""
    known = before.features if before else ()
    return (*known, *(name for name in finding.together if name not in known))
