"""What the page shows, as it was last seen: looked up every few seconds in one thread, answered from by many.

Each part (windows, alerts, versions, freshness) has a revision, which is a digest of what it says: the same after a
restart, another when anything has changed. A source that fails leaves its part as it was, with a note.
"""

import hashlib
import logging
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import pairwise

import msgspec

from monitors.history import WindowRecord
from monitors.page.cells import MAX_NAMES, Ask, Column, Grid, Registry, column, grid, since
from monitors.page.sources import Sources, ordered

MAX_CELLS = 3_000_000
MAX_SCORES = 32
NEW_PER_LOOK = 200  # so that the newest are shown while the older ones are still being read
_REREAD = 2  # the newest records may still gain weights and late rows
MAX_ALERTS = 500
MAX_PROBLEM = 300
PARTS = ("windows", "alerts", "versions", "freshness")

Changed = Callable[[Mapping[str, str]], None]
_log = logging.getLogger(__name__)


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of the windows, oldest first: `scores[name][i]` is of the window that ended at `ends[i]`."""

    starts: list[datetime]
    ends: list[datetime]
    versions: list[tuple[int, int] | None]
    scores: dict[str, list[float | None]]


class Names(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to choose from."""

    kinds: list[str]
    against: list[str]
    features: list[str]
    segments: list[str]


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Revisions of the parts, and why a part may be old."""

    pipeline: str
    revisions: dict[str, str]
    problems: dict[str, str]
    windows: int
    newest: datetime | None


class Board:
    """See the module. `refresh` is called by one thread; everything else by any.

    Args:
        sources: where it looks.
        changed: is told the new revisions of the parts that changed, by the thread that refreshes.
    """

    def __init__(self, sources: Sources, changed: Changed = lambda _: None) -> None:
        self.sources = sources
        self.changed = changed
        self._refreshing = threading.Lock()
        self._reading = threading.Lock()
        self._registry = Registry()
        self._columns: dict[datetime, Column] = {}
        self._floor: datetime | None = None  # older windows have no room
        self._answers: dict[str, bytes] = {"alerts": b"[]", "versions": b"{}", "freshness": b"[]"}
        self._revisions: dict[str, str] = dict.fromkeys(PARTS, "")
        self._problems: dict[str, str] = {}

    def refresh(self) -> dict[str, str]:
        """Look at every source; the new revisions of what has changed, problems included."""
        with self._refreshing:
            found = {
                "windows": self._try("windows", self._windows),
                "alerts": self._try(
                    "alerts", lambda: self._keep("alerts", ordered(self.sources.alerts())[:MAX_ALERTS])
                ),
                "versions": self._try("versions", lambda: self._keep("versions", self.sources.versions())),
                "freshness": self._try("freshness", lambda: self._keep("freshness", list(self.sources.ages()))),
            }
            fresh = {part: revision for part, revision in found.items() if revision != self._revisions[part]}
            self._revisions = {**self._revisions, **fresh}
        if fresh:
            self.changed(fresh)
        return fresh

    def state(self) -> State:
        """What there is, in short."""
        with self._reading:
            newest = max(self._columns, default=None)
            count = len(self._columns)
        return State(
            pipeline=self.sources.pipeline,
            revisions=self._revisions,
            problems=self._problems,
            windows=count,
            newest=newest,
        )

    def answer(self, part: str) -> bytes:
        """Alerts, versions or freshness, as JSON."""
        return self._answers[part]

    def grid(self, ask: Ask) -> Grid:
        """See `cells.grid`."""
        with self._reading:
            return grid(list(self._columns.values()), self._registry, ask)

    def names(self) -> Names:
        """The kinds, references, features and segments of the windows that are known, in the order they were met."""
        with self._reading:
            keys = list(self._registry.keys)
        return Names(
            kinds=list(dict.fromkeys(key.kind for key in keys))[:MAX_NAMES],
            against=list(dict.fromkeys(key.against for key in keys))[:MAX_NAMES],
            features=list(dict.fromkeys(key.feature for key in keys))[:MAX_NAMES],
            segments=list(dict.fromkeys(key.segment for key in keys if key.segment))[:MAX_NAMES],
        )

    def scores(self) -> Scores:
        """The figures of all windows that are known; of the names, the first so many."""
        with self._reading:
            columns = list(self._columns.values())
        names = list(dict.fromkeys(name for each in columns for name in each.scores))[:MAX_SCORES]
        return Scores(
            starts=[each.start for each in columns],
            ends=[each.end for each in columns],
            versions=[each.versions for each in columns],
            scores={name: [each.scores.get(name) for each in columns] for name in names},
        )

    def window(self, start: datetime) -> WindowRecord | None:
        """One window, read anew."""
        return self.sources.history.get(start)

    def since(self, feature: str, segment: str, start: datetime) -> datetime | None:
        """See `cells.since`."""
        with self._reading:
            return since(list(self._columns.values()), self._registry, feature, segment, start)

    def neighbours(self, start: datetime) -> tuple[datetime | None, datetime | None]:
        """The windows before and after one."""
        with self._reading:
            starts = [None, *self._columns, None]
        return next(((a, c) for (a, b), (_, c) in pairwise(list(pairwise(starts))) if b == start), (None, None))

    def _try(self, part: str, look: Callable[[], str]) -> str:
        try:
            revision = look()
        except Exception as error:  # noqa: BLE001 - whatever a source does, the page goes on with what it has
            problem = _line(str(error)) or type(error).__name__
            if self._problems.get(part) != problem:
                _log.warning("the page's %s cannot be read: %s", part, problem)
            self._problems = {**self._problems, part: problem}
            return f"{self._revisions[part].partition('!')[0]}!{_digest(problem.encode())}"
        self._problems = {name: text for name, text in self._problems.items() if name != part}
        return revision

    def _keep(self, part: str, value: object) -> str:
        self._answers[part] = msgspec.json.encode(value)
        return _digest(self._answers[part])

    def _windows(self) -> str:
        """Take in what is new, the newest first: of a history that is too large for memory the newest is kept."""
        starts = [start for start in self.sources.history.starts() if self._floor is None or start >= self._floor]
        again = set(starts[-_REREAD:])
        missing = [start for start in reversed(starts) if start not in self._columns or start in again]
        fresh: dict[datetime, Column] = {}
        for start in missing[:NEW_PER_LOOK]:
            record = self.window(start)
            if record is not None:
                with self._reading:
                    fresh[start] = column(record, self._registry)
            if sum(len(each.ids) for each in fresh.values()) > MAX_CELLS:
                break
        found = {start: fresh.get(start) or self._columns.get(start) for start in starts}
        known = {start: each for start, each in found.items() if each is not None}
        columns = _bounded(known)
        if len(columns) < len(known):
            self._floor = min(columns)
        with self._reading:
            self._columns = columns
        return _digest(_told(columns))


def _bounded(columns: dict[datetime, Column]) -> dict[datetime, Column]:
    kept: list[datetime] = []
    cells = 0
    for start in reversed(columns):
        cells += len(columns[start].ids)
        if cells > MAX_CELLS and kept:
            break
        kept.append(start)
    return {start: columns[start] for start in reversed(kept)}


def _told(columns: Mapping[datetime, Column]) -> bytes:
    """What tells one state of the windows from another: which there are, and what the newest say."""
    newest = list(columns.values())[-_REREAD:]
    details = b"".join(
        each.codes.tobytes() + msgspec.json.encode((each.rows, each.late, each.scores)) for each in newest
    )
    return msgspec.json.encode(list(columns)) + details


def _line(text: str) -> str:
    """One line of printable text: it also goes into the log."""
    return "".join(c if c.isprintable() else " " for c in text)[:MAX_PROBLEM]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
