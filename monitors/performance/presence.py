"""Silence and age, by the clock: whether anybody asks, and how old the answering version is. Pure; the clock comes in.

A query without records gets no micro-batches, so the monitor's loop has to call `look` every few seconds.
"""

from datetime import datetime

import msgspec

from monitors.findings import Finding
from stream_trainer.monitoring import Monitoring


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """What the last look said, and when the watch began. Begin with `Presence(began=now)`; not kept over a restart.

    Attributes:
        began: when this monitor started: nothing is silent or stale for a monitor that has just begun.
        silent: whether there is an open finding of silence; `stale`: of age.
    """

    began: datetime
    silent: bool = False
    stale: bool = False


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen by now.

    Attributes:
        prediction: Kafka's append time of the newest record of `P.predictions`; None: none yet.
        covered: when the trainer last said that the champion has the end of the log covered (`covered_at`); None: no version.
        version: that version.
    """

    prediction: datetime | None = None
    covered: datetime | None = None
    version: int | None = None


def look(presence: Presence, seen: Seen, now: datetime, limits: Monitoring) -> tuple[Presence, list[Finding]]:
    """Kinds `silence` and `freshness`, one finding each where `limits` has a limit; `drift` while beyond it.

    With hysteresis: what is open is over only at half the limit, so an instant around the limit does not flap.
    """
    raise NotImplementedError


class Ticker:
    """Calls something every few seconds from a thread of its own until it is closed; a failure is logged, not fatal."""
