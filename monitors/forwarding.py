"""Every alert of `P.alerts` to the webhook, whoever wrote it: the monitor, or the trainer's gates and store.

How far the topic was read, and what the receiver has not taken yet, stand beside the monitor's state. So an alert that is
raised while no monitor runs, or no receiver, is posted later. What waits is bounded: of each alert its newest record, for
a day; and an alert that is not taken holds up no other. What is less severe than asked for is passed over, unless
the receiver was told of that alert before and would believe it as it was.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import takewhile
from typing import Any, Protocol

import msgspec

from monitors.findings import Severity
from monitors.webhook import Webhook
from stream_trainer.acting import SEVERITIES
from stream_trainer.store.storage import Storage
from stream_trainer.topic_reading import Record, TopicLog, to_end

PATH = "webhook.json"
PAUSES = (1.0, 4.0, 15.0, 60.0, 300.0)
AGE_SECONDS = 86_400.0
MOST_WAITING = 200
_POLL_SECONDS = 0.2
_AGAIN_SECONDS = 5.0
_log = logging.getLogger(__name__)


class AlertLog(TopicLog, Protocol):
    """`P.alerts`, read from some place on."""

    topic_id: str


class Waiting(msgspec.Struct, frozen=True):
    """The newest record of an alert, and when it came, in seconds since the epoch."""

    body: bytes
    since: float


class Position(msgspec.Struct, frozen=True):
    """How far a topic was posted: the next offset of each partition. A topic that was made anew has another id.

    `told` are the keys of the alerts that were posted and not resolved, `waiting` what has to be posted yet, by key, in
    the order in which it came.
    """

    topic_id: str
    next: dict[int, int]
    told: frozenset[str] = frozenset()
    waiting: dict[str, Waiting] = {}


class Forwarder:
    """Posts alerts in a thread of its own until it is stopped, those that were not tried yet in their order.

    Without a position, which is the first time, the alerts that are open are posted, then all that come.

    Args:
        open_log: opens `P.alerts`.
        webhook: where to.
        storage: keeps the position.
        least: the least severity that is posted; an alert that names none is posted.
        pauses: seconds before the second try of an alert, the third, and so on; the last one stays.
        age_seconds: an alert that waited so long is tried once more and then given up.
        again_seconds: pause after a broker or a storage did not answer.
        tell: told how many alerts wait.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        open_log: Callable[[], AbstractContextManager[AlertLog]],
        webhook: Webhook,
        storage: Storage,
        *,
        least: Severity = "info",
        pauses: Sequence[float] = PAUSES,
        age_seconds: float = AGE_SECONDS,
        again_seconds: float = _AGAIN_SECONDS,
        tell: Callable[[int], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._open_log = open_log
        self._webhook = webhook
        self._storage = storage
        self._quiet = SEVERITIES[: SEVERITIES.index(least)]
        self._pauses = tuple(pauses)
        self._age_seconds = age_seconds
        self._again_seconds = again_seconds
        self._tell = tell
        self._clock = clock
        self._tries: dict[str, tuple[int, float]] = {}
        self._kept: Position | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, seconds: float = 10.0) -> None:
        """Let the try in hand end; what was not posted is posted after the next start. Further calls do nothing."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with self._open_log() as log:
                    self._follow(log)
            except Exception as error:  # noqa: BLE001 - this thread outlives a broker and a store that are away
                _log.warning("alerts are posted again in %g s: %s", self._again_seconds, error)
                self._stop.wait(self._again_seconds)

    def _follow(self, log: AlertLog) -> None:
        position = self._begun(log)
        if position is None:
            return
        self._tries.clear()  # whatever waits is tried at once
        log.seek(position.next)
        while not self._stop.is_set():
            position = self._posted(position)
            if len(position.waiting) >= MOST_WAITING:  # the topic holds the others
                self._stop.wait(_POLL_SECONDS)
                continue
            for record in log.poll(_POLL_SECONDS):
                position = self._taken(position, [record])
                if not self._tries:  # where something fails, what has come is taken in before anything is tried
                    position = self._posted(position)
            position = self._saved(position)

    def _begun(self, log: AlertLog) -> Position | None:
        """Where to read on; without a position, or in another topic, with what is open there. None when it was stopped."""
        position = self._position()
        if position is not None and position.topic_id == log.topic_id:
            return position
        log.seek({})
        ends = log.ends()
        found = list(to_end(log, ends, lambda: not self._stop.is_set()))
        if self._stop.is_set():
            return None
        known = [record for record in found if record.offset < ends[record.partition]]
        kept = position.waiting if position else {}
        taken = self._taken(Position(log.topic_id, ends, waiting=kept), still_open(known))
        return self._saved(msgspec.structs.replace(taken, next=ends))

    def _taken(self, position: Position, records: Iterable[Record]) -> Position:
        """With what is an alert and severe enough among those that wait; it is tried at once."""
        places, waiting = dict(position.next), dict(position.waiting)
        for record in records:
            places[record.partition] = record.offset + 1
            alert = _alert(record)
            if alert is None or record.value is None:
                continue
            key = str(alert.get("alert_key"))
            if alert.get("severity") in self._quiet and key not in position.told and key not in waiting:
                continue
            waiting.pop(key, None)
            waiting[key] = Waiting(record.value, self._clock())
            self._tries.pop(key, None)
        return msgspec.structs.replace(position, next=places, waiting=waiting)

    def _posted(self, position: Position) -> Position:
        """Try what is due, the longest due first; once each, so that what comes meanwhile is taken in."""
        now = time.monotonic()
        due = sorted((self._tries.get(key, (0, 0.0))[1], place, key) for place, key in enumerate(position.waiting))
        for _, _, key in takewhile(lambda one: one[0] <= now, due):
            if self._stop.is_set():
                break
            one = position.waiting[key]
            outcome = self._webhook.post(one.body, last=self._clock() - one.since >= self._age_seconds)
            if outcome is None:
                tries = self._tries.get(key, (0, 0.0))[0]
                pause = self._pauses[min(tries, len(self._pauses) - 1)]
                self._tries[key] = tries + 1, time.monotonic() + pause
                continue
            self._tries.pop(key, None)
            position = self._saved(_ended(position, key, delivered=outcome == "delivered"))
        self._tell(len(position.waiting))
        return position

    def _position(self) -> Position | None:
        try:
            return msgspec.json.decode(self._storage.get(PATH), type=Position)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            _log.warning("how far alerts were posted is unreadable, those that are open are posted again: %s", error)
            return None

    def _saved(self, position: Position) -> Position:
        if position != self._kept:
            self._storage.put(PATH, msgspec.json.encode(position))
            self._kept = position
        return position


def _ended(position: Position, key: str, *, delivered: bool) -> Position:
    """Without an alert that waits no more; what was not delivered leaves the receiver with what it believed."""
    told, resolved = position.told, _decoded(position.waiting[key].body).get("status") == "resolved"
    if delivered:
        told = told - {key} if resolved else told | {key}
    waiting = {name: one for name, one in position.waiting.items() if name != key}
    return msgspec.structs.replace(position, told=told, waiting=waiting)


def still_open(records: Iterable[Record]) -> list[Record]:
    """The newest record of each alert that is not resolved, in the order of these."""
    newest: dict[bytes, Record] = {}
    for record in records:
        newest.pop(record.key, None)
        newest[record.key] = record
    return [record for record in newest.values() if (alert := _alert(record)) and alert.get("status") != "resolved"]


def _alert(record: Record) -> dict[str, Any] | None:
    """None for a tombstone and for what is no JSON object."""
    if record.value is None:
        return None
    try:
        return _decoded(record.value)
    except (msgspec.MsgspecError, ValueError):
        _log.warning(
            "a record of the alerts topic is no alert: partition %d, offset %d", record.partition, record.offset
        )
        return None


def _decoded(body: bytes) -> dict[str, Any]:
    return msgspec.json.decode(body, type=dict[str, Any])
