"""Silence and age: whether anybody asks, whether labels come, and how old the answering version is. Pure; the clock comes in.

A query without records gets no micro-batches, so the monitor's loop has to call `look` every few seconds; see `Ticker`.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec

from monitors.findings import Finding, Kind, State
from stream_trainer.monitoring import Monitoring

_OVER_AT = 0.5  # of the limit: an age around the limit does not flap
_CRITICAL_AT = 3  # limits


class Labelling(msgspec.Struct, frozen=True, kw_only=True):
    """Whether labels come for what is answered, by when Kafka got the records.

    Attributes:
        label: the newest label; None: none was seen.
        since: the first prediction after it, `until`: the newest one.
    """

    label: datetime | None = None
    since: datetime | None = None
    until: datetime | None = None

    def after(self, prediction: datetime | None, label: datetime | None) -> "Labelling":
        """With the newest prediction and the newest label of some further records."""
        newest, since = _later(self.label, label), self.since
        if since is None or (newest is not None and newest >= since):
            since = prediction if prediction is not None and (newest is None or prediction > newest) else None
        return Labelling(label=newest, since=since, until=_later(self.until, prediction))

    @property
    def unlabelled(self) -> timedelta:
        """For how long predictions went on without a label."""
        return timedelta(0) if self.since is None or self.until is None else self.until - self.since


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """What one micro-batch has read.

    Attributes:
        prediction: Kafka's append time of the newest prediction that could be read; None: there was none.
        offsets: as `summary.Part.read`, of `P.predictions`.
        labelling: as of now.
    """

    prediction: datetime | None = None
    offsets: Mapping[int, int] = {}
    labelling: Labelling = Labelling()


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """What the last look said, and when the watch began.

    Attributes:
        began: when this monitor started: nothing that went on before is held against it.
        silent: whether the last look found silence; `stale`: an old version; `unlabelled`: no labels. After a restart: whether
            that alert is open, so that a restart neither resolves nor repeats it.
    """

    began: datetime
    silent: bool = False
    stale: bool = False
    unlabelled: bool = False


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen by now; `came` and `read` by the clock of `look`, so that another clock's error is in no age.

    Attributes:
        came: when `P.predictions` was last seen to have grown; None: not since the start.
        read: when a prediction that could be read was last read; None: none yet.
        waiting: records of `P.predictions` that nobody has read yet.
        prediction: Kafka's append time of the newest that was read.
        labelling: None: not known yet.
        covered: when the trainer last had the end of the log covered by the version that answers (`covered_at` in
            `P.models`); None: no version yet.
        version: that version.
    """

    came: datetime | None = None
    read: datetime | None = None
    waiting: int = 0
    prediction: datetime | None = None
    labelling: Labelling | None = None
    covered: datetime | None = None
    version: int | None = None


def look(
    presence: Presence, seen: Seen, now: datetime, limits: Monitoring, *, label: str
) -> tuple[Presence, list[Finding]]:
    """One finding for each limit, `drift` while beyond it: `silence`, `silence` of the feature `label`, `freshness`.

    Beyond: nothing for longer than the limit, counted from the monitor's start at the earliest; for labels: predictions
    without one for longer. Over: an age of at most half the limit. `statistic` is the age over the limit, from three on it is critical. There is no
    verdict without a version on its age, without any label on labels, and on silence while what came lately is unread.
    """
    findings = []
    silent, stale, unlabelled = presence.silent, presence.stale, presence.unlabelled
    if limits.silence is not None:
        age, silent, known = _silence(presence, seen, now, limits.silence)
        findings.append(_finding("silence", age, limits.silence, silent, _last(seen), known=known))
    if limits.unlabelled is not None:
        found = seen.labelling or Labelling()
        known, age = found.label is not None, found.unlabelled
        unlabelled = age > limits.unlabelled * (_OVER_AT if unlabelled else 1.0) if known else unlabelled
        detail = f"the newest label is of {found.label}; predictions went on without one"
        finding = _finding("silence", age, limits.unlabelled, unlabelled, detail, known=known)
        findings.append(msgspec.structs.replace(finding, feature=label))
    if limits.staleness is not None and seen.covered is None:
        detail = "no version has been announced"
        findings.append(_finding("freshness", timedelta(0), limits.staleness, stale, detail, known=False))
    elif limits.staleness is not None:
        age, stale = _beyond(seen.covered, presence.began, now, limits.staleness, was=stale)
        detail = f"version {seen.version} covers the log up to {seen.covered}; nothing newer"
        findings.append(_finding("freshness", age, limits.staleness, stale, detail))
    return msgspec.structs.replace(presence, silent=silent, stale=stale, unlabelled=unlabelled), findings


def _silence(presence: Presence, seen: Seen, now: datetime, limit: timedelta) -> tuple[timedelta, bool, bool]:
    """For how long nobody asked, whether that is silence, and whether it is known.

    What was read came before that, so an old record that is read late ends no silence. What waits may be readable or not: it
    counts from when it came.
    """
    came = seen.came or presence.began
    if seen.waiting:
        age, beyond = _beyond(came, presence.began, now, limit, was=False)
        return age, beyond or presence.silent, beyond
    last = None if seen.read is None else min(seen.read, came)
    return *_beyond(last, presence.began, now, limit, was=presence.silent), True


def _beyond(
    last: datetime | None, began: datetime, now: datetime, limit: timedelta, *, was: bool
) -> tuple[timedelta, bool]:
    """How long ago, and whether that is beyond the limit. What was seen in the future was seen now."""
    since_start = max(now - began, timedelta(0))
    age = max(now - last, timedelta(0)) if last is not None else since_start
    if was:
        return age, last is None or age > limit * _OVER_AT
    return age, min(age, since_start) > limit


def _finding(kind: Kind, age: timedelta, limit: timedelta, beyond: bool, detail: str, *, known: bool = True) -> Finding:
    quiet: State = "quiet" if known else "not enough data"
    return Finding(
        kind=kind,
        feature="",
        against="limit",
        state="drift" if beyond else quiet,
        statistic=age / limit,
        severity="critical" if age >= _CRITICAL_AT * limit else "warning",
        p_value=0.0 if beyond else 1.0,
        detail=f"{detail} for {age.total_seconds():.0f} s, at most {limit.total_seconds():.0f} s",
    )


def _last(seen: Seen) -> str:
    waiting = f", {seen.waiting} records wait to be read" if seen.waiting else ""
    if seen.prediction is None:
        return f"no prediction was read{waiting}; nobody asked"
    return f"the newest prediction that was read is of {seen.prediction}{waiting}; nobody asked"


def _later(first: datetime | None, second: datetime | None) -> datetime | None:
    return max((at for at in (first, second) if at is not None), default=None)
