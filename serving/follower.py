"""Follows the champion: one thread that loads what is announced and swaps one reference.

Push is `P.models`; every `poll_seconds` the store is looked at too, however much is pushed. What is based on a newer
entry of the champion's alias wins: a trainer that has not noticed a rollback cannot undo it. Among those of the same
entry the later wins, whichever way it came, so a look at the store that lags cannot undo a newer push. A push that
names a newer entry, or lowers the version, is only a reason to look: the store decides.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from serving.announcements import Announcement, AnnouncementSource
from serving.clock import Clock
from serving.lone_threads import lone_thread
from serving.metrics import Metrics
from serving.model import Refused, Served, load
from stream_trainer.pipeline import Pipeline
from stream_trainer.store import ModelStore
from stream_trainer.store.aliases import CHAMPION

logger = logging.getLogger(__name__)

_BACKOFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
_RETRY_REFUSED_SECONDS = 5.0
_OLDER_TRIED = 16
_NOT_IN_STORE = ("missing", "digest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Which version should answer, and since when that is so.

    Attributes:
        alias: the number of the newest champion entry that this is based on, 0 for none.
        at: of a push its own instant; of the store the alias's, or the version's creation when that is later.
    """

    version: int
    sha256: str
    at: datetime
    covered_at: datetime | None
    alias: int
    pushed: bool


class Follower:
    """Holds the model that answers. `served` is read by requests; only the follower's thread assigns it.

    A version that comes within `swap_every_seconds` of the last attempt to swap waits, and makes way for a later one: what
    loading costs, it costs at most so often, however quick the trainer is.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        store: ModelStore,
        source: AnnouncementSource,
        metrics: Metrics,
        clock: Clock,
        *,
        poll_seconds: float,
        swap_every_seconds: float = 0.0,
        versions_loaded: int = 3,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.served: Served | None = None
        self.reason = "no_version"
        self._pipeline = pipeline
        self._store = store
        self._source = source
        self._metrics = metrics
        self._clock = clock
        self._poll_seconds = poll_seconds
        self._swap_every = swap_every_seconds
        self._monotonic = monotonic
        self._wanted: Decision | None = None
        self._highest_heard = 0
        self._newest_alias = 0
        self._fixed = False
        self._next_look = 0.0
        self._next_swap = 0.0
        self._refused: tuple[str, float] | None = None
        self._stop = threading.Event()
        self._thread = lone_thread(self._run, "follower")
        self._listeners: list[Callable[[Served, float], None]] = []
        self._before: tuple[Served, ...] = ()
        self._kept = versions_loaded - 1
        metrics.staleness.set_function(lambda: self.staleness() or 0.0)
        metrics.weight_age.set_function(self._weight_age)

    def start(self) -> None:
        """Begin to follow, in a thread of its own."""
        self._thread.start()

    def stop(self, seconds: float = 5.0) -> None:
        """End the thread; what is served stays."""
        self._stop.set()
        self._source.close()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def on_swap(self, listener: Callable[[Served, float], None]) -> None:
        """Have something called, in the follower's thread, whenever another version serves: with it and its seconds."""
        self._listeners.append(listener)

    def loaded(self) -> list[Served]:
        """The version that serves, then those that served before it; empty before the first."""
        served = self.served
        return [] if served is None else [served, *(v for v in self._before if v.number != served.number)]

    def staleness(self) -> float | None:
        """Seconds since the log's end was last seen covered; None without a model."""
        served = self.served
        return None if served is None else served.staleness(self._clock())

    def look(self) -> None:
        """Ask the store which version is the champion, and follow that."""
        self._next_look = self._monotonic() + self._poll_seconds
        try:
            decision = self._stored()
        except Exception:
            self._follow()  # what was pushed counts although the store does not answer
            raise
        if decision is not None:
            self._consider(decision)
        self._follow()

    def step(self) -> None:
        """Follow what is pushed; look at the store when its time has come, or nothing was pushed till then."""
        waits = self._waits()
        due = min(self._next_look, self._next_swap) if waits else self._next_look
        try:
            pushed = self._source.poll(min(self._poll_seconds, max(0.0, due - self._monotonic())))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with Kafka, the store is still looked at
            self._note(error, "kafka")
            self._stop.wait(self._poll_seconds)
            pushed = []
        for announcement in pushed:
            self._consider(_pushed(announcement, self._clock()))
        if not (pushed or waits) or self._monotonic() >= self._next_look:
            self.look()
        else:
            self._follow()

    def _waits(self) -> bool:
        """Whether a version is to serve that does not yet, and has not been refused."""
        wanted, served = self._wanted, self.served
        if wanted is None or served is None or wanted.sha256 == served.sha256:
            return False
        return self._refused is None or self._refused[0] != wanted.sha256

    def _weight_age(self) -> float:
        served = self.served
        return 0.0 if served is None else max(0.0, (self._clock() - served.manifest.created_at).total_seconds())

    def _run(self) -> None:
        failures = 0
        action = self.look
        while not self._stop.is_set():
            try:
                action()
                failures = 0
            except Exception as error:  # noqa: BLE001 - whatever it is, what serves goes on serving
                self._note(error, "store" if failures == 0 else "repeated")
                self._stop.wait(_BACKOFF_SECONDS[min(failures, len(_BACKOFF_SECONDS) - 1)])
                failures += 1
            action = self.step
        self._source.close()

    def _note(self, error: Exception, kind: str) -> None:
        self._metrics.follower_errors.labels(kind).inc()
        logger.warning("following %s: %s: %s", self._pipeline.name, type(error).__name__, error)

    def _stored(self) -> Decision | None:
        number, alias = self._store.alias_entry(CHAMPION)
        if number >= self._newest_alias:  # known even when what it names cannot be read
            self._newest_alias, self._fixed = number, alias is not None and not alias.follows
        version = self._store.champion_by(alias)
        if version is None:
            return None
        created = version.manifest.created_at
        return Decision(
            version=version.number,
            sha256=version.sha256,
            at=created if alias is None else max(alias.at, created) if alias.follows else alias.at,
            covered_at=version.manifest.covered_at,
            alias=number,
            pushed=False,
        )

    def _consider(self, new: Decision) -> None:
        current = self._wanted
        if new.pushed and self._is_for_the_store(new, current):
            self._next_look = self._monotonic()
        elif new.alias >= self._newest_alias and (
            current is None or new.alias > current.alias or self._is_later(new, current)
        ):
            self._wanted = new
            self._newest_alias = new.alias
            self._metrics.champion_version.set(new.version)
        self._highest_heard = max(self._highest_heard, new.version)

    def _is_for_the_store(self, new: Decision, current: Decision | None) -> bool:
        """Whether a push is only a reason to look at the store.

        Such is one that names an entry which the store has not shown yet, another version than the one that an entry
        fixes, or a lower one by the same entry: who can write announcements alone must not choose who serves, and a
        trainer that was asleep must not lower it.
        """
        if new.alias != self._newest_alias:
            return new.alias > self._newest_alias
        if current is None:
            return self._fixed
        fixed_otherwise = self._fixed and new.sha256 != current.sha256
        return fixed_otherwise or (new.alias == current.alias and new.version < current.version)

    def _is_later(self, new: Decision, current: Decision) -> bool:
        if new.pushed and current.pushed:
            return True  # records of one topic are in order, whatever the clocks say
        # A number that nobody has mentioned yet is news even when its clock lags behind the last announcement.
        return new.at >= current.at or new.version > self._highest_heard

    def _follow(self) -> None:
        wanted, served = self._wanted, self.served
        if wanted is None:
            return
        if served is not None and served.sha256 == wanted.sha256:
            if wanted.covered_at is not None and wanted.covered_at > served.covered_at:
                self.served = replace(served, covered_at=wanted.covered_at)
            return
        now = self._monotonic()
        if served is not None and now < self._next_swap:
            return
        if self._refused is not None and self._refused[0] == wanted.sha256 and now < self._refused[1]:
            return
        try:
            self._swap(wanted, now)
        except Refused as error:
            self._refuse(wanted, error)

    def _swap(self, wanted: Decision, started: float) -> None:
        self._next_swap = started + self._swap_every
        model = load(self._store, self._pipeline, wanted.version, sha256=wanted.sha256)
        if wanted.covered_at is not None and wanted.covered_at > model.covered_at:
            model = replace(model, covered_at=wanted.covered_at)
        self._serve(model, started)
        self._refused = None

    def _serve(self, model: Served, started: float) -> None:
        before = self.served
        if before is not None:  # first, so that whoever reads `loaded` in between misses none that is kept
            numbers = (before.number, model.number)
            self._before = (before, *(v for v in self._before if v.number not in numbers))[: self._kept]
        self.served = model
        self.reason = ""
        seconds = self._monotonic() - started
        for listener in self._listeners:
            listener(model, seconds)
        self._metrics.swap_seconds.observe(seconds)
        self._metrics.swaps.inc()
        self._metrics.model_version.set(model.number)
        self._metrics.show_scores(model.manifest.metrics)
        appended = model.manifest.append_time
        if before is not None and before.number < model.number and appended is not None:
            now = self._clock()
            for instant in (appended.min, appended.max):
                self._metrics.event_to_served.observe(max(0.0, (now - instant).total_seconds()))
        logger.info("version %d of %s serves", model.number, self._pipeline.name)

    def _refuse(self, wanted: Decision, error: Refused) -> None:
        self._metrics.refused.labels(error.reason).inc()
        self._refused = (wanted.sha256, self._monotonic() + _RETRY_REFUSED_SECONDS)
        if wanted.pushed and error.reason in _NOT_IN_STORE:
            # Said, but not there: forget it, or every true version below it would look like an older one.
            self._wanted, self._highest_heard = None, 0 if self.served is None else self.served.number
            self._next_look = self._monotonic()
        kept = "nothing serves" if self.served is None else f"version {self.served.number} goes on serving"
        logger.error("version %d refused (%s), %s: %s", wanted.version, error.reason, kept, error)
        if self.served is None:
            self.reason = "version_refused"
            self._fall_back(wanted.version)

    def _fall_back(self, number: int) -> None:
        """At a start there is no last good version in memory: take the newest older one that passes."""
        for older in range(number - 1, max(0, number - 1 - _OLDER_TRIED), -1):
            started = self._monotonic()
            try:
                model = load(self._store, self._pipeline, older)
            except Refused as error:
                logger.warning("version %d refused (%s): %s", older, error.reason, error)
                continue
            self._serve(model, started)
            return


def _pushed(announcement: Announcement, now: datetime) -> Decision:
    return Decision(
        version=announcement.version,
        sha256=announcement.manifest_sha256,
        at=min(announcement.at, now),  # what is said to be of tomorrow must not outrank the store till then
        covered_at=announcement.covered_at,
        alias=announcement.alias,
        pushed=True,
    )
