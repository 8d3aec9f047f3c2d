"""What a join batch writes, and what it leaves out because it is there already. Pure.

A batch can come back with the same rows, with more, with fewer, or under another number after its checkpoint was
lost. So what was written last is read again at a start, and an id that is found is never written twice.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from stream_trainer.joining.matching import EXAMPLE, EXPIRED, SKIPPED, UNMATCHED, WAITING, Emitted
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
        compare_until: until when, if that is more than the last transaction; milliseconds since 1970, 0 for not.
        waiting: predictions that wait for a label, by the slice of append time they lie in.
    """

    query_id: str
    batch_id: int
    next_offsets: Offsets
    digest: str
    at: int
    compare_from: Offsets
    compare_until: int = 0
    waiting: dict[int, int] = {}


def digest(ids: Iterable[str]) -> str:
    """SHA-256 over sorted ids."""
    whole = hashlib.sha256()
    for name in sorted(ids):
        whole.update(name.encode() + b"\n")
    return whole.hexdigest()


def names(emitted_id: str) -> tuple[str, ...]:
    """What an id rules out: itself, and the label in it, which must neither be taught nor reported again."""
    _, colon, label = emitted_id.partition(":")
    return (emitted_id, label) if colon and "/" in label else (emitted_id,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What is known to be in the output topics.

    Attributes:
        marker: the newest, None before the first.
        known: names of ids, as far back as the marker's `compare_from`.
    """

    marker: Marker | None = None
    known: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do for a batch: nothing to write and no marker means that all of it is there."""

    rows: list[Emitted]
    marker: Marker | None
    counts: Mapping[str, int]


def plan(batch: Marker, emitted: Iterable[Emitted], written: Written, ends: Offsets) -> Plan:
    """What a batch has to write.

    Args:
        batch: as it was read; `compare_from`, `waiting` and the digest are filled in here.
        emitted: all that its keys gave out, in any order.
        written: what is there.
        ends: where the output topics end now.
    """
    emitted = list(emitted)
    rows = sorted((e for e in emitted if e.kind in (EXAMPLE, UNMATCHED)), key=lambda e: e.id)
    whole = digest(e.id for e in rows)
    last = written.marker
    if last is not None and (last.query_id, last.batch_id) == (batch.query_id, batch.batch_id) and last.digest == whole:
        return Plan(rows=[], marker=None, counts={})
    missing = [row for row in rows if written.known.isdisjoint(_identity(row))]
    if last is not None and not missing and batch.next_offsets == last.next_offsets:
        return Plan(rows=[], marker=None, counts=_counts(emitted, []))
    waiting = Counter(last.waiting if last is not None else {})
    for row in emitted:
        if row.kind == WAITING:
            waiting[row.bucket] += row.amount
    comparing = last is not None and (written.known or last.compare_until > batch.at)
    marker = replace_marker(
        batch,
        digest=whole,
        compare_from=last.compare_from if last is not None and comparing else ends,
        compare_until=last.compare_until if last is not None and last.compare_until > batch.at else 0,
        waiting={bucket: count for bucket, count in waiting.items() if count > 0},
    )
    return Plan(rows=missing, marker=marker, counts=_counts(emitted, missing))


def replace_marker(marker: Marker, **changes: Any) -> Marker:
    """A marker with other fields."""
    return msgspec.structs.replace(marker, **changes)


def after(written: Written, batch: Plan, rows: Iterable[str]) -> Written:
    """What is known once a plan was carried out; `rows` are the ids that the batch gave out.

    What was given out again needs no watching any more: the state is past it.
    """
    for emitted_id in rows:
        written.known.difference_update(names(emitted_id))
    return replace(written, marker=batch.marker or written.marker)


def _identity(row: Emitted) -> tuple[str, ...]:
    return names(row.id)


def _counts(emitted: list[Emitted], missing: list[Emitted]) -> dict[str, int]:
    """What is written, by outcome, and what is only counted."""
    counts = Counter(row.outcome for row in missing)
    counts["examples"] = sum(row.kind == EXAMPLE for row in missing)
    for kind in (SKIPPED, EXPIRED):
        counts[kind] = sum(row.amount for row in emitted if row.kind == kind)
    return counts
