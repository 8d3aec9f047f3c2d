"""Where a version comes from: its chain of parents, and the offsets behind it. Manifests only; no tensors, no Kafka.

Weights follow `parent`. After `train --from V` the parent is not the version before; what was learned in between
is then not in the weights, and not in this chain.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

import msgspec

from stream_trainer.errors import Corrupt, NoVersion, StoreDamaged
from stream_trainer.offsets import Loss, Ranges
from stream_trainer.store import ModelStore, Rows, Version
from stream_trainer.store.manifest import HistoryFile, Manifest


class Stretch(msgspec.Struct, frozen=True, kw_only=True):
    """Consecutive offsets `[start, next)` of one partition of one topic, as that topic was under this id.

    `next` is null only for lost offsets of which nobody can say where they ended.
    """

    topic: str
    topic_id: str
    partition: int
    start: int
    next: int | None


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """The offsets that some versions took in, joined where they touch.

    `learned` went into the weights, but for the records in them that were rejected. `quarantined` failed a gate,
    `lost` was gone before it was read: neither is in the weights.
    """

    learned: list[Stretch]
    quarantined: list[Stretch]
    lost: list[Stretch]


def ancestors(store: ModelStore, number: int, *, since: int | None = None) -> list[Version]:
    """The chain of parents that ends in a version, oldest first; with `since` it begins there, if it is in the chain.

    Raises:
        NoVersion: there is no such version.
        StoreDamaged: a manifest of the chain is gone, does not parse, or is not the one its child was committed on.
    """
    try:
        chain = [store.read(number)]
    except Corrupt as error:
        raise StoreDamaged(str(error)) from error
    while (parent := chain[-1].manifest.parent) is not None and chain[-1].number != since:
        child = chain[-1]
        if parent >= child.number:
            raise StoreDamaged(f"version {child.number} of {store.describe()} says that its parent is {parent}")
        try:
            version = store.read(parent)
        except (Corrupt, NoVersion) as error:
            raise StoreDamaged(f"version {child.number} was learned on top of version {parent}, but {error}") from error
        if version.sha256 != child.manifest.parent_sha256:
            raise StoreDamaged(
                f"the manifest of version {parent} of {store.describe()} is not the one that version {child.number} "
                f"was committed on: SHA-256 {version.sha256[:12]}, not {(child.manifest.parent_sha256 or '')[:12]}; "
                "it was changed afterwards: restore it from a copy"
            )
        chain.append(version)
    return chain[::-1]


def learned(chain: Sequence[Version]) -> Learned:
    """What the versions of a chain took in, oldest first."""
    good: list[Stretch] = []
    bad: list[Stretch] = []
    lost: list[Loss] = []
    for version in chain:
        manifest = version.manifest
        for cut, quarantined in judged_cuts(manifest):
            into = bad if quarantined else good
            into += _stretches(manifest, cut)
        lost += manifest.lost
    return Learned(learned=_joined(good), quarantined=_joined(bad), lost=_joined(_of_loss(loss) for loss in lost))


def judged_cuts(manifest: Manifest) -> Iterator[tuple[Ranges, bool]]:
    """A version's cuts in their order, and whether each was quarantined."""
    kept_out = list(manifest.quarantined)
    for cut in manifest.cuts:
        quarantined = cut in kept_out
        if quarantined:
            kept_out.remove(cut)
        yield cut, quarantined


def _stretches(manifest: Manifest, cut: Ranges) -> list[Stretch]:
    return [
        Stretch(topic=topic, topic_id=manifest.topic_ids.get(topic, ""), partition=partition, start=start, next=end)
        for topic, partitions in cut.items()
        for partition, (start, end) in partitions.items()
        if start < end
    ]


def _of_loss(loss: Loss) -> Stretch:
    return Stretch(topic=loss.topic, topic_id=loss.topic_id, partition=loss.partition, start=loss.start, next=loss.next)


def _joined(stretches: Iterable[Stretch]) -> list[Stretch]:
    """By topic, id and partition; the ids in the order in which they were learned from."""
    by_partition: dict[tuple[str, str, int], list[Stretch]] = {}
    order: dict[tuple[str, str], int] = {}
    for stretch in stretches:
        order.setdefault((stretch.topic, stretch.topic_id), len(order))
        kept = by_partition.setdefault((stretch.topic, stretch.topic_id, stretch.partition), [])
        if kept and kept[-1].next == stretch.start:
            kept[-1] = msgspec.structs.replace(kept[-1], next=stretch.next)
        else:
            kept.append(stretch)
    keys = sorted(by_partition, key=lambda key: (key[0], order[key[0], key[1]], key[2]))
    return [stretch for key in keys for stretch in by_partition[key]]


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """What is behind a version: `last_step` is its own cuts, `since_start` those of its parents and itself.

    `parents` has the newest first; `trained` counts the rows of the whole chain that went into the weights. `history` are
    the files that the chain began with, in the order in which they were learned.
    """

    pipeline: str
    version: int
    manifest_sha256: str
    created_at: datetime
    trained_through: datetime | None
    contract: str
    passed: bool
    parents: list[int]
    rows: Rows
    trained: int
    last_step: Learned
    since_start: Learned
    history: list[HistoryFile]


def trace(chain: Sequence[Version]) -> Trace:
    """What the manifests of a chain, oldest first, say about its last version."""
    last = chain[-1]
    manifest = last.manifest
    return Trace(
        pipeline=manifest.pipeline,
        version=last.number,
        manifest_sha256=last.sha256,
        created_at=manifest.created_at,
        trained_through=manifest.trained_through,
        contract=manifest.contract,
        passed=manifest.passed,
        parents=[version.number for version in reversed(chain[:-1])],
        rows=manifest.rows,
        trained=sum(version.manifest.rows.trained for version in chain),
        last_step=learned(chain[-1:]),
        since_start=learned(chain),
        history=[file for version in chain for file in version.manifest.history or ()],
    )
