"""Alerts become requests to the trainer, as the pipeline's rules say: the monitor asks, the trainer decides.

A request's id follows from alert and action alone, so asking again after a crash asks for nothing more. Holds end when no
alert that has asked for one is open any more, and after a time: what is held may be what keeps its alert open.
"""

import hashlib
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from monitors.alerts import Alert
from stream_trainer.acting import (
    SEVERITIES,
    Action,
    Asked,
    Cause,
    HoldPromotion,
    ReleasePromotion,
    Severity,
    When,
    id_of_alert,
)

BY = "monitor"
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_LONGEST = 400


class Actor:
    """Asks what the rules say. Two threads publish alerts, of windows and by the clock; one of them acts at a time.

    Args:
        rules: of the pipeline.
        send: writes requests to `P.actions`; returns when the broker has them.
        asked: what was asked before this process, by anybody.
        open_alerts: those that are open now.
        hold_at_most: so long after a hold was asked for, by its alert's time, it ends though the alert goes on.
    """

    def __init__(
        self,
        rules: Sequence[When],
        send: Callable[[Sequence[Asked]], None],
        *,
        asked: Iterable[Asked] = (),
        open_alerts: Iterable[Alert] = (),
        hold_at_most: timedelta = timedelta(days=1),
    ) -> None:
        self._rules = rules
        self._send = send
        self._asked = {request.action_id: request for request in asked}
        self._open = {_plain(alert.alert_key): _span(alert) for alert in open_alerts}
        self._hold_at_most = hold_at_most
        self._lock = threading.Lock()

    def act(self, events: Sequence[Alert]) -> list[Asked]:
        """What these events ask for, and the ends of holds that nobody needs any more; sent, and remembered once sent."""
        with self._lock:
            return self._acted(events)

    def _acted(self, events: Sequence[Alert]) -> list[Asked]:
        wanted = {request.action_id: request for event in events for request in self._wanted(event)}
        new = {name: request for name, request in wanted.items() if name not in self._asked}
        still_open = dict(self._open)
        for event in events:
            _follow(still_open, event)
        at = max((event.updated_at for event in events), default=None)
        new |= _releases({**self._asked, **new}, still_open, at, self._hold_at_most)
        if new:
            self._send(list(new.values()))
        self._asked |= new
        self._open = still_open
        return list(new.values())

    def _wanted(self, event: Alert) -> list[Asked]:
        if event.status == "resolved":
            return []
        about = event.features or (event.feature,)
        return [
            _request(event, rule.do)
            for rule in self._rules
            if any(rule.is_met(event.kind, name, event.severity, event.against) for name in about)
        ]


class _Span(NamedTuple):
    """From when an alert was opened to when it was last told."""

    opened_at: datetime
    told_at: datetime


def publishing(publish: Callable[[Sequence[Alert]], None], actor: Actor) -> Callable[[Sequence[Alert]], None]:
    """The same, and then the events are acted on. What an earlier process left undone is done at once."""
    actor.act(())

    def publish_and_act(events: Sequence[Alert]) -> None:
        publish(events)
        actor.act(events)

    return publish_and_act


def _request(event: Alert, action: Action) -> Asked:
    key = _plain(event.alert_key)
    severity: Severity = next(name for name in SEVERITIES if name == event.severity)
    since: datetime = getattr(event, "since", None) or event.opened_at
    return Asked(
        action_id=id_of_alert(key, event.opened_at, action),
        action=action,
        by=BY,
        asked_at=event.updated_at,
        reason=f"{severity} alert {key}",
        alert=Cause(alert_key=key, severity=severity, opened_at=event.opened_at, since=since),
    )


def _releases(
    asked: Mapping[str, Asked], spans: Mapping[str, _Span], at: datetime | None, at_most: timedelta
) -> dict[str, Asked]:
    """The ends of all holds that alerts have asked for and that go on; none while one of those alerts needs its own."""
    found: dict[str, Asked] = {}
    for hold in asked.values():
        cause = hold.alert
        if cause is None or not isinstance(hold.action, HoldPromotion):
            continue
        release = ReleasePromotion(hold=hold.action_id)
        name = id_of_alert(cause.alert_key, cause.opened_at, release)
        if name in asked:
            continue
        span = spans.get(cause.alert_key)
        if span is not None and span.opened_at == cause.opened_at and span.told_at - hold.asked_at < at_most:
            return {}
        found[name] = Asked(
            action_id=name,
            action=release,
            by=BY,
            asked_at=at or hold.asked_at,
            reason=f"no longer held for: {cause.alert_key}",
            alert=cause,
        )
    return found


def _span(alert: Alert) -> _Span:
    return _Span(alert.opened_at, alert.updated_at)


def _follow(spans: dict[str, _Span], event: Alert) -> None:
    key, span = _plain(event.alert_key), _span(event)
    if event.status != "resolved":
        spans[key] = span
    elif key in spans and spans[key].opened_at <= span.opened_at:
        del spans[key]


def _plain(key: str) -> str:
    """A key as a request may hold it: segments come from data. What had to be changed has a digest of the whole."""
    plain = _UNPRINTABLE.sub("?", key)[:_LONGEST]
    return plain if plain == key else f"{plain}#{hashlib.sha256(key.encode(errors='replace')).hexdigest()[:16]}"
