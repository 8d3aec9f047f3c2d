"""Alerts by the clock: nobody asks, no label comes, or the version that answers is too old. They come although no record does.

Their life is kept apart from that of the windows: it is of this process alone, and begins with what `P.alerts` says is open.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec

from monitors import life
from monitors.alerts import Alert, Open, WindowSpan
from monitors.life import Life, LifePolicy
from monitors.performance import presence
from monitors.performance.presence import Presence, Read
from monitors.status import Metrics
from stream_trainer.monitoring import Monitoring
from stream_trainer.schema import as_datetime
from stream_trainer.topic_reading import Record, Tail, TopicLog, message_of

KINDS = ("silence", "freshness")
_CHAMPION = b"champion"
_POLICY = LifePolicy(resolve_after=1, cooldown=timedelta(0))
_log = logging.getLogger(__name__)


class Covered(NamedTuple):
    """The version that answers, and when it last had the end of the log covered."""

    at: datetime
    version: int


def by_clock(open_alerts: Mapping[str, Alert]) -> Open:
    """Those of the open alerts that are raised here."""
    return {key: alert for key, alert in open_alerts.items() if alert.kind in KINDS}


class Champion:
    """Who answers, by the newest word under its key in `P.models`; None when there is none, or it is unreadable.

    The topic stays open from one look to the next.
    """

    def __init__(self, topic: str, opening: Callable[[], AbstractContextManager[TopicLog]]) -> None:
        self._topic = topic
        self._tail = Tail(opening)
        self._covered: Covered | None = None

    def __call__(self) -> Covered | None:
        """As of now.

        Raises:
            BrokerUnavailable, InputLost: see `Tail.follow`.
        """
        self._tail.follow(self._forget, self._take)
        return self._covered

    def close(self) -> None:
        """Leave Kafka."""
        self._tail.close()

    def _forget(self) -> None:
        self._covered = None

    def _take(self, record: Record) -> None:
        if record.key != _CHAMPION or (message := message_of(self._topic, record)) is None:
            return
        try:
            self._covered = msgspec.convert(message.value, _Announced).covered
        except msgspec.ValidationError:
            self._covered = None


class Ends:
    """How far a topic goes: the next offset of each partition. It stays open from one look to the next.

    Partitions that are added later are not looked at before it is opened anew.
    """

    def __init__(self, opening: Callable[[], AbstractContextManager[TopicLog]]) -> None:
        self._opening = opening
        self._stack = ExitStack()
        self._log: TopicLog | None = None

    def __call__(self) -> Mapping[int, int]:
        """As of now.

        Raises:
            BrokerUnavailable: Kafka cannot be reached; the next look opens it anew.
            InputLost: there is no such topic.
        """
        try:
            if self._log is None:
                self._log = self._stack.enter_context(self._opening())
            return self._log.ends()
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """Leave Kafka; a further look opens it again."""
        self._log = None
        self._stack.close()


class _Announced(msgspec.Struct):
    version: int
    covered_at: datetime | float

    @property
    def covered(self) -> Covered:
        return Covered(as_datetime(self.covered_at), self.version)


class Attendance:
    """Looks at the clock; `saw` may be called by another thread meanwhile.

    Args:
        pipeline: its name.
        limits: how long nobody may ask and no label may come, and how old a version may be.
        label: the name of the label.
        champion: asks who answers now.
        ends: asks how far `P.predictions` goes now: whether somebody asks is known though nothing is read.
        publish: writes to `P.alerts`.
        open_alerts: all that `P.alerts` knew at the start.
        clock: now, UTC.
    """

    def __init__(
        self,
        pipeline: str,
        limits: Monitoring,
        *,
        label: str,
        champion: Callable[[], Covered | None],
        ends: Callable[[], Mapping[int, int]],
        publish: Callable[[Sequence[Alert]], None],
        metrics: Metrics,
        open_alerts: Open,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._pipeline = pipeline
        self._limits = limits
        self._label = label
        self._champion = champion
        self._ask_ends = ends
        self._publish = publish
        self._metrics = metrics
        self._clock = clock
        self._life = Life(open=by_clock(open_alerts))
        about = {(alert.kind, alert.feature) for alert in self._life.open.values()}
        self._presence = Presence(
            began=clock(),
            silent=("silence", "") in about,
            stale=("freshness", "") in about,
            unlabelled=("silence", label) in about,
        )
        self._seen = presence.Seen()
        self._read: dict[int, int] = {}
        self._ends: Mapping[int, int] | None = None
        self._lock = threading.Lock()
        metrics.alerts((), self._life.open.values(), part="clock")

    @property
    def needed(self) -> bool:
        """Whether there is any limit, or an alert that has lost its own."""
        return any(limit is not None for limit in self._bounds.values()) or bool(self._life.open)

    @property
    def _bounds(self) -> dict[tuple[str, str], timedelta | None]:
        return {
            ("silence", ""): self._limits.silence,
            ("silence", self._label): self._limits.unlabelled,
            ("freshness", ""): self._limits.staleness,
        }

    def saw(self, read: Read) -> None:
        """A micro-batch has read this."""
        with self._lock:
            self._read |= read.offsets
            self._seen = msgspec.structs.replace(self._seen, labelling=read.labelling)
            if read.prediction is not None:
                self._seen = msgspec.structs.replace(self._seen, read=self._clock(), prediction=read.prediction)

    def look(self) -> None:
        """Look once, and publish what began or ended."""
        now, champion, ends = self._clock(), self._champion(), self._ask_ends()
        with self._lock:
            seen = self._seen = self._grown(ends, now)
        if champion is not None:
            seen = msgspec.structs.replace(seen, covered=champion.at, version=champion.version)
        found, findings = presence.look(self._presence, seen, now, self._limits, label=self._label)
        span = WindowSpan(start=now, end=now, rows=0)
        about = life.Seen(pipeline=self._pipeline, window=span, model_version=seen.version, offsets={})
        unbound = {
            key: "it has no limit any more"
            for key, alert in self._life.open.items()
            if self._bounds.get((alert.kind, alert.feature)) is None
        }
        bound, ended = life.end(self._life, unbound, now)
        after, events = life.step(bound, findings, about, _POLICY)
        events = [*ended, *events]
        if events:
            self._publish(events)
        self._life, self._presence = after, found
        self._metrics.alerts(events, after.open.values(), part="clock")
        for event in events:
            _log.warning("alert %s %s: %s", event.alert_key, event.status, event.message)

    def _grown(self, ends: Mapping[int, int], now: datetime) -> presence.Seen:
        """What waits is what the look before this one found: on a busy stream something has always just come.

        When what the first look finds came is not known: it counts as new, and waits only where some of it was read since.
        """
        if self._ends is None:
            self._read = {**ends, **self._read}
        before = ends if self._ends is None else self._ends
        came = self._seen.came if self._ends == ends else now
        self._ends = ends
        waiting = sum(max(0, end - self._read.get(partition, 0)) for partition, end in before.items())
        return msgspec.structs.replace(self._seen, came=came, waiting=waiting)
