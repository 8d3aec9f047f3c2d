"""What a join batch writes, and what it leaves out because it is there already. Pure.

A batch can come back with the same rows, with more, with fewer, or under another number after its checkpoint was
lost. What may come back is read again at a start (`recovery`); an id that is found is never written twice.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from stream_trainer.joining.known import Known
from stream_trainer.joining.matching import COUNTED, EXAMPLE, TIMEOUT, UNMATCHED, WAITING, Emitted
from stream_trainer.joining.recovery import Marker, compared
from stream_trainer.offsets import Offsets


def digest(ids: Iterable[str]) -> str:
    """SHA-256 over sorted ids."""
    whole = hashlib.sha256()
    for name in sorted(ids):
        whole.update(name.encode() + b"\n")
    return whole.hexdigest()


def told(emitted_id: str) -> tuple[str, ...]:
    """What a written id rules out: its label, which must neither be taught nor told again, and of an example its timeout."""
    prediction, colon, label = emitted_id.rpartition(":")
    if not colon:
        return (label,)
    return (f"{prediction}:",) if label == TIMEOUT else (f"{prediction}:", label)


def asked(emitted_id: str) -> str:
    """What rules an id out: its label, however it was told; of a timeout any example of its prediction."""
    prediction, colon, label = emitted_id.rpartition(":")
    return f"{prediction}:" if colon and label == TIMEOUT else label


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What is known to be in the output topics.

    Attributes:
        marker: the newest, None before the first.
        known: what the ids since its `compare_from` rule out; empty when none of them can come again.
        settle: for how long after all has been read again a timer may still give out what is there; milliseconds.
    """

    marker: Marker | None = None
    known: Known = field(default_factory=Known)
    settle: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do for a batch: nothing to write and no marker means that all of it is there.

    Attributes:
        rows: what to write.
        marker: to write with it.
        counts: what is written, by outcome, and what is only counted.
        waiting: predictions that wait after it, as `Marker.waiting`.
    """

    rows: list[Emitted]
    marker: Marker | None
    counts: Mapping[str, int]
    waiting: Mapping[int, int]


def plan(batch: Marker, emitted: Iterable[Emitted], written: Written, ends: Offsets) -> Plan:
    """What a batch has to write.

    Args:
        batch: as it was read; what is compared, what waits and the digest are filled in here.
        emitted: all that its keys gave out, in any order.
        written: what is there.
        ends: offsets of the output topics; all that this batch writes will lie there or after.
    """
    emitted = list(emitted)
    rows = sorted((e for e in emitted if e.kind in (EXAMPLE, UNMATCHED)), key=lambda e: e.id)
    whole = digest(e.id for e in rows)
    last = written.marker
    if last is None:
        waiting = _waiting({}, emitted)
        marker = msgspec.structs.replace(batch, digest=whole, compare_from=ends, waiting=waiting)
        return Plan(rows=rows, marker=marker, counts=_counts(emitted, rows), waiting=waiting)
    again = (last.query_id, last.batch_id) == (batch.query_id, batch.batch_id)
    before = last.waited if again and last.settled >= 0 else last.waiting
    waiting = _waiting(before, emitted)
    if again and (whole, batch.next_offsets, waiting) == (last.digest, last.next_offsets, last.waiting):
        return Plan(rows=[], marker=None, counts={}, waiting=waiting)
    held = written.known.holds([asked(row.id) for row in rows])
    missing = [row for row, there in zip(rows, held, strict=True) if not there]
    reach, until = compared(last, batch, written.settle)
    counts = _counts(emitted, missing)
    nothing_new = (batch.next_offsets, waiting, reach) == (last.next_offsets, last.waiting, last.compare_to)
    if nothing_new and not missing and until == last.compare_until:
        return Plan(rows=[], marker=None, counts=counts, waiting=waiting)
    marker = msgspec.structs.replace(
        batch,
        digest=whole,
        compare_from=last.compare_from if last.compare_to else ends,
        compare_to=reach,
        compare_until=until,
        waiting=waiting,
        waited=before,
    )
    return Plan(rows=missing, marker=marker, counts=counts, waiting=waiting)


def after(written: Written, done: Plan) -> Written:
    """What is known once a plan was carried out."""
    if done.marker is None:
        return written
    return replace(written, marker=done.marker, known=written.known if done.marker.compare_to else Known())


def _waiting(before: Mapping[int, int], emitted: Iterable[Emitted]) -> dict[int, int]:
    found = Counter(before)
    for row in emitted:
        if row.kind == WAITING:
            found[row.bucket] += row.amount
    return {bucket: count for bucket, count in found.items() if count > 0}


def _counts(emitted: list[Emitted], missing: list[Emitted]) -> dict[str, Any]:
    """What is written, by outcome, and what is only counted."""
    counts = Counter(row.outcome for row in missing)
    counts["examples"] = sum(row.kind == EXAMPLE for row in missing)
    for kind in COUNTED - {WAITING}:
        counts[kind] = sum(row.amount for row in emitted if row.kind == kind)
    return counts
