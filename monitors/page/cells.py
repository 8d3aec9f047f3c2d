"""The heat map's numbers: findings of many windows kept small, and laid out as features by time.

A finding becomes a code: its state first, then its effect; the largest code of a cell is what the cell shows. So cells
of several tests, kinds, references and windows are put together by the maximum.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from monitors.findings import VERSION
from monitors.history import WindowRecord

MAX_KEYS = 50_000
MAX_ROWS = 200
MAX_COLUMNS = 200
MAX_NAMES = 500
STATES = {"not enough data": 1, "quiet": 2, "drift": 3}
LETTERS = ".nqd"  # by state; "." is a cell that nothing was found out about
_STATE = 1e6
_UNKNOWN = -0.5  # no effect is known; below every effect


class Key(NamedTuple):
    """What a test was about."""

    kind: str
    feature: str
    segment: str
    against: str


class Registry:
    """A small number for each key, in the order they were met; keys beyond the bound have none."""

    def __init__(self) -> None:
        self.keys: list[Key] = []
        self._ids: dict[Key, int] = {}

    def id(self, key: Key) -> int | None:
        """The number of a key."""
        found = self._ids.get(key)
        if found is None and len(self.keys) < MAX_KEYS:
            found = self._ids[key] = len(self.keys)
            self.keys.append(key)
        return found

    def wanted(self, ask: "Ask") -> tuple[NDArray[np.int32], list[tuple[str, str]]]:
        """Which row of a grid each key is in, -1 for none, and the rows: feature and segment."""
        rows: dict[tuple[str, str], int] = {}
        places = np.full(len(self.keys), -1, np.int32)
        for i, key in enumerate(self.keys):
            if ask.takes(key):
                places[i] = rows.setdefault((key.feature, key.segment), len(rows))
        return places, list(rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Which findings a grid shows.

    Attributes:
        kind: one kind; "" for all. `against` likewise.
        feature: "" for one row a feature, in `segment`; else one row a segment of this feature.
        per: so many windows in a column.
        columns: at most so many, the newest.
        before: only windows that began before.
    """

    kind: str = ""
    against: str = ""
    feature: str = ""
    segment: str = ""
    per: int = 1
    columns: int = 60
    before: datetime | None = None

    def takes(self, key: Key) -> bool:
        """Whether a key belongs to the grid."""
        if (self.kind and key.kind != self.kind) or (self.against and key.against != self.against):
            return False
        return key.feature == self.feature if self.feature else key.segment == self.segment


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One window: `codes[i]` of the key `ids[i]`, each key once."""

    start: datetime
    end: datetime
    rows: int
    late: int
    versions: tuple[int, int] | None
    scores: Mapping[str, float]
    ids: NDArray[np.int32]
    codes: NDArray[np.float64]


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """A column of the grid: the windows in it, `[start, end)` of all together."""

    start: datetime
    end: datetime
    windows: list[datetime]
    rows: int
    late: int
    versions: tuple[int, int] | None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the grid.

    Attributes:
        states: a letter a column: `d` drift, `q` quiet, `n` not enough data, `.` nothing.
        effects: a PSI (or Jensen-Shannon divergence where there is none) a column, null where there is none.
        worst: which of the column's windows each cell shows.
    """

    feature: str
    segment: str
    states: str
    effects: list[float | None]
    worst: list[int]


class Grid(msgspec.Struct, frozen=True, kw_only=True):
    """Features (or segments) by time; `left_off` rows with less to tell are not shown; `more`: there are older windows."""

    columns: list[Slot]
    rows: list[Row]
    left_off: int = 0
    more: bool = False


def column(record: WindowRecord, registry: Registry) -> Column:
    """A window without what the heat map does not need."""
    codes: dict[int, float] = {}
    for finding in record.findings:
        if finding.segment.startswith(VERSION) and finding.state != "drift":
            continue  # versions come and go, and keys are for good
        number = registry.id(Key(finding.kind, finding.feature, finding.segment, finding.against))
        if number is not None:
            effect = finding.effect.psi if finding.effect.psi is not None else finding.effect.jensen_shannon
            codes[number] = max(codes.get(number, 0.0), code(finding.state, effect))
    return Column(
        start=record.start.astimezone(UTC),
        end=record.end.astimezone(UTC),
        rows=record.rows,
        late=record.late,
        versions=record.versions,
        scores=record.scores,
        ids=np.fromiter(codes.keys(), np.int32, len(codes)),
        codes=np.fromiter(codes.values(), np.float64, len(codes)),
    )


def code(state: str, effect: float | None) -> float:
    """The state, then the effect, as one number."""
    known = effect is not None and np.isfinite(effect)
    return STATES.get(state, 0) * _STATE + (min(max(effect or 0.0, 0.0), _STATE / 10) if known else _UNKNOWN)


def decode(value: float) -> tuple[int, float | None]:
    """State and effect of a code."""
    state = round(value / _STATE)
    effect = value - state * _STATE
    return state, None if state == 0 or effect < 0 else round(effect, 4)


def grid(columns: Sequence[Column], registry: Registry, ask: Ask) -> Grid:
    """The newest columns that were asked for, oldest first.

    Args:
        columns: windows, oldest first.
        registry: the one that they were made with.
        ask: what to show; `per` windows in a row by the calendar share a column.
    """
    known = [c for c in columns if ask.before is None or c.start < ask.before]
    groups = _groups(known, ask.per)
    shown = groups[-min(ask.columns, MAX_COLUMNS) :]
    places, names = registry.wanted(ask)
    codes = np.zeros((len(names), len(shown)))
    worst = np.zeros((len(names), len(shown)), np.int32)
    for at, group in enumerate(shown):
        for i, each in enumerate(group):
            rows = places[each.ids]
            fresh = np.zeros(len(names))
            np.maximum.at(fresh, rows[rows >= 0], each.codes[rows >= 0])
            higher = fresh > codes[:, at]
            codes[higher, at], worst[higher, at] = fresh[higher], i
    kept = _most_telling(codes)
    return Grid(
        columns=[_slot(group) for group in shown],
        rows=[_row(names[i], codes[i], worst[i]) for i in kept],
        left_off=int((codes.max(axis=1, initial=0.0) > 0).sum()) - len(kept),
        more=len(groups) > len(shown),
    )


def _groups(columns: Sequence[Column], per: int) -> list[list[Column]]:
    found: dict[float, list[Column]] = {}
    for each in columns:
        seconds = max((each.end - each.start).total_seconds(), 1e-6)
        key = each.start.timestamp() // (seconds * per) if per > 1 else each.start.timestamp()
        found.setdefault(key, []).append(each)
    return list(found.values())


def _slot(group: Sequence[Column]) -> Slot:
    served = [each.versions for each in group if each.versions is not None]
    return Slot(
        start=group[0].start,
        end=group[-1].end,
        windows=[each.start for each in group],
        rows=sum(each.rows for each in group),
        late=sum(each.late for each in group),
        versions=(min(low for low, _ in served), max(high for _, high in served)) if served else None,
    )


def _most_telling(codes: NDArray[np.float64]) -> list[int]:
    """The rows that are not empty, at most so many: those with the largest codes, in the order they came in."""
    highest = codes.max(axis=1, initial=0.0)
    best = np.argsort(-highest, kind="stable")[:MAX_ROWS]
    return sorted(int(i) for i in best if highest[i] > 0)


def _row(name: tuple[str, str], codes: NDArray[np.float64], worst: NDArray[np.int32]) -> Row:
    found = [decode(float(value)) for value in codes]
    return Row(
        feature=name[0],
        segment=name[1],
        states="".join(LETTERS[state] for state, _ in found),
        effects=[effect for _, effect in found],
        worst=worst.tolist(),
    )


def since(
    columns: Sequence[Column], registry: Registry, feature: str, segment: str, start: datetime
) -> datetime | None:
    """When the drift that a window shows began: the first window of the unbroken run up to it; None: no drift there.

    Windows without enough data, or without the feature, break no run.
    """
    ids = [i for i, key in enumerate(registry.keys) if (key.feature, key.segment) == (feature, segment)]
    began: datetime | None = None
    for each in reversed([c for c in columns if c.start <= start]):
        mine = each.codes[np.isin(each.ids, ids)]
        state = round(float(mine.max(initial=0.0)) / _STATE)
        if state == STATES["drift"]:
            began = each.start
        elif state == STATES["quiet"] or began is None:
            break
    return began
