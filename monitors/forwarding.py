"""Every record of `P.alerts` to the webhook, whoever wrote it: the monitor, or the trainer's gates and store.

The topic is the queue, and how far it was posted stands beside the monitor's state. So an alert that is raised while no
monitor runs is posted by the next one, and a webhook that hangs delays nobody and fills no memory. What is less severe
than asked for is passed over, unless the receiver was told of that alert before and would believe it as it was.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import msgspec

from monitors.findings import Severity
from monitors.webhook import Webhook
from stream_trainer.acting import SEVERITIES
from stream_trainer.store.storage import Storage
from stream_trainer.topic_reading import Record, TopicLog, to_end

PATH = "webhook.json"
_POLL_SECONDS = 0.2
_AGAIN_SECONDS = 5.0
_log = logging.getLogger(__name__)


class AlertLog(TopicLog, Protocol):
    """`P.alerts`, read from some place on."""

    topic_id: str


class Position(msgspec.Struct, frozen=True):
    """How far a topic was posted: the next offset of each partition. A topic that was made anew has another id.

    `told` are the keys of the alerts that were posted and not resolved.
    """

    topic_id: str
    next: dict[int, int]
    told: frozenset[str] = frozenset()


class Forwarder:
    """Posts alerts in a thread of its own, in order, until it is stopped.

    Without a position, which is the first time, the alerts that are open are posted, then all that come. `least` is the
    least severity that is posted; an alert that names none is posted.
    """

    def __init__(
        self,
        open_log: Callable[[], AbstractContextManager[AlertLog]],
        webhook: Webhook,
        storage: Storage,
        *,
        least: Severity = "info",
        again_seconds: float = _AGAIN_SECONDS,
    ) -> None:
        self._open_log = open_log
        self._webhook = webhook
        self._storage = storage
        self._quiet = SEVERITIES[: SEVERITIES.index(least)]
        self._again_seconds = again_seconds
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
        position = self._position()
        if position is None or position.topic_id != log.topic_id:
            log.seek({})
            position = self._post_open(log)
            if position is None:
                return
            self._save(position)
        log.seek(position.next)
        while not self._stop.is_set():
            for record in log.poll(_POLL_SECONDS):
                told = self._post(record, position.told)
                if told is None:
                    return
                position = Position(log.topic_id, {**position.next, record.partition: record.offset + 1}, told)
                self._save(position)

    def _post_open(self, log: AlertLog) -> Position | None:
        """Post what is open up to the present end; where to read on, None when it was stopped meanwhile."""
        ends = log.ends()
        found = list(to_end(log, ends, lambda: not self._stop.is_set()))
        if self._stop.is_set():
            return None
        told: frozenset[str] = frozenset()
        for record in still_open([record for record in found if record.offset < ends[record.partition]]):
            posted = self._post(record, told)
            if posted is None:
                return None
            told = posted
        return Position(log.topic_id, ends, told)

    def _post(self, record: Record, told: frozenset[str]) -> frozenset[str] | None:
        """Post what is an alert and severe enough: the keys that the receiver knows then; None: it has to be posted yet."""
        alert = _alert(record)
        if alert is None or record.value is None:
            return told
        key = str(alert.get("alert_key"))
        if alert.get("severity") in self._quiet and key not in told:
            return told
        if not self._webhook.post(record.value, self._stop):
            return None
        return told - {key} if alert.get("status") == "resolved" else told | {key}

    def _position(self) -> Position | None:
        try:
            return msgspec.json.decode(self._storage.get(PATH), type=Position)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            _log.warning("how far alerts were posted is unreadable, those that are open are posted again: %s", error)
            return None

    def _save(self, position: Position) -> None:
        self._storage.put(PATH, msgspec.json.encode(position))


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
        return msgspec.json.decode(record.value, type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError):
        _log.warning(
            "a record of the alerts topic is no alert: partition %d, offset %d", record.partition, record.offset
        )
        return None
