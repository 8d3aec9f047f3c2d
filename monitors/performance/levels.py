"""How much the losses of windows usually differ from each other, beyond what their rows do by chance. Pure.

A window's level is the logarithm of its mean loss. Its variance has two parts, as in a model of random effects: of the windows
and of their rows. A new window is held against both by Student's t, with as many degrees of freedom as there are windows that say
something of their own (`dependence`).
"""

import math
from collections.abc import Container, Mapping

import msgspec
from scipy.special import stdtr

from monitors.performance.dependence import counted_as_one

LEAST, MEMORY, COURSE = 8, 128, 256
# A window teaches no more than what one in a thousand shows, so that a jump stands out for a while.
_FURTHEST = 3.29


class Level(msgspec.Struct, frozen=True, array_like=True):
    """Of one segment, over about the newest `MEMORY` windows: how many there were, mean and variance of the level, and mean noise."""

    windows: int = 0
    mean: float = 0.0
    variance: float = 0.0
    noise: float = 0.0


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """A window's level, and the variance it has because its rows are few."""

    level: float
    noise: float


class Levels(msgspec.Struct, frozen=True, kw_only=True):
    """What windows have shown, by segment, "" for all rows; `course`: the newest levels of all rows, oldest first."""

    known: dict[str, Level] = {}
    course: list[float] = []

    @property
    def as_one(self) -> float:
        """So many windows in a row say as much as one."""
        return counted_as_one(self.course) if len(self.course) >= LEAST else 1.0


def p_higher(level: Level, seen: Seen, as_one: float) -> float:
    """How often a window is so high among windows, in (0, 1]; 1 while fewer than `LEAST` are known."""
    if level.windows < LEAST:
        return 1.0
    freedom = _freedom(level, as_one)
    spread = math.sqrt(_variance(level, seen, as_one))
    if spread == 0.0:
        return 1.0 if seen.level <= level.mean else 1e-300
    return max(float(stdtr(freedom, (level.mean - seen.level) / spread)), 1e-300)


def taught(levels: Levels, seen: Mapping[str, Seen], kept: Container[str]) -> Levels:
    """With one more window, by segment; of the others what is in `kept` stays."""
    as_one = levels.as_one
    held = {key: _held(levels.known.get(key, Level()), one, as_one) for key, one in seen.items()}
    stays = {key: level for key, level in levels.known.items() if key in kept}
    known = {key: _after(levels.known.get(key, Level()), one) for key, one in held.items()}
    course = [*levels.course, *([held[""].level] if "" in held else [])]
    return Levels(known=dict(sorted({**stays, **known}.items())), course=course[-COURSE:])


def _held(level: Level, seen: Seen, as_one: float) -> Seen:
    if level.windows < LEAST:
        return seen
    furthest = _FURTHEST * math.sqrt(_variance(level, seen, as_one))
    return Seen(min(max(seen.level, level.mean - furthest), level.mean + furthest), seen.noise)


def _after(level: Level, seen: Seen) -> Level:
    windows = level.windows + 1
    part = 1.0 / min(windows, MEMORY)
    gap = seen.level - level.mean
    return Level(
        windows=windows,
        mean=level.mean + part * gap,
        variance=(1.0 - part) * (level.variance + part * gap**2),
        noise=level.noise + part * (seen.noise - level.noise),
    )


def _freedom(level: Level, as_one: float) -> float:
    return max(min(level.windows, MEMORY) / as_one - 1.0, 0.5)


def _variance(level: Level, seen: Seen, as_one: float) -> float:
    """Of the gap between a new window and the mean of those before."""
    freedom = _freedom(level, as_one)
    of_windows = max(level.variance * (freedom + 1.0) / freedom - level.noise, 0.0)
    return of_windows * (1.0 + 1.0 / (freedom + 1.0)) + seen.noise + level.noise / min(level.windows, MEMORY)
