"""Silence and age, by the clock: whether anybody asks, and how old the answering version is. Pure; the clock comes in.

A query without records gets no micro-batches, so the monitor's loop has to call `look` every few seconds; see `Ticker`.
"""

from datetime import datetime, timedelta

import msgspec

from monitors.findings import Finding, Kind, State
from stream_trainer.monitoring import Monitoring

_OVER_AT = 0.5  # of the limit: an age around the limit does not flap
_CRITICAL_AT = 3  # limits


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """What the last look said, and when the watch began.

    Attributes:
        began: when this monitor started: nothing that went on before is held against it.
        silent: whether the last look found silence; `stale`: an old version. After a restart: whether that alert is open,
            so that a restart neither resolves nor repeats it.
    """

    began: datetime
    silent: bool = False
    stale: bool = False


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen by now.

    Attributes:
        prediction: Kafka's append time of the newest record of `P.predictions`; None: none yet.
        covered: when the trainer last had the end of the log covered by the version that answers (`covered_at` in
            `P.models`); None: no version yet.
        version: that version.
    """

    prediction: datetime | None = None
    covered: datetime | None = None
    version: int | None = None


def look(presence: Presence, seen: Seen, now: datetime, limits: Monitoring) -> tuple[Presence, list[Finding]]:
    """Kinds `silence` and `freshness`, one finding each where `limits` has a limit; `drift` while beyond it.

    Beyond: nothing for longer than the limit, counted from the monitor's start at the earliest. Over: an age of at most
    half the limit. `statistic` is the age over the limit, from three on it is critical. Without any version there is no verdict on its age.
    """
    findings = []
    silent, stale, watched = False, False, now - presence.began
    if limits.silence is not None:
        age, silent = _beyond(seen.prediction, presence.began, now, limits.silence, was=presence.silent)
        findings.append(_finding("silence", age, limits.silence, silent, _last(seen), watched=watched))
    if limits.staleness is not None and seen.covered is None:
        stale = presence.stale
        findings.append(
            _finding(
                "freshness", timedelta(0), limits.staleness, stale, "no version has been announced", watched=watched
            )
        )
        if not stale:
            findings[-1] = msgspec.structs.replace(findings[-1], state="not enough data")
    elif limits.staleness is not None:
        age, stale = _beyond(seen.covered, presence.began, now, limits.staleness, was=presence.stale)
        detail = f"version {seen.version} covers the log up to {seen.covered}"
        findings.append(_finding("freshness", age, limits.staleness, stale, detail, watched=watched))
    return msgspec.structs.replace(presence, silent=silent, stale=stale), findings


def _beyond(
    last: datetime | None, began: datetime, now: datetime, limit: timedelta, *, was: bool
) -> tuple[timedelta, bool]:
    """How long ago, and whether that is beyond the limit. What was seen in the future was seen now."""
    since_start = max(now - began, timedelta(0))
    age = max(now - last, timedelta(0)) if last is not None else since_start
    if was:
        return age, last is None or age > limit * _OVER_AT
    return age, min(age, since_start) > limit


def _finding(kind: Kind, age: timedelta, limit: timedelta, beyond: bool, detail: str, *, watched: timedelta) -> Finding:
    state: State = "drift" if beyond else "quiet"
    return Finding(
        kind=kind,
        feature="",
        against="limit",
        state=state,
        statistic=age / limit,
        severity="critical" if min(age, watched) >= _CRITICAL_AT * limit else "warning",
        p_value=0.0 if beyond else 1.0,
        detail=f"{detail}; {age.total_seconds():.0f} s ago, at most {limit.total_seconds():.0f} s",
    )


def _last(seen: Seen) -> str:
    return "no prediction was seen" if seen.prediction is None else f"the newest prediction is of {seen.prediction}"
