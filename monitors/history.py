"""What the monitor has seen, window by window: the record that page, report and explanations read.

One small file a window beside the monitor's state, so that a restart, or another machine, has the past. It is bounded:
the newest windows are kept.
"""

from bisect import bisect_left
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from monitors.findings import Finding
from stream_trainer.offsets import Ranges
from stream_trainer.store.storage import Storage

KEPT_WINDOWS = 2_000
Offsets = Ranges  # as alerts and windows name it


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of one feature in a window and in what it is compared with, bin by bin (few, for plotting).

    `segment`: "" for all rows, else `name=value`.
    """

    feature: str
    segment: str = ""
    bins: list[str]
    window: list[int]
    baseline: list[int]
    learned: list[int]


class WindowRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One closed window.

    Attributes:
        start: with `end` the window in event time, `[start, end)`.
        rows: predictions in it; `late`: those that came after it was closed were counted here when they came.
        versions: the lowest and the highest version that answered in it.
        offsets: the records behind it, per topic and partition `[first, next)`.
        scores: figures of the window by name: `log_loss`, `accuracy`, `no_change_log_loss`, `majority_log_loss`,
            `estimated_log_loss`, `staleness_seconds`, … ; absent where there is none.
    """

    start: datetime
    end: datetime
    rows: int
    late: int = 0
    versions: tuple[int, int] | None = None
    offsets: Offsets = {}
    findings: list[Finding] = []
    curves: list[Curve] = []
    scores: dict[str, float] = {}


class History:
    """Window records in a storage, by the start of the window; writing one again replaces it with the same.

    One process adds and lists the folder once for that; who only reads lists it whenever asked.
    """

    def __init__(self, storage: Storage, *, kept: int = KEPT_WINDOWS) -> None:
        self._storage = storage
        self._kept = kept
        self._known: list[str] | None = None

    def add(self, record: WindowRecord) -> None:
        """Keep a window, and forget the oldest beyond the bound."""
        path = _path(record.start)
        self._storage.put(path, msgspec.msgpack.encode(record))
        if self._known is None:
            self._known = self._paths()
        place = bisect_left(self._known, path)
        if self._known[place : place + 1] != [path]:
            self._known.insert(place, path)
        while len(self._known) > self._kept:
            self._storage.delete(self._known[0])
            del self._known[0]  # only now: what could not be deleted is tried again

    def starts(self) -> list[datetime]:
        """When the windows that are kept began, oldest first."""
        return [_start(path) for path in self._paths()]

    def get(self, start: datetime) -> WindowRecord | None:
        """One window; None when it is not kept or unreadable."""
        try:
            return msgspec.msgpack.decode(self._storage.get(_path(start)), type=WindowRecord)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None

    def newest(self, windows: int) -> Sequence[WindowRecord]:
        """The newest so many, oldest first."""
        found = (self.get(start) for start in self.starts()[-windows:])
        return [record for record in found if record is not None]

    def _paths(self) -> list[str]:
        return sorted(path for path in self._storage.walk("history/") if path.endswith(".msgpack"))


def _path(start: datetime) -> str:
    return f"history/{start.astimezone(UTC):%Y%m%dT%H%M%S%f}.msgpack"


def _start(path: str) -> datetime:
    name = path.rpartition("/")[2].removesuffix(".msgpack")
    return datetime.strptime(name, "%Y%m%dT%H%M%S%f").replace(tzinfo=UTC)
