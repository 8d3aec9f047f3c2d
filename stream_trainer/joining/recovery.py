"""Where a start stands against what was written: what may be given out again, and until when. Pure.

Spark's checkpoint may be where the newest marker left it, a batch behind it (a crash), many behind it (a power cut, a
backup that was restored), or gone. In each case what is in the outputs already is compared by id until it cannot come.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from stream_trainer.offsets import Offsets


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """A record of `P.join_commits`; see `docs/schemas/join_commit.json`.

    Attributes:
        query_id: Spark's name of the checkpoint.
        batch_id: the batch's number in it.
        next_offsets: the end offsets of both inputs.
        digest: of the ids of the batch, those left out included.
        at: when the batch was planned, milliseconds since 1970.
        compare_from: from where on `P.examples` and `P.unmatched` are to be compared with what a start gives out.
        compare_to: what is compared beyond this batch's own rows goes on until both inputs are read so far; empty: nothing.
        compare_until: and until then; milliseconds since 1970, 0 while they are not.
        settled: what was due by then was given out, what is unread was appended later; milliseconds since 1970, -1 of
            markers that did not tell.
        waiting: predictions that wait for a label, by the slice of append time they lie in.
        waited: the same before this batch.
    """

    query_id: str
    batch_id: int
    next_offsets: Offsets
    digest: str
    at: int
    compare_from: Offsets
    compare_to: Offsets = {}
    compare_until: int = 0
    settled: int = -1
    waiting: dict[int, int] = {}
    waited: dict[int, int] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a checkpoint stands.

    Attributes:
        query_id: its name, empty before there is one.
        batch_id: the batch that Spark runs next.
        at: when the one before it was planned, milliseconds since 1970; 0: there is none.
    """

    query_id: str
    batch_id: int
    at: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What to do before the first batch.

    Attributes:
        marker: stands for the newest; all since its `compare_from` is read unless `compare_to` is empty.
        since: what was written since this instant is to be read too; None: nothing more.
        inputs: the append time from which both inputs are read by a checkpoint that is begun anew; None: it goes on.
        rolled_back: the checkpoint is older than the batch before the marker's; what waited is that of an older one.
    """

    marker: Marker
    since: int | None = None
    inputs: int | None = None
    rolled_back: bool = False


def recover(last: Marker, place: Place, span: int) -> Recovery:
    """What may come again of what was written up to the newest marker.

    Args:
        last: the newest marker.
        place: where the checkpoint stands.
        span: of append time: from what was settled back to what a state can depend on; milliseconds.
    """
    reach = furthest(last.next_offsets, last.compare_to)
    if place.query_id != last.query_id:
        since = (last.at if last.settled < 0 else last.settled) - span
        marker = msgspec.structs.replace(last, query_id="", compare_to=reach, compare_until=0, waiting={})
        if place.batch_id:  # a copy of one that was lost: it goes on where it stands
            return Recovery(marker=marker, since=min(since, place.at), rolled_back=True)
        return Recovery(marker=marker, since=since, inputs=since)
    ahead = place.batch_id > last.batch_id and place.at >= last.at
    if ahead and last.settled >= 0:
        return Recovery(marker=last)
    marker = msgspec.structs.replace(last, compare_to=reach, compare_until=0)
    if ahead or place.batch_id == last.batch_id:
        return Recovery(marker=marker)
    return Recovery(marker=msgspec.structs.replace(marker, batch_id=-1), since=place.at, rolled_back=True)


def waiting_at(markers: Sequence[Marker], place: Place) -> dict[int, int]:
    """What waited where a checkpoint stands, by those markers that are still there, oldest first."""
    before = [m for m in markers if m.query_id == place.query_id and m.batch_id < place.batch_id and m.at <= place.at]
    return before[-1].waiting if before else {}


def compared(last: Marker, batch: Marker, settle: int) -> tuple[Offsets, int]:
    """`compare_to` and `compare_until` of a batch's marker: the batch itself is compared whatever they say.

    Once the inputs are read again as far as they were, what is left are timers: `settle` later they have gone off.
    """
    if not last.compare_to or (last.compare_until and batch.at >= last.compare_until):
        return {}, 0
    if last.compare_until or not _reached(batch.next_offsets, last.compare_to):
        return last.compare_to, last.compare_until
    return last.compare_to, batch.at + settle


def furthest(one: Offsets, other: Offsets) -> Offsets:
    """The higher offset of each partition."""
    return {topic: _higher(one.get(topic, {}), other.get(topic, {})) for topic in {**one, **other}}


def earliest(one: Offsets, other: Offsets) -> Offsets:
    """The lower offset of each partition of `one`; what `other` does not name stays."""
    return {
        topic: {p: min(offset, other.get(topic, {}).get(p, offset)) for p, offset in partitions.items()}
        for topic, partitions in one.items()
    }


def _higher(one: Mapping[int, int], other: Mapping[int, int]) -> dict[int, int]:
    return {p: max(one.get(p, 0), other.get(p, 0)) for p in sorted({**one, **other})}


def _reached(offsets: Offsets, goal: Offsets) -> bool:
    return all(offsets.get(topic, {}).get(p, 0) >= end for topic, ps in goal.items() for p, end in ps.items())
