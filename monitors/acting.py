"""Alerts become requests to the trainer, as the pipeline's rules say: the monitor asks, the trainer decides.

A request's id follows from alert and action alone, so asking again after a crash asks for nothing more. Holds end when no
alert that has asked for one is open any more.
"""

import re
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

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
        open_keys: the alerts that are open now.
    """

    def __init__(
        self,
        rules: Sequence[When],
        send: Callable[[Sequence[Asked]], None],
        *,
        asked: Iterable[Asked] = (),
        open_keys: Iterable[str] = (),
    ) -> None:
        self._rules = rules
        self._send = send
        self._asked = {request.action_id: request for request in asked}
        self._open = {_plain(key) for key in open_keys}
        self._lock = threading.Lock()

    def act(self, events: Sequence[Alert]) -> list[Asked]:
        """What these events ask for, and the ends of holds that nobody needs any more; sent, and remembered once sent."""
        with self._lock:
            return self._acted(events)

    def _acted(self, events: Sequence[Alert]) -> list[Asked]:
        wanted = {request.action_id: request for event in events for request in self._wanted(event)}
        new = {name: request for name, request in wanted.items() if name not in self._asked}
        still_open = set(self._open)
        for event in events:
            (still_open.discard if event.status == "resolved" else still_open.add)(_plain(event.alert_key))
        at = max((event.updated_at for event in events), default=None)
        for release in _releases({**self._asked, **new}.values(), still_open, at):
            if release.action_id not in self._asked:
                new[release.action_id] = release
        if new:
            self._send(list(new.values()))
        self._asked |= new
        self._open = still_open
        return list(new.values())

    def _wanted(self, event: Alert) -> list[Asked]:
        if event.status == "resolved":
            return []
        about = event.features or (event.feature,)
        met = (r.do for r in self._rules if any(r.is_met(event.kind, name, event.severity) for name in about))
        return [_request(event, action) for action in met]


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


def _releases(asked: Iterable[Asked], open_keys: set[str], at: datetime | None) -> list[Asked]:
    """The ends of all holds that alerts have asked for; none while one of those alerts is open."""
    holds = [request for request in asked if isinstance(request.action, HoldPromotion)]
    causes = [(hold, hold.alert) for hold in holds if hold.alert is not None]
    if any(cause.alert_key in open_keys for _, cause in causes):
        return []
    found = []
    for hold, cause in causes:
        release = ReleasePromotion(hold=hold.action_id)
        found.append(
            Asked(
                action_id=id_of_alert(cause.alert_key, cause.opened_at, release),
                action=release,
                by=BY,
                asked_at=at or hold.asked_at,
                reason=f"resolved: {cause.alert_key}",
                alert=cause,
            )
        )
    return found


def _plain(key: str) -> str:
    """A key as a request may hold it: segments come from data."""
    return _UNPRINTABLE.sub("?", key)[:_LONGEST]
