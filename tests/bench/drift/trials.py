"""What a monitor is put through: quiet windows, changed ones, a change that lasts, one outlier. Rows from `worlds`, by seed.

A number changes as `worlds` says, in the columns of the first three families in turn; words in the fourth. It runs in the
peers' environments too: NumPy and SciPy, nothing of ours.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tests.bench.drift import worlds
from tests.bench.drift.detectors import Build, Detector, Rows
from tests.bench.drift.worlds import CHANGES, QUIET, Change

Kind = Literal["quiet", "power", "delay", "outlier"]
FEATURES, WINDOWS, REFERENCES = 20, 200, 2
STREAMS, LONGEST = 20, 64
OUTLIER = 1e6
_LEAST = 2  # windows that are always judged, whatever they cost
_OUTLIERS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One cell of the table.

    Attributes:
        kind: "quiet": windows one after the other; "power": changed windows, each the first after the reference;
            "delay": the change lasts from the first window on; "outlier": the same window with and without one.
        change: its name; "" for none.
        rows: of a window.
        windows: how many (streams, for "delay").
    """

    kind: Kind
    change: str = ""
    rows: int
    windows: int = WINDOWS


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What came out, an entry a window, or a stream.

    Attributes:
        flagged: how many columns; for "outlier" whether the decision changed.
        hits: "power": whether the changed column was flagged; "delay": in which window first, from 1, or 0.
        columns: how many there were.
        seconds: CPU, of judging alone; `limit`: after so many no further window was begun.
    """

    flagged: tuple[int, ...]
    hits: tuple[int, ...] = ()
    columns: int
    seconds: float
    limit: float


def all_trials(sizes: tuple[int, ...], delays: tuple[int, ...], outlier_rows: int) -> list[Trial]:
    """The whole table for one contestant."""
    return [
        *(Trial(kind="quiet", rows=rows) for rows in sizes),
        *(Trial(kind="power", change=change.name, rows=rows) for rows in sizes for change in CHANGES),
        *(Trial(kind="delay", change=c.name, rows=rows, windows=STREAMS) for rows in delays for c in CHANGES),
        Trial(kind="outlier", rows=outlier_rows, windows=_OUTLIERS),
    ]


def run(trial: Trial, build: Build, name: str, *, alone: bool, clock: Callable[[], float], limit: float) -> Cell:
    """Put a monitor through a trial.

    Args:
        trial: which one.
        build: makes it.
        name: its name, for `build`.
        alone: it judges each column by itself, so a changed one is judged without the others.
        clock: CPU seconds.
        limit: after so many seconds of judging no further window is begun, beyond the first few.
    """
    fitted = [build(name, trial.rows) for _ in range(REFERENCES)]
    for number, detector in enumerate(fitted):
        columns = _changeable(trial) if alone and trial.kind != "quiet" else list(range(FEATURES))
        detector.fit(_drawn((1, number), worlds.REFERENCE_ROWS, columns))
    one = {"quiet": _quiet, "power": _power, "delay": _delay, "outlier": _outlier}[trial.kind]
    flagged, hits, spent = [], [], 0.0
    for window in range(trial.windows):
        if spent > limit and window >= _LEAST:
            break
        started = clock()
        found, hit = one(trial, fitted[window % REFERENCES], window, alone)
        spent += clock() - started
        flagged.append(found)
        hits.append(hit)
    judged = FEATURES if not alone or trial.kind == "quiet" else 1
    return Cell(flagged=tuple(flagged), hits=tuple(hits), columns=judged, seconds=spent, limit=limit)


def change_of(trial: Trial) -> Change:
    """What changes in it."""
    return next((change for change in CHANGES if change.name == trial.change), QUIET)


def _changeable(trial: Trial) -> list[int]:
    """The columns that take turns: one of each family that the change is a change of."""
    families = worlds.FAMILIES
    changed = [i for i, family in enumerate(families) if change_of(trial).applies(family)]
    return changed or [0]


def _drawn(seed: tuple[int, ...], rows: int, columns: list[int], change: Change = QUIET, changed: int = -1) -> Rows:
    """Some columns of a window; each has a seed of its own, so that one alone is the same as among all."""
    families = worlds.families(FEATURES)
    return {
        _name(i): worlds.draw(families[i], np.random.default_rng([*seed, i]), rows, change if i == changed else QUIET)
        for i in columns
    }


def _fresh(detector: Detector) -> Detector:
    return copy.deepcopy(detector) if detector.remembers else detector


def _window(trial: Trial, seed: tuple[int, ...], column: int, alone: bool) -> Rows:
    columns = [column] if alone else list(range(FEATURES))
    return _drawn((2, trial.rows, *seed), trial.rows, columns, change_of(trial), column)


def _name(column: int) -> str:
    return f"{worlds.families(FEATURES)[column]}_{column}"


def _quiet(trial: Trial, detector: Detector, window: int, alone: bool) -> tuple[int, int]:
    return len(detector.alarm(_window(trial, (0, window), 0, alone=False))), 0


def _power(trial: Trial, detector: Detector, window: int, alone: bool) -> tuple[int, int]:
    turns = _changeable(trial)
    column = turns[window // REFERENCES % len(turns)]
    found = _fresh(detector).alarm(_window(trial, (1, window), column, alone))
    return len(found), int(_name(column) in found)


def _delay(trial: Trial, detector: Detector, stream: int, alone: bool) -> tuple[int, int]:
    turns, started = _changeable(trial), _fresh(detector)
    column = turns[stream // REFERENCES % len(turns)]
    for number in range(LONGEST):
        found = started.alarm(_window(trial, (2, stream, number), column, alone))
        if _name(column) in found:
            return len(found), number + 1
    return 0, 0


def _outlier(trial: Trial, detector: Detector, window: int, alone: bool) -> tuple[int, int]:
    frame = _window(trial, (3, window), 0, alone)
    values = frame[_name(0)].copy()
    values[0] = OUTLIER
    without, with_it = _fresh(detector).alarm(frame), _fresh(detector).alarm({**frame, _name(0): values})
    return int(without != with_it), 0
