"""Rebuilds a version from the log and says whether it is bit for bit what was committed.

Cut by cut along the chain of parents, through the function that the trainer learns with. Only digests are needed to
compare, so versions whose data retention has deleted are compared too. Needs neither Spark nor the trainer's machine.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import msgspec
import pyarrow as pa

from stream_trainer import effects, history, learning, offsets, warm_start
from stream_trainer import lineage as lineages
from stream_trainer.differences import Change, Difference, changes, compare, digests, scoring
from stream_trainer.errors import Corrupt, InputLost, StoreDamaged, UsageError
from stream_trainer.learning import Cut
from stream_trainer.lineage import Lineage, Pending
from stream_trainer.offsets import Offsets, Ranges
from stream_trainer.pipeline import Pipeline
from stream_trainer.store import Manifest, ModelStore, Rows, Version
from stream_trainer.strategies import local
from stream_trainer.versions import libraries

Read = Callable[[Ranges, Mapping[str, str]], pa.Table]
Check = Callable[[Ranges, Mapping[str, str]], object]


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay found; `docs/schemas/replay.json`.

    `versions` were compared, the differing one included; `rows` were read. `environment` names what is not as it was
    when a version was learned, once each, whether or not it made a difference.
    """

    identical: bool
    pipeline: str
    start: int | None = msgspec.field(name="from")
    to: int
    versions: int
    rows: int
    first_difference: Difference | None
    libraries: dict[str, str]
    environment: list[Change]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """After each version: its number, how many of how many are done, and the rows read so far."""

    version: int
    done: int
    of: int
    rows: int


def replay(
    pipeline: Pipeline,
    store: ModelStore,
    read: Read,
    *,
    to: int,
    start: int | None = None,
    check: Check | None = None,
    files: Sequence[Path] = (),
    progress: Callable[[Progress], object] = lambda _: None,
) -> Replay:
    """Rebuild a version and its parents, and compare each with its manifest, up to the first difference.

    Args:
        pipeline: as it was when the versions were learned.
        store: where they are.
        read: the decoded records of exactly these ranges, in any order, of the topics with these ids.
        to: the version to rebuild.
        start: begin with the stored state of this one of its parents; None begins with nothing but the seed.
        check: raises InputLost when ranges are gone, without reading them; None finds out by reading.
        files: those that the first version was learned from, in any order; more do no harm.
        progress: called after each version.

    Raises:
        InputLost: records that the replay needs are gone; the message names the version, the offsets, and the
            version from which a replay is possible.
        UsageError: `start` is not a parent of `to`, or its data was deleted; a file is missing or has changed.
        NoVersion: there is no version `to`.
        StoreDamaged: a manifest, or a file that is to be read, is not what was committed.
    """
    local.prepare()
    chain = history.ancestors(store, to, since=start)
    if start is not None:
        if chain[0].number != start or start == to:
            raise UsageError(
                f"--from {start}: not one of the versions that version {to} of {store.describe()} was learned from; "
                f"its parent is {chain[-1].manifest.parent}, the oldest of the chain {chain[0].number}"
            )
        first, chain = chain[0], chain[1:]
    run = _Run(pipeline, store, read, check or read, chain, files)
    if any(version.manifest.contract != pipeline.contract.fingerprint for version in chain):
        return run.report(start, 0, _other_contract(pipeline, chain))
    if check is not None:
        run.refuse_lost(chain)
    lineage = _opened(pipeline, store, first) if start is not None else _fresh(pipeline, chain[0].manifest)
    for done, version in enumerate(chain, start=1):
        before = _standing_before(pipeline, lineage, version.manifest)
        after = run.learned(before, version)
        difference = compare(pipeline, after, version.manifest, lambda name, v=version: _stored(store, v, name))  # type: ignore[misc]
        if difference is not None:
            return run.report(start, done, run.explained(difference, before, after, version))
        lineage = lineages.committed(after, version)
        progress(Progress(version=version.number, done=done, of=len(chain), rows=run.rows))
    _refuse_damaged(store, chain[-1])
    return run.report(start, len(chain), None)


@dataclass(slots=True)
class _Run:
    pipeline: Pipeline
    store: ModelStore
    read: Read
    check: Check
    chain: Sequence[Version]
    files: Sequence[Path] = ()
    rows: int = 0

    def learned(self, lineage: Lineage, version: Version) -> Lineage:
        """The lineage after every cut of a version."""
        manifest = version.manifest
        _refuse_torn(self.store, manifest)
        if manifest.history:
            paths = warm_start.matched(manifest.history, self.files, version.number)
            lineage = warm_start.learn(self.pipeline, lineage, paths)
            self.rows += lineage.pending.rows.seen
        acts = {of.cut: of.acts for of in manifest.acts}
        read = partial(self._records, version)
        for number, ranges in enumerate(manifest.cuts):
            rows = read(ranges)
            try:
                lineage = effects.on_learner(self.pipeline, lineage, acts.get(number, []), read)
                lineage = learning.learn(self.pipeline, lineage, Cut(ranges=ranges, covered_at=None), rows)
            except ValueError as error:
                raise UsageError(
                    f"version {version.number} of {self.store.describe()} cannot be learned again: {error}"
                ) from error
        return lineage

    def _records(self, version: Version, ranges: Ranges) -> pa.Table:
        try:
            rows = self.read(ranges, version.manifest.topic_ids)
        except InputLost:
            self.refuse_lost([v for v in self.chain if v.number >= version.number])
            raise
        self.rows += rows.num_rows
        return rows

    def refuse_lost(self, wanted: Sequence[Version]) -> None:
        """Raise InputLost when records of these versions are gone, saying from which version on a replay is possible."""
        for version in reversed(wanted):
            try:
                for ranges in _needed(version.manifest):
                    self.check(ranges, version.manifest.topic_ids)
            except InputLost as error:
                later = [v for v in wanted if version.number <= v.number < self.chain[-1].number]
                possible = next((v.number for v in later if _is_kept(self.store, v)), None)
                advice = (
                    f"from version {possible} on a replay is possible: --from {possible}"
                    if possible is not None
                    else f"no later version that leads to {self.chain[-1].number} has kept its data: it cannot be replayed"
                )
                raise InputLost(f"version {version.number} cannot be rebuilt: {error}; {advice}") from error

    def explained(self, difference: Difference, before: Lineage, after: Lineage, version: Version) -> Difference:
        """The difference with a reason: learning twice tells a learner that is not deterministic from other input."""
        rows = self.rows
        again = self.learned(before, version)
        self.rows = rows
        reasons = list(difference.reasons)
        if digests(self.pipeline, again)[1] != digests(self.pipeline, after)[1]:
            reasons.insert(0, "the learner is not deterministic: learning twice from the same records gave other bits")
        if not reasons:
            reasons.append(
                "by all that the manifest tells, records and libraries are the same, and learning twice here gives the "
                "same bits: the code of the pipeline's model has changed, or values of the records have"
            )
        return msgspec.structs.replace(difference, reasons=reasons)

    def report(self, start: int | None, versions: int, difference: Difference | None) -> Replay:
        found: dict[tuple[str, str], Change] = {}
        for version in self.chain:
            for change in changes(self.pipeline, version.manifest):
                found.setdefault((change.what, change.recorded), change)
        return Replay(
            identical=difference is None,
            pipeline=self.pipeline.name,
            start=start,
            to=self.chain[-1].number,
            versions=versions,
            rows=self.rows,
            first_difference=difference,
            libraries=libraries(),
            environment=list(found.values()),
        )


def _other_contract(pipeline: Pipeline, chain: Sequence[Version]) -> Difference:
    version = next(v for v in chain if v.manifest.contract != pipeline.contract.fingerprint)
    reason = f"the contract was {version.manifest.contract[:12]}, here it is {pipeline.contract.fingerprint[:12]}"
    return Difference(version=version.number, file=None, files=[], fields=[], tensor=None, reasons=[reason])


def _fresh(pipeline: Pipeline, manifest: Manifest) -> Lineage:
    return lineages.fresh(pipeline, _position_before(manifest), manifest.version)


def _opened(pipeline: Pipeline, store: ModelStore, version: Version) -> Lineage:
    try:
        return lineages.load(pipeline, store, version)
    except Corrupt as error:
        if store.pruned(version):
            raise UsageError(
                f"--from {version.number}: retention has deleted its data; choose a version that has kept it "
                "(`stream-trainer models verify --json` says which), or leave --from out"
            ) from error
        raise StoreDamaged(f"version {version.number} cannot be begun with: {error}") from error


def _standing_before(pipeline: Pipeline, lineage: Lineage, manifest: Manifest) -> Lineage:
    """The lineage as it stood when the first cut of a version came: its weights are its parent's, its place is its own.

    Scores begin anew where a lineage went on with another form of them.
    """
    if lineage.parent is not None and scoring(lineage.parent.manifest) != scoring(manifest):
        lineage = replace(lineage, prequential=lineages.unscored(pipeline))
    counted = {name: getattr(manifest.total, name) - getattr(manifest.rows, name) for name in Rows.__struct_fields__}
    return replace(
        lineage,
        number=manifest.version,
        position=_position_before(manifest),
        total=Rows(**counted),
        pending=Pending(lost=tuple(manifest.lost)),
    )


def _position_before(manifest: Manifest) -> Offsets:
    before = offsets.copy(manifest.next_offsets)
    for topic, partitions in offsets.starts(manifest.ranges).items():
        before.setdefault(topic, {}).update(partitions)
    return before


def _needed(manifest: Manifest) -> list[Ranges]:
    """What a replay of the version reads: its cuts, and what was learned again before one of them."""
    again = [act.ranges for of in manifest.acts for act in of.acts if act.ranges]
    return [*again, *manifest.cuts]


def _refuse_torn(store: ModelStore, manifest: Manifest) -> None:
    whole: Ranges = {}
    try:
        for cut in manifest.cuts:
            whole = offsets.join(whole, cut)
    except ValueError as error:
        torn = str(error)
    else:
        torn = "" if whole == manifest.ranges else "together they are not its ranges"
    if torn:
        raise StoreDamaged(
            f"the cuts of version {manifest.version} of {store.describe()} do not fit each other: {torn}; its manifest "
            "was changed afterwards: restore it from a copy"
        )


def _stored(store: ModelStore, version: Version, name: str) -> bytes | None:
    try:
        return store.file(version, name)
    except Corrupt:
        return None


def _is_kept(store: ModelStore, version: Version) -> bool:
    try:
        store.verify(version.number)
    except Corrupt:
        return False
    return True


def _refuse_damaged(store: ModelStore, version: Version) -> None:
    """The version was rebuilt; what the store holds of it should be the same."""
    if version.number < store.highest() and store.pruned(version):
        return
    try:
        store.verify(version.number)
    except Corrupt as error:
        raise StoreDamaged(
            f"the log gives version {version.number} exactly as its manifest says, but {error}: restore it from a copy"
        ) from error
