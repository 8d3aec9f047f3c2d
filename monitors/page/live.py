"""The real sources of the page: the monitor's history, `P.alerts`, the model store and the folder of reports.

Each is read by the one thread that looks. They only read, and what fails is tried again at the next look.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from monitors.alert_log import open_alerts
from monitors.history import History
from monitors.page.sources import (
    Age,
    Promotion,
    ShownAlert,
    ShownVersion,
    Sources,
    Versions,
    Windows,
    ordered,
    shown_alert,
)
from stream_trainer.errors import Corrupt, NoVersion
from stream_trainer.pipeline import Pipeline
from stream_trainer.settings import Settings
from stream_trainer.store import ModelStore, Version, open_store
from stream_trainer.store.aliases import CHAMPION
from stream_trainer.store.storage import open_storage
from stream_trainer.topic_reading import Tail, TopicLog

KEPT_ALERTS = 500
KEPT_VERSIONS = 200
KEPT_DECISIONS = 100
MAX_REPORT_BYTES = 64 * 2**20

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The present instant."""
    return datetime.now(UTC)


def live_sources(pipeline: Pipeline, settings: Settings, url: str) -> Sources:
    """Sources of a pipeline that is being watched.

    Args:
        pipeline: what is watched.
        settings: where Kafka and the store are.
        url: where the monitor's state lives; the history is in it.
    """
    history = History(open_storage(url, settings.store))
    versions = StoreVersions(open_store(settings, pipeline.name))
    topic = pipeline.topics.alerts
    alerts = AlertTail(lambda: open_alerts(settings.kafka, topic))
    limit = pipeline.monitoring.staleness
    ages = Ages(history, versions, utc_now, None if limit is None else limit.total_seconds())
    folder = settings.data_dir / "reports" / pipeline.name
    return Sources(
        pipeline=pipeline.name,
        history=history,
        alerts=alerts.newest,
        versions=versions.newest,
        ages=ages.newest,
        report=lambda name: _report(folder, name),
    )


class AlertTail:
    """The newest record under each key of `P.alerts`.

    Open alerts are all kept, of the resolved ones the newest so many.
    """

    def __init__(self, opening: Callable[[], AbstractContextManager[TopicLog]]) -> None:
        self._tail = Tail(opening)
        self._alerts: dict[str, ShownAlert] = {}

    def newest(self) -> Sequence[ShownAlert]:
        """How every alert stands.

        Raises:
            BrokerUnavailable, InputLost: see `Tail.follow`.
        """
        self._tail.follow(self._alerts.clear, lambda record: self._take(record.key, record.value))
        self._forget()
        return list(self._alerts.values())

    def close(self) -> None:
        """Leave Kafka; the next look opens it again."""
        self._tail.close()

    def _take(self, key: bytes, value: bytes | None) -> None:
        name = key.decode("utf-8", "replace")
        self._alerts.pop(name, None)
        if value is None:
            return
        try:
            found = msgspec.json.decode(value, type=dict[str, Any])
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return
        self._alerts[name] = shown_alert(name, found)

    def _forget(self) -> None:
        resolved = [alert for alert in ordered(self._alerts.values()) if not alert.open]
        for alert in resolved[KEPT_ALERTS:]:
            self._alerts.pop(alert.alert_key, None)


class StoreVersions:
    """The newest versions and decisions of a store; a manifest and an entry are read once, because none ever changes."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store
        self._versions: dict[int, ShownVersion | None] = {}
        self._decisions: dict[tuple[str, int], Promotion | None] = {}
        self.last = Versions()

    def newest(self) -> Versions:
        """See `sources.Versions`; what cannot be read is left out."""
        highest = self._store.highest()
        wanted = range(max(1, highest - KEPT_VERSIONS + 1), highest + 1)
        self._versions = {n: self._versions[n] if n in self._versions else self._version(n) for n in wanted}
        decisions = [*self._promotions(), *self._challenges()]
        self.last = Versions(
            versions=[version for version in self._versions.values() if version is not None],
            promotions=sorted(decisions, key=lambda one: one.at)[-KEPT_DECISIONS:],
            champion=self._champion(),
            challenger=self._challenger(),
            highest=highest,
        )
        return self.last

    def _version(self, number: int) -> ShownVersion | None:
        try:
            return shown_version(self._store.read(number))
        except (Corrupt, NoVersion):
            return None

    def _promotions(self) -> list[Promotion]:
        newest = self._store.aliases.newest_number(CHAMPION)
        return self._entries(CHAMPION, newest, lambda number: self._store.aliases.read(CHAMPION, number))

    def _challenges(self) -> list[Promotion]:
        newest = self._store.challenges.newest_number()
        return self._entries("challenger", newest, self._store.challenges.read)

    def _entries(self, alias: str, newest: int, read: Callable[[int], Any]) -> list[Promotion]:
        found = []
        for number in range(max(1, newest - KEPT_DECISIONS + 1), newest + 1):
            if (alias, number) not in self._decisions:
                try:
                    self._decisions[alias, number] = _promotion(alias, number, read(number))
                except Corrupt:
                    self._decisions[alias, number] = None
            found.append(self._decisions[alias, number])
        return [one for one in found if one is not None]

    def _champion(self) -> int | None:
        try:
            serving = self._store.champion()
        except (Corrupt, NoVersion):
            return None
        return None if serving is None else serving.number

    def _challenger(self) -> int | None:
        try:
            return self._store.challenges.newest().version
        except Corrupt:
            return None


class Ages:
    """How fresh windows are, and the versions of the last look. When a window closed is known from the look that saw it first."""

    def __init__(self, history: Windows, versions: StoreVersions, clock: Clock, limit_seconds: float | None) -> None:
        self._history = history
        self._versions = versions
        self._clock = clock
        self._limit = limit_seconds
        self._newest: datetime | None = None
        self._end: datetime | None = None
        self._seen: datetime | None = None

    def newest(self) -> list[Age]:
        """See `sources.Age`."""
        found = self._versions.last
        served = next((one for one in found.versions if one.version == found.champion), None)
        return [self._window(), *_version_ages(found, served, self._limit)]

    def _window(self) -> Age:
        starts = self._history.starts()
        if starts and starts[-1] != self._newest:
            record = self._history.get(starts[-1])
            self._seen = None if self._newest is None else self._clock()
            self._newest, self._end = starts[-1], None if record is None else record.end
        detail = "" if starts else "none has closed yet"
        if starts and self._seen is None:
            detail = "closed before this page began"
        return Age(name="Window closed", since=self._seen, event=self._end, detail=detail)


def _version_ages(found: Versions, served: ShownVersion | None, limit: float | None) -> list[Age]:
    newest = found.versions[-1] if found.versions else None
    if newest is None:
        return [Age(name="Version made", detail="there is none yet")]
    return [
        Age(
            name="Version made",
            since=newest.created_at,
            event=newest.trained_through,
            detail=f"version {newest.version}",
        ),
        Age(
            name="Champion made",
            since=None if served is None else served.created_at,
            event=None if served is None else served.trained_through,
            limit_seconds=limit,
            detail="there is none yet" if found.champion is None else f"version {found.champion}",
        ),
        Age(name="End of the log learned", since=newest.covered_at, detail="" if newest.covered_at else "not yet"),
    ]


def shown_version(version: Version) -> ShownVersion:
    """What the page shows of a manifest."""
    manifest = version.manifest
    return ShownVersion(
        version=manifest.version,
        created_at=manifest.created_at,
        trained_through=manifest.trained_through,
        covered_at=manifest.covered_at,
        parent=manifest.parent,
        trained=manifest.rows.trained,
        total_trained=manifest.total.trained,
        passed=manifest.passed,
        failed=[verdict.gate for verdict in manifest.gates if not verdict.passed],
        metrics={name: value for name, value in manifest.metrics.items() if isinstance(value, float)},
    )


def _promotion(alias: str, number: int, entry: Any) -> Promotion:
    hold = bool(getattr(entry, "hold", False))
    return Promotion(
        alias=alias,
        number=number,
        version=entry.version,
        at=entry.at,
        by=entry.by[:200],
        reason=entry.reason[:500],
        hold=hold,
    )


def _report(folder: Path, name: str) -> bytes | None:
    path = folder / name
    try:
        return path.read_bytes() if path.stat().st_size <= MAX_REPORT_BYTES else None
    except OSError:
        return None
