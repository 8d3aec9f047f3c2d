"""The life of alerts: findings open them, keep them and end them. A pure state machine; publishing is somebody else's.

One certain finding opens an alert, because a finding's error is known. It is resolved after several quiet rounds, on a
softer threshold than it was opened by, so it does not flap. Every instant comes from the windows: a round that is judged again
after a crash, from the same state, gives the same events under the same keys.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from monitors.alerts import Alert, WindowSpan
from monitors.findings import Finding
from monitors.history import Offsets


@dataclass(frozen=True, slots=True, kw_only=True)
class LifePolicy:
    """When alerts open, speak again and end.

    Attributes:
        resolve_after: so many quiet rounds in a row, of the scale that found it or a longer one.
        quiet_above: a round is quiet for an open alert when its p-value is above this one.
        repeat_every: an open alert that goes on is published again so often, in event time; a higher severity at once.
        cooldown: so long after it was resolved an alert does not open again, in event time, but for a higher severity.
        min_rows: findings of fewer rows open nothing.
        warning: from this PSI on an alert is a warning, below it is for information; `critical` likewise.
    """

    resolve_after: int = 2
    quiet_above: float = 0.01
    repeat_every: timedelta = timedelta(hours=1)
    cooldown: timedelta = timedelta(minutes=15)
    min_rows: int = 50
    warning: float = 0.1
    critical: float = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The windows that a round is about: `[start, end)` in event time, and the records behind them."""

    pipeline: str
    window: WindowSpan
    model_version: int | None
    offsets: Offsets


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """How it goes with one alert key: quiet rounds in a row, the scale that is being watched, the last resolution."""

    quiet: int = 0
    windows: int = 1
    resolved_at: datetime | None = None
    resolved_severity: str = "info"


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """What is known between two rounds; msgspec can write it."""

    open: dict[str, Alert] = {}
    courses: dict[str, Course] = {}


def step(life: Life, findings: Iterable[Finding], seen: Seen, policy: LifePolicy) -> tuple[Life, list[Alert]]:
    """Take in one round's findings (one scale): what is known after it, and what is to be published."""
    raise NotImplementedError
