"""The map: how one micro-batch becomes a version. Read `run` from top to bottom; the order is the promise.

Nothing is visible to others before step 9. A crash before it leaves the previous version as head and the intent of
step 1, which the next trainer learns again, bit for bit. A crash after it leaves a whole version.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc
import torch

from stream_trainer import lineage as lineages
from stream_trainer import offsets
from stream_trainer.errors import Fenced
from stream_trainer.features import encode
from stream_trainer.learner import Batch
from stream_trainer.lineage import Lineage, Pending
from stream_trainer.offsets import Offsets, Ranges
from stream_trainer.pipeline import Pipeline
from stream_trainer.prequential import uniform
from stream_trainer.store import ModelStore, Rows, Span, Version
from stream_trainer.store.store import Intent
from stream_trainer.strategies import local
from stream_trainer.versions import manifest_of


class Source(Protocol):
    """What the micro-batch asks of Kafka, beside its records."""

    def check(self, needed: Offsets) -> dict[str, str]:
        """The ids of the topics, after making sure that each still begins at or before `needed`.

        Raises:
            InputLost: a topic was re-created, a partition vanished, or retention has passed an offset.
        """
        ...


class Outbox(Protocol):
    """Where rejected records and announcements go."""

    def reject(self, rows: pa.Table) -> None:
        """Write rejected rows, keyed by position; returns when the broker has them."""
        ...

    def announce(self, version: Version, covered_at: datetime) -> None:
        """Tell the serving side about a version."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What every micro-batch of a run shares."""

    pipeline: Pipeline
    store: ModelStore
    source: Source
    outbox: Outbox
    run_id: str
    clock: Callable[[], datetime]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """One micro-batch before it was read: its ranges, and the instant at which they reached the end of the log."""

    ranges: Ranges
    covered_at: datetime | None


def run(context: Context, lineage: Lineage, cut: Cut, fetch: Callable[[], pa.Table]) -> Lineage:
    """Learn one micro-batch and commit it when there is something to commit.

    Args:
        context: pipeline, store and the outside.
        lineage: where the trainer stands.
        cut: what is to be learned; it begins at `lineage.position`.
        fetch: reads and decodes exactly the records of the cut (`decode.decoded_schema`), in any order.

    Raises:
        Fenced, InputLost, Retryable: see `errors`.
    """
    intent = _fix_cut(context, lineage, cut)  # 1. the first intent for this cut counts
    rows = _in_log_order(fetch())  # 2. the records of exactly these ranges
    context.source.check(offsets.starts(intent.ranges))  # 3. still the same topics, and none expired while we read
    context.outbox.reject(_split(rows)[1])  # 4. at least once, before the manifest; keyed, so counted once
    lineage = learn(context.pipeline, lineage, replace(cut, ranges=intent.ranges), rows)  # 5. to 7.
    if not _worth_committing(lineage):
        return lineage
    topic_ids = context.source.check(offsets.starts(lineage.pending.ranges))  # 8. right before the manifest
    lineage, version = _commit(context, lineage, topic_ids)  # 9. THE commit
    covered_at = version.manifest.covered_at or version.manifest.created_at
    context.outbox.announce(version, covered_at)  # 10. only now does anyone hear of it
    return lineage


def learn(pipeline: Pipeline, lineage: Lineage, cut: Cut, rows: pa.Table) -> Lineage:
    """The pure part of a micro-batch: its records, in any order, to the lineage that knows them. No store, no Kafka.

    Raises:
        ValueError: the cut does not begin where the lineage stands.
    """
    rows = _in_log_order(rows)
    good, _ = _split(rows)
    batch = _batch(pipeline, good)
    lineage = _test(pipeline, lineage, batch)  # 5. forecast with the weights from before
    lineage = _train(pipeline, lineage, cut.ranges, good, batch)  # 6. learn, 7. gates
    return _account(lineage, cut.ranges, cut, rows, pipeline)


def _fix_cut(context: Context, lineage: Lineage, cut: Cut) -> Intent:
    wanted = Intent(
        version=lineage.number,
        cut=len(lineage.pending.cuts),
        ranges=cut.ranges,
        strategy=local.NAME,
        seed=context.pipeline.seed,
        run_id=context.run_id,
    )
    intent = context.store.fix_cut(wanted)
    if intent.ranges != cut.ranges:
        raise Fenced(
            f"cut {intent.cut} of version {intent.version} of {context.store.describe()} was planned by run "
            f"{intent.run_id} with other ranges: another trainer is at work; this one stops and has changed nothing"
        )
    return intent


def _in_log_order(rows: pa.Table) -> pa.Table:
    order = [(name, "ascending") for name in ("_topic", "_partition", "_offset", "_row")]
    return rows.sort_by(order).combine_chunks()


def _split(rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    good = pc.is_null(rows.column("_reason"))
    return rows.filter(good), rows.filter(pc.invert(good))


def _batch(pipeline: Pipeline, rows: pa.Table) -> Batch:
    columns = {f.name: rows.column(f.name).combine_chunks() for f in pipeline.contract.features}
    labels = rows.column(pipeline.contract.label.name).to_numpy()
    return Batch(features=encode(pipeline.contract, columns), labels=torch.from_numpy(labels.copy()))


def _test(pipeline: Pipeline, lineage: Lineage, batch: Batch) -> Lineage:
    if not batch.rows:
        return lineage
    if lineage.total.trained + lineage.pending.rows.trained:
        outputs = pipeline.learner.predict(lineage.state, batch.features)
    else:
        outputs = uniform(pipeline.spec.task, pipeline.spec.outputs, batch.rows)
    return replace(lineage, prequential=lineage.prequential.score(outputs, batch.labels))


def _train(pipeline: Pipeline, lineage: Lineage, ranges: Ranges, rows: pa.Table, batch: Batch) -> Lineage:
    """Learn and judge: a batch that fails a gate leaves the weights as they were and counts as quarantined."""
    pending = lineage.pending
    if not rows.num_rows:
        return lineage
    state, report = local.learn(pipeline.learner, lineage.state, batch)
    verdicts = tuple(gate.judge(lineage.state, state, report) for gate in pipeline.gates)
    if not all(verdict.passed for verdict in verdicts):
        kept_out = replace(
            pending,
            rows=pending.rows + Rows(quarantined=rows.num_rows),
            quarantined=(*pending.quarantined, ranges),
            gates=pending.gates if pending.rows.trained else verdicts,
        )
        return replace(lineage, pending=kept_out)
    lineage = lineages.keep_golden(pipeline, lineage, rows)
    return replace(
        lineage,
        state=state,
        seen=lineage.seen.add(pipeline, rows),
        pending=replace(pending, rows=pending.rows + Rows(trained=rows.num_rows), gates=verdicts),
    )


def _account(lineage: Lineage, ranges: Ranges, cut: Cut, rows: pa.Table, pipeline: Pipeline) -> Lineage:
    pending = lineage.pending
    rejected = pc.sum(pc.is_valid(rows.column("_reason"))).as_py() or 0
    event_time = _span(rows.column(pipeline.contract.event_time))
    append_time = _span(rows.column("_append_time"))
    counted: Pending = replace(
        pending,
        cuts=(*pending.cuts, ranges),
        rows=pending.rows + Rows(seen=rows.num_rows, rejected=rejected),
        unknown_fields=pending.unknown_fields + (pc.sum(rows.column("_unknown_fields")).as_py() or 0),
        event_time=event_time.union(pending.event_time) if event_time else pending.event_time,
        append_time=append_time.union(pending.append_time) if append_time else pending.append_time,
        covered_at=cut.covered_at or _appended_through(rows) or pending.covered_at,
    )
    return replace(lineage, pending=counted, position=offsets.advance(lineage.position, ranges))


def _span(column: pa.ChunkedArray) -> Span | None:
    bounds = pc.min_max(column).as_py()
    if bounds["min"] is None:
        return None
    return Span(min=bounds["min"].astimezone(UTC), max=bounds["max"].astimezone(UTC))


def _appended_through(rows: pa.Table) -> datetime | None:
    """When a limit cut the batch short: every partition is covered up to its own newest record."""
    if not rows.num_rows:
        return None
    newest = rows.group_by(["_topic", "_partition"]).aggregate([("_append_time", "max")])
    oldest: datetime = pc.min(newest.column("_append_time_max")).as_py()
    return oldest.astimezone(UTC)


def _worth_committing(lineage: Lineage) -> bool:
    """An untrained version is never committed, nor one that would only move past records without rows."""
    rows = lineage.pending.rows
    return rows.trained > 0 or (lineage.head is not None and rows.seen > 0)


def _commit(context: Context, lineage: Lineage, topic_ids: dict[str, str]) -> tuple[Lineage, Version]:
    attempt = context.store.new_attempt()
    digest = lineage.seen.digest
    if lineage.seen.reference is not None and digest is None:
        digest = context.store.put_reference(lineage.seen.reference.to_bytes())
    written = context.store.write_files(lineage.number, attempt, lineages.to_files(context.pipeline, lineage))
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
    version = context.store.commit(manifest)
    return lineages.committed(lineage, version), version
