"""Records of `P.predictions` that could not be read: how many by reason, where they stand, and which window they belong to.

They tell no event time, so each belongs to the window that event time had reached in its partition when it came, as labels
do: a function of the log alone. Runs in Spark's workers; values add up in any order and any grouping.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from monitors.asked import SHADOW, Asked, Kafka, Skip
from monitors.content import covered, summed
from stream_trainer.offsets import Ranges

SUPPORT = 5


class Skipped(msgspec.Struct, frozen=True, kw_only=True):
    """Those of one window, by reason. `offsets`: the records, per topic and partition `[first, next)`."""

    rows: dict[str, int] = {}
    offsets: dict[str, Ranges] = {}

    @property
    def total(self) -> int:
        """For any reason."""
        return sum(self.rows.values())


def add(first: Skipped, second: Skipped) -> Skipped:
    """Both together."""
    found = {**first.offsets, **second.offsets}
    found |= {r: covered(first.offsets[r], second.offsets[r]) for r in first.offsets.keys() & second.offsets.keys()}
    return Skipped(rows=summed(first.rows, second.rows), offsets=dict(sorted(found.items())))


def add_by_window(first: Mapping[int, Skipped], second: Mapping[int, Skipped]) -> dict[int, Skipped]:
    """Of each window, from both."""
    nothing = Skipped()
    return {n: add(first.get(n, nothing), second.get(n, nothing)) for n in sorted({*first, *second})}


def up_to(skipped: Mapping[int, Skipped], number: int) -> tuple[dict[int, Skipped], Skipped]:
    """What is left when a window is closed, and what belongs to it: that of windows before it that had no rows too."""
    mine = Skipped()
    for n in sorted(skipped):
        mine = add(mine, skipped[n]) if n <= number else mine
    return {n: one for n, one in skipped.items() if n > number}, mine


def by_window(
    skips: Sequence[Skip], rows: Iterable[Asked], known: Mapping[str, Sequence[int]], *, length: int, closed: int | None
) -> dict[int, Skipped]:
    """Find their windows. What answers a challenger's request is nothing unreadable and is left out.

    Args:
        skips: of some records.
        rows: those of the same records that could be read.
        known: the highest event times of each partition before these records.
        length: of a window, in microseconds.
        closed: windows of a lower number are closed.
    """
    bad = [skip for skip in skips if skip.reason != SHADOW]
    if not bad:
        return {}
    events: dict[str, list[Asked | Skip]] = {name_of(skip.where): [] for skip in bad}
    both: list[Asked | Skip] = [*rows, *bad]
    for event in both:
        if name_of(event.where) in events:
            events[name_of(event.where)].append(event)
    found: dict[int, Skipped] = {}
    for name, ours in events.items():
        times = sorted(known.get(name, ()))
        for event in sorted(ours, key=lambda one: one.where.offset):
            if isinstance(event, Asked):
                times = sorted([*times, event.at])[-SUPPORT:]
                continue
            number = max(times[0] // length if times else 0, closed or 0)
            found[number] = add(found.get(number, Skipped()), _one(event))
    return dict(sorted(found.items()))


def name_of(where: Kafka) -> str:
    """A partition, as the highest event times name it."""
    return f"{where.topic}/{where.partition}"


def _one(skip: Skip) -> Skipped:
    where = skip.where
    offsets = {where.topic: {where.partition: (where.offset, where.offset + 1)}}
    return Skipped(rows={skip.reason: 1}, offsets={skip.reason: offsets})
