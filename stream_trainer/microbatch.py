"""The map: how one micro-batch becomes a version. Read `run`, then `commit`; the order is the promise.

Nothing is visible to others before step 9. A crash before it leaves the previous version as head and the intent of
step 1, which the next trainer learns again, bit for bit. A crash after it leaves a whole version.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

import pyarrow as pa
from msgspec import UNSET

from stream_trainer import effects, learning, offsets
from stream_trainer import lineage as lineages
from stream_trainer.alerts import TrainerAlert, failing_since, gate_alerts
from stream_trainer.crashpoints import crashpoint
from stream_trainer.errors import Corrupt, Fenced, NoVersion
from stream_trainer.learning import Cut
from stream_trainer.lineage import Lineage
from stream_trainer.offsets import Loss, Offsets, Ranges
from stream_trainer.outside import Outbox, Requests, Source
from stream_trainer.pipeline import Pipeline
from stream_trainer.planning import Planner
from stream_trainer.promotion import appoint
from stream_trainer.store import ModelStore, Version
from stream_trainer.store.aliases import Promotion
from stream_trainer.store.manifest import Manifest
from stream_trainer.store.store import Intent
from stream_trainer.strategies import local
from stream_trainer.versions import manifest_of


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitPolicy:
    """When the micro-batches learned since the last version become one: at so many rows, or after so many seconds."""

    rows: int = 1
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What every micro-batch of a run shares.

    `requests` are asked what is to be done beside learning, `reread` reads records that were learned before.
    """

    pipeline: Pipeline
    store: ModelStore
    source: Source
    outbox: Outbox
    run_id: str
    clock: Callable[[], datetime]
    monotonic: Callable[[], float]
    requests: Requests
    reread: Callable[[Ranges], pa.Table]
    policy: CommitPolicy = CommitPolicy()
    promotion: Promotion = "auto"


def run(context: Context, lineage: Lineage, cut: Cut, fetch: Callable[[], pa.Table], *, more: bool = False) -> Lineage:
    """Learn one micro-batch, and commit when the policy says so.

    Args:
        context: pipeline, store and the outside.
        lineage: where the trainer stands.
        cut: what is to be learned; it begins at `lineage.position`.
        fetch: reads and decodes exactly the records of the cut (`decode.decoded_schema`), in any order.
        more: further cuts of the same version are known to follow: commit nothing yet.

    Raises:
        Fenced, InputLost, Retryable: see `errors`.
    """
    intent = _fix_cut(context, lineage, cut)  # 1. the first intent for this cut counts, actions included
    crashpoint("microbatch.cut_fixed")
    effects.on_champion(context.store, intent.actions)  # before anything newer can be it
    crashpoint("microbatch.champion_decided")
    rows = fetch()  # 2. the records of exactly these ranges
    crashpoint("microbatch.fetched")
    context.source.check(offsets.starts(intent.ranges))  # 3. still the same topics, and none expired while we read
    context.outbox.reject(learning.rejected(rows))  # 4. at least once, before the manifest; keyed, so counted once
    crashpoint("microbatch.rejected")
    lineage = _acted(context, lineage, intent)
    crashpoint("microbatch.acted")
    lineage = learning.learn(context.pipeline, lineage, cut, rows)  # 5. forecast, 6. learn, 7. gates: pure
    crashpoint("microbatch.learned")
    lineage = _begun(lineage, context.monotonic())
    return lineage if more or not due(context, lineage) else commit(context, lineage)


def commit(context: Context, lineage: Lineage) -> Lineage:
    """Make a version of what was learned since the last one.

    Raises:
        Fenced, InputLost, Retryable: see `errors`.
    """
    newest = lineage.pending.cuts[-1] if lineage.pending.cuts else {}
    topic_ids = context.source.check(offsets.starts(newest))  # 8. right before the manifest; older cuts were checked
    crashpoint("microbatch.checked")
    version = _write(context, lineage, topic_ids)  # 9. THE commit
    crashpoint("microbatch.committed")
    _still_newest(context, version)  # who was asleep until now must not undo what another trainer has told
    appoint(context.store, version, context.promotion, context.clock)  # 10. is it the champion now?
    crashpoint("microbatch.appointed")
    context.outbox.announce(version, version.manifest.covered_at or version.manifest.created_at)  # 11. tell
    crashpoint("microbatch.announced")
    context.outbox.alert(alerts_of(context.store, version))
    crashpoint("microbatch.alerted")
    return lineages.committed(lineage, version)


def due(context: Context, lineage: Lineage) -> bool:
    """Whether what is pending should become a version now."""
    pending, policy = lineage.pending, context.policy
    if not worth_committing(lineage):
        return False
    waited = context.monotonic() - pending.begun if pending.begun is not None else 0.0
    return pending.rows.seen >= policy.rows or (policy.seconds is not None and waited >= policy.seconds)


def worth_committing(lineage: Lineage) -> bool:
    """An untrained version is never committed, nor one that would only move past records without rows."""
    pending = lineage.pending
    return pending.rows.trained > 0 or (lineage.head is not None and (pending.rows.seen > 0 or bool(pending.lost)))


def lose(context: Context, lineage: Lineage, losses: list[Loss], starts: Offsets) -> Lineage:
    """Go on without records that are gone, as a person has allowed; a version says so, as soon as there may be one.

    Intents that needed them end here: their cuts are not learned, what is left of their records is cut anew.
    """
    moved = offsets.skip(lineage.position, losses, starts)
    left = len(context.store.intents(lineage.number)) if lineage.head is None else 0
    pending = replace(lineage.pending, lost=(*lineage.pending.lost, *losses), first_cut=left)
    lineage = replace(lineage, position=moved, pending=pending)
    return commit(context, lineage) if worth_committing(lineage) else lineage


def alerts_of(store: ModelStore, version: Version) -> list[TrainerAlert]:
    """What the version's gates have to say to people; the same however often it is asked."""

    def manifests() -> Iterator[Manifest]:
        for number in range(version.number - 1, 0, -1):
            try:
                yield store.read(number).manifest
            except (Corrupt, NoVersion):
                return

    before = next(manifests(), None)
    created_at = version.manifest.created_at
    return gate_alerts(version.manifest, before, lambda gate: failing_since(gate, manifests()) or created_at)


def _still_newest(context: Context, version: Version) -> None:
    if context.store.has(version.number + 1):
        raise Fenced(
            f"version {version.number} of {context.store.describe()} was committed, but another trainer has gone on to "
            f"{context.store.highest()} since: this one stops and announces nothing; check that only one runs"
        )


def _begun(lineage: Lineage, now: float) -> Lineage:
    pending = lineage.pending
    return lineage if pending.begun is not None else replace(lineage, pending=replace(pending, begun=now))


def _planned(context: Context, lineage: Lineage, cut: Cut) -> Cut:
    """The cut with what is to be done before it; for one that was planned before, what was decided then."""
    if cut.acts is not None:
        return cut
    planner = Planner(pipeline=context.pipeline, store=context.store, source=context.source, requests=context.requests)
    acts, asked = planner.plan(lineage, context.clock())
    return replace(cut, acts=tuple(acts), asked=asked)


def _acted(context: Context, lineage: Lineage, intent: Intent) -> Lineage:
    """The lineage after the actions of its next cut."""

    def read(ranges: Ranges) -> pa.Table | None:
        if context.source.missing(offsets.starts(ranges)):
            return None
        rows = context.reread(ranges)
        return None if context.source.missing(offsets.starts(ranges)) else rows

    lineage = replace(lineage, asked=intent.asked or lineage.asked)
    return effects.on_learner(context.pipeline, lineage, intent.actions, read)


def _fix_cut(context: Context, lineage: Lineage, cut: Cut) -> Intent:
    cut = _planned(context, lineage, cut)
    wanted = Intent(
        version=lineage.number,
        cut=lineage.pending.first_cut + len(lineage.pending.cuts),
        ranges=cut.ranges,
        strategy=local.NAME,
        seed=context.pipeline.seed,
        run_id=context.run_id,
        actions=list(cut.acts or ()),
        asked=cut.asked or UNSET,
    )
    intent = context.store.fix_cut(wanted)
    if intent.ranges != cut.ranges:
        raise Fenced(
            f"cut {intent.cut} of version {intent.version} of {context.store.describe()} was planned by run "
            f"{intent.run_id} with other ranges: another trainer is at work; this one stops and has changed nothing"
        )
    return intent


def _write(context: Context, lineage: Lineage, topic_ids: dict[str, str]) -> Version:
    attempt = context.store.new_attempt()
    digest = lineage.seen.digest
    if lineage.seen.reference is not None and digest is None:
        digest = context.store.put_reference(lineage.seen.reference.to_bytes())
        crashpoint("microbatch.reference_written")
    written = context.store.write_files(lineage.number, attempt, lineages.to_files(context.pipeline, lineage))
    crashpoint("microbatch.files_written")
    manifest = manifest_of(
        context.pipeline,
        lineage,
        files=written,
        attempt=attempt,
        run_id=context.run_id,
        created_at=context.clock(),
        topic_ids=topic_ids,
        reference=digest,
    )
    return context.store.commit(manifest)
