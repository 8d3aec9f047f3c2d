"""What one micro-batch does to a lineage, without store, Kafka or clock: the pure middle of `microbatch.run`.

The trainer and `replay` both call `learn`; so what a replay computes is what the trainer computed.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from stream_trainer import gates, offsets
from stream_trainer import lineage as lineages
from stream_trainer.acts import Act, Read
from stream_trainer.evaluation.counts import counted, fair_places
from stream_trainer.features import encode
from stream_trainer.gates import Evidence
from stream_trainer.joining.weights import corrected
from stream_trainer.learner import Batch, LearnReport
from stream_trainer.lineage import Lineage
from stream_trainer.offsets import Ranges
from stream_trainer.pipeline import Pipeline
from stream_trainer.prequential import Answers, uniform
from stream_trainer.store import Rows, Span
from stream_trainer.strategies import local

_NOTHING = LearnReport(rows=0, steps=0, loss=0.0, gradient_norm=0.0, update_norm=0.0, finite=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """One micro-batch before it was read: its ranges, and the instant at which they reached the end of the log.

    `acts` are carried out before it and `asked` is how far `P.actions` was read for them; None: nobody has planned any yet.
    """

    ranges: Ranges
    covered_at: datetime | None
    acts: tuple[Act, ...] | None = None
    asked: Read | None = None


def learn(pipeline: Pipeline, lineage: Lineage, cut: Cut, rows: pa.Table) -> Lineage:
    """Test, then train, then judge, then account.

    Args:
        pipeline: whose learner and gates.
        lineage: where it stands; the cut begins at its position.
        cut: what `rows` are the records of.
        rows: decoded (`decode.decoded_schema`), in any order.
    """
    ordered = _in_log_order(rows)
    good = ordered.filter(pc.is_null(ordered.column("_reason")))
    batch = to_batch(pipeline, good)
    outputs = _forecast(pipeline, lineage, batch)
    lineage, loss = _test(pipeline, lineage, good, batch, outputs)
    if rows.num_rows:
        lineage = _train(pipeline, lineage, cut.ranges, good, batch, outputs, seen=rows.num_rows, loss=loss)
    return _account(pipeline, lineage, cut, ordered, usable=batch.rows)


def rejected(rows: pa.Table) -> pa.Table:
    """Those of the decoded rows that cannot be used."""
    return rows.filter(pc.is_valid(rows.column("_reason")))


def _in_log_order(rows: pa.Table) -> pa.Table:
    order = [(name, "ascending") for name in ("_topic", "_partition", "_offset", "_row")]
    return rows.sort_by(order).combine_chunks()


def to_batch(pipeline: Pipeline, rows: pa.Table) -> Batch:
    """Decoded rows, all of them good, as what a learner takes."""
    columns = {f.name: rows.column(f.name).combine_chunks() for f in pipeline.contract.features}
    labels = rows.column(pipeline.contract.label.name).to_numpy()
    return Batch(
        features=encode(pipeline.contract, columns), labels=torch.from_numpy(labels.copy()), weights=_weights(rows)
    )


def _weights(rows: pa.Table) -> torch.Tensor | None:
    """`_weight` of each row, 1 where it has none; None when no row has one."""
    if "_weight" not in rows.column_names:
        return None
    column = rows.column("_weight")
    if column.null_count == len(column):
        return None
    return torch.from_numpy(pc.fill_null(column, 1.0).to_numpy().copy())


def _forecast(pipeline: Pipeline, lineage: Lineage, batch: Batch) -> torch.Tensor:
    """What the weights from before say of the rows; a model that has learned nothing says nothing."""
    if batch.rows and lineage.total.trained + lineage.pending.rows.trained:
        return pipeline.learner.predict(lineage.state, batch.features)
    return uniform(pipeline.spec.task, pipeline.spec.outputs, batch.rows)


def _test(
    pipeline: Pipeline, lineage: Lineage, rows: pa.Table, batch: Batch, outputs: torch.Tensor
) -> tuple[Lineage, float]:
    """Score the forecast, and what serving had answered; the former's mean loss."""
    if not batch.rows:
        return lineage, 0.0
    before = lineage.prequential
    if lineage.parent is not None and not lineage.pending.cuts:
        before = before.at_version(lineage.parent.number)
    prequential, loss = before.score(
        outputs,
        batch.labels,
        answers=_answers(pipeline, rows),
        segments=[rows.column(name).to_pylist() for name in pipeline.contract.segments],
        counted=counted(pipeline.spec.task, rows),
    )
    return replace(lineage, prequential=prequential), loss


def _answers(pipeline: Pipeline, rows: pa.Table) -> Answers | None:
    versions = rows.column("_model_version")
    if versions.null_count == len(versions):
        return None
    width = pipeline.spec.outputs
    nothing = [0.0] * width
    said = [nothing if output is None else output for output in rows.column("_output").to_pylist()]
    outputs = np.array(said, dtype=np.float64)
    return Answers(
        versions=pc.fill_null(versions, 0).to_numpy(),
        outputs=outputs if pipeline.spec.task == "multiclass" else outputs[:, 0],
    )


def _train(
    pipeline: Pipeline,
    lineage: Lineage,
    ranges: Ranges,
    rows: pa.Table,
    batch: Batch,
    outputs: torch.Tensor,
    *,
    seen: int,
    loss: float,
) -> Lineage:
    """Learn and judge: a micro-batch that fails a gate leaves the weights as they were and counts as quarantined."""
    state, report = local.learn(pipeline.learner, lineage.state, batch) if batch.rows else (lineage.state, _NOTHING)
    evidence = Evidence(
        before=lineage.state,
        after=state,
        report=report,
        seen=seen,
        rejected=seen - batch.rows,
        loss=loss,
        history=lineage.history,
    )
    verdicts = tuple(gate.judge(evidence) for gate in pipeline.gates)
    pending = replace(lineage.pending, gates=gates.worst(lineage.pending.gates, verdicts))
    if not all(verdict.passed for verdict in verdicts):
        kept_out = replace(
            pending,
            rows=pending.rows + Rows(quarantined=batch.rows),
            quarantined=(*pending.quarantined, ranges),
        )
        return replace(lineage, pending=kept_out, history=lineage.history.fail(verdicts))
    if not batch.rows:
        return replace(lineage, pending=pending)
    lineage = lineages.keep_golden(pipeline, lineage, rows)
    return replace(
        lineage,
        state=state,
        seen=_seen(pipeline, lineage.seen, rows, outputs),
        history=lineage.history.add(report, loss),
        pending=replace(pending, rows=pending.rows + Rows(trained=batch.rows)),
    )


def _seen(pipeline: Pipeline, seen: lineages.Seen, rows: pa.Table, outputs: torch.Tensor) -> lineages.Seen:
    """What was learned of the data's distribution: of what was asked, also where false labels were sampled away."""
    said = counted(pipeline.spec.task, rows)
    if said is None or (said.rates >= 1).all():
        return seen.add(pipeline, rows, outputs)
    places = fair_places(pipeline.spec.task, pipeline.contract.label.name, rows)
    if places is None or not len(places):
        return seen
    answers = corrected(outputs.to(torch.float64), torch.from_numpy(said.rates))
    return seen.add(pipeline, rows.take(places), answers[torch.from_numpy(places)])


def _account(pipeline: Pipeline, lineage: Lineage, cut: Cut, rows: pa.Table, *, usable: int) -> Lineage:
    pending = lineage.pending
    event_time = _span(rows.column(pipeline.contract.event_time))
    append_time = _span(rows.column("_append_time"))
    counted = replace(
        pending,
        cuts=(*pending.cuts, cut.ranges),
        rows=pending.rows + Rows(seen=rows.num_rows, rejected=rows.num_rows - usable),
        unknown_fields=pending.unknown_fields + (pc.sum(rows.column("_unknown_fields")).as_py() or 0),
        event_time=event_time.union(pending.event_time) if event_time else pending.event_time,
        append_time=append_time.union(pending.append_time) if append_time else pending.append_time,
        covered_at=cut.covered_at or _appended_through(rows) or pending.covered_at,
    )
    return replace(lineage, pending=counted, position=offsets.advance(lineage.position, cut.ranges))


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
