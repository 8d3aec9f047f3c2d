"""Where a trainer begins: the newest version that verifies, and the cuts that were planned but are in no such version.

Those cuts come from the intents of a run that died, or of versions whose files are damaged. They are learned first,
exactly as they were planned, and become one version.
"""

import logging
from dataclasses import dataclass, replace

from msgspec import UnsetType

from stream_trainer import lineage as lineages
from stream_trainer import offsets
from stream_trainer.acts import Act, Read
from stream_trainer.alerts import TrainerAlert, damage_alert
from stream_trainer.errors import Corrupt, NoVersion, StoreDamaged, UsageError
from stream_trainer.learning import Cut
from stream_trainer.lineage import Lineage
from stream_trainer.microbatch import Context
from stream_trainer.offsets import Offsets, Ranges
from stream_trainer.pipeline import Pipeline
from stream_trainer.store import ModelStore, Version

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A lineage to go on with.

    Attributes:
        lineage: where it stands.
        planned: the cuts to be learned before anything new, and what is to be done before each.
        damaged: numbers above the head whose files are not what was committed, and what is wrong with them.
    """

    lineage: Lineage
    planned: list[Cut]
    damaged: dict[int, str]

    def needed(self) -> Offsets:
        """The first offsets that are still to be read: where the lineage stands, and partitions that only plans know."""
        wanted = offsets.copy(self.lineage.position)
        for cut in self.planned:
            for topic, partitions in offsets.starts(cut.ranges).items():
                wanted[topic] = {**partitions, **wanted.get(topic, {})}
        return wanted

    def planned_end(self) -> Offsets:
        """Where the last planned cut ends; empty without one."""
        return offsets.ends(self.planned[-1].ranges) if self.planned else {}

    def alerts(self, context: Context, healed_by: int | None) -> list[TrainerAlert]:
        """One alert a damaged version."""
        name, at = context.pipeline.name, context.clock()
        return [damage_alert(name, number, why, at, healed_by=healed_by) for number, why in self.damaged.items()]


def open_lineage(context: Context, origin: str, earliest: Offsets, latest: Offsets) -> Opened:
    """The lineage to continue, or a fresh one at the asked end of the log.

    Raises:
        UsageError: `origin` names no version, or the contract has changed.
        StoreDamaged: no version verifies, or an intent cannot be read.
    """
    store, pipeline = context.store, context.pipeline
    head = store.head()
    number = store.highest() + 1
    damaged = store.damaged_after(head.number if head is not None else 0)
    for why in damaged.values():
        logger.warning("%s; its records are learned again", why)
    stands = head.manifest.next_offsets if head is not None else {}
    planned, first_cut = _planned(store, damaged, number, stands)
    if head is not None:
        lineage = _continued(pipeline, store, head, origin, number)
    elif origin.isdigit():
        raise UsageError(f"{store.describe()} has no versions: --from {origin} names none")
    else:
        at = latest if origin == "latest" else earliest
        # A run that died before its first version has fixed where that version begins.
        lineage = lineages.fresh(pipeline, offsets.starts(planned[0].ranges) if planned else at, number)
        logger.info("starting a new lineage in %s", store.describe())
    lineage = replace(lineage, pending=replace(lineage.pending, first_cut=first_cut))
    return Opened(lineage=lineage, planned=planned, damaged=damaged)


def _continued(pipeline: Pipeline, store: ModelStore, head: Version, origin: str, number: int) -> Lineage:
    parent = _asked(store, int(origin)) if origin.isdigit() else None
    logger.info("continuing version %d of %s", head.number, store.describe())
    return lineages.load(pipeline, store, head, parent, number=number)


def _asked(store: ModelStore, number: int) -> Version:
    try:
        return store.verify(number)
    except (Corrupt, NoVersion) as error:
        raise UsageError(f"--from {number}: {error}; `stream-trainer models verify` tells which can be used") from error


def _planned(store: ModelStore, damaged: dict[int, str], number: int, position: Offsets) -> tuple[list[Cut], int]:
    """The cuts to learn from `position` on, and the number of the intent that the first of them has, or will get.

    They are those of damaged versions, then those planned for the next one. What does not go on where the one before
    ends was learned already, or was planned when a version that is damaged now was whole.
    """
    own = _intents(store, number)
    candidates = [cut for candidate in damaged for cut in _cuts_of(store, candidate)] + own
    tiled: list[Cut] = []
    for cut in candidates:
        try:
            position = offsets.advance(position, cut.ranges)
        except ValueError:
            continue
        tiled.append(cut)
    ours, taken = [cut.ranges for cut in own], [cut.ranges for cut in tiled]
    first = next(k for k in range(len(own) + 1) if ours[k:] == taken[: len(own) - k])
    return tiled, first


def _cuts_of(store: ModelStore, number: int) -> list[Cut]:
    try:
        manifest = store.read(number).manifest
    except (Corrupt, NoVersion):
        return _intents(store, number)
    acts = {of.cut: of.acts for of in manifest.acts}
    return [_cut(ranges, acts.get(i, []), manifest.asked) for i, ranges in enumerate(manifest.cuts)]


def _cut(ranges: Ranges, acts: list[Act], asked: Read | UnsetType) -> Cut:
    return Cut(ranges=ranges, covered_at=None, acts=tuple(acts), asked=asked or None)


def _intents(store: ModelStore, number: int) -> list[Cut]:
    try:
        return [_cut(intent.ranges, intent.actions, intent.asked) for intent in store.intents(number)]
    except Corrupt as error:
        raise StoreDamaged(f"{error}: nothing was committed with it; delete the file and start again") from error
