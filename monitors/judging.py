"""What one closed window says, by itself and together with those before it. Pure: from contents to findings, round by round.

The false alarms that a window may have are shared out: most for the features, some for the labels, a little for records
that cannot be read, the rest for how the answers turn out. Each part keeps its own, so all together keep the whole.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import msgspec

from monitors import content, scales, sketches
from monitors.alerts import WindowSpan
from monitors.companions import companions
from monitors.consequences import together
from monitors.content import Content
from monitors.deciding import Round, decide_by
from monitors.findings import Distinct, Finding, of_examples
from monitors.history import WindowRecord
from monitors.life import Seen
from monitors.missing import watched_columns
from monitors.performance.step import Judged as Performance
from monitors.performance.step import PerformanceState, judge_labelled, judge_outputs
from monitors.questions import Compared, asked_of_examples, asked_of_predictions, curves, outputs
from monitors.scales import Block, Blocks
from monitors.schema import SchemaState, judge_schema
from monitors.usual import Usual
from monitors.windows import Closed
from stream_trainer.monitoring import Monitoring

FEATURES, ESTIMATE, LABELS, OUTCOMES, SCHEMA = 0.6, 0.08, 0.1, 0.2, 0.02
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The findings of one round, and which windows they are about."""

    seen: Seen
    findings: list[Finding]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a closed window has shown.

    Attributes:
        blocks: the windows that are to be looked at together, afterwards.
        performance: what is usual of the answers, afterwards.
        usual: how much windows usually differ, afterwards.
        rounds: of this window alone, then of the longer blocks that ended with it.
        record: for the history.
    """

    blocks: Blocks[Content]
    performance: PerformanceState
    usual: Usual
    rounds: list[Told]
    record: WindowRecord

    @property
    def findings(self) -> list[Finding]:
        """Of all rounds."""
        return [finding for told in self.rounds for finding in told.findings]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Judges the windows of one pipeline, one after the other."""

    pipeline: str
    monitoring: Monitoring

    def predictions(
        self,
        closed: Closed,
        compared: Compared,
        blocks: Blocks[Content],
        performance: PerformanceState,
        usual: Usual,
    ) -> Judgement:
        """A window of predictions: its features, the answers, and what can be expected of them."""
        expected = judge_outputs(performance, outputs(closed.content, compared), self.monitoring, share=ESTIMATE)
        return self._judge(closed, compared, blocks, expected, usual, labels=False)

    def examples(
        self,
        closed: Closed,
        compared: Compared,
        blocks: Blocks[Content],
        performance: PerformanceState,
        usual: Usual,
    ) -> Judgement:
        """A window of labelled examples: the labels, and how the answers turned out."""
        shown = judge_labelled(performance, closed.content.tally, self.monitoring, share=OUTCOMES)
        return self._judge(closed, compared, blocks, shown, usual, labels=True)

    def unreadable(self, closed: Closed, compared: Compared, schema: SchemaState) -> tuple[SchemaState, list[Told]]:
        """What of the window's records could not be read: a round a reason, with the offsets of those records."""
        skipped, rows = closed.skipped, closed.content.rows
        after, found = judge_schema(schema, skipped, rows, self.monitoring, share=SCHEMA)
        seen = self._seen(closed.start, closed.end, closed.content, compared)
        all_records = msgspec.structs.replace(seen.window, rows=rows + skipped.total)
        told = []
        for one in found:
            offsets = skipped.offsets.get(one.feature, {})
            told.append(Told(seen=replace(seen, window=all_records, offsets=offsets), findings=[one]))
        return after, told

    def _judge(
        self,
        closed: Closed,
        compared: Compared,
        blocks: Blocks[Content],
        shown: Performance,
        usual: Usual,
        *,
        labels: bool,
    ) -> Judgement:
        held, over = scales.advance(
            blocks,
            closed.number,
            content.slim(closed.content),
            key=closed.content.digest or "",
            add=lambda first, second: content.add(first, second, sample_rows=0),
        )
        digest = closed.content.digest or ""
        comparable = digest not in ("", content.MIXED)
        usual = usual if usual.key == digest or not comparable else Usual(key=digest)
        rounds = []
        for block in over:
            whole = msgspec.structs.replace(block, content=closed.content) if block.scale == 1 else block
            round_, usual = self._round(whole, compared, usual, labels=labels)
            rounds.append(round_)
        usual = msgspec.structs.replace(usual, windows=usual.windows + comparable)
        alone = Told(seen=self._seen(closed.start, closed.end, closed.content, compared), findings=shown.findings)
        told = [alone, *rounds] if shown.findings else rounds
        record = WindowRecord(
            start=closed.start,
            end=closed.end,
            rows=0 if labels else closed.content.rows,
            late=closed.late,
            versions=closed.content.span,
            offsets=closed.content.offsets,
            findings=_counted([f for one in told for f in one.findings if _kept(f)], closed.content),
            curves=curves(closed.content, compared),
            scores=shown.scores,
        )
        return Judgement(blocks=held, performance=shown.state, usual=usual, rounds=told, record=record)

    def _round(self, block: Block[Content], compared: Compared, usual: Usual, *, labels: bool) -> tuple[Told, Usual]:
        if labels:
            questions, share = asked_of_examples(block.content, compared), LABELS
        else:
            questions, share = asked_of_predictions(block.content, compared, self.monitoring.unwatched), FEATURES
        budget = scales.budgets(share * self.monitoring.false_alarms_per_window)[block.scale]
        round_ = Round(
            budget=budget,
            windows=block.scale,
            min_rows=self.monitoring.min_rows,
            usual_windows=self.monitoring.usual_windows,
        )
        directions = [question for question in questions if question.kind == "multivariate"]
        others = [question for question in questions if question.kind != "multivariate"]
        moved, usual = decide_by(directions, round_, usual)
        found, usual = decide_by(others, round_, usual, together(moved))
        if compared.frozen is not None:
            found = companions(others, found, block.content.missing, watched_columns(compared.frozen.reference))
        length = block.scale * self.monitoring.window
        start = _EPOCH + block.place * length
        return Told(seen=self._seen(start, start + length, block.content, compared), findings=found), usual

    def _seen(self, start: datetime, end: datetime, held: Content, compared: Compared) -> Seen:
        version = compared.served.version if compared.served else None
        span = WindowSpan(start=start, end=end, rows=held.rows)
        return Seen(pipeline=self.pipeline, window=span, model_version=version, offsets=held.offsets)


def with_rounds(found: Judgement, told: list[Told]) -> Judgement:
    """A judgement with further rounds of the window alone; its record holds their findings too."""
    more = [finding for one in told for finding in one.findings]
    record = msgspec.structs.replace(found.record, findings=[*found.record.findings, *more])
    return replace(found, rounds=[*found.rounds, *told], record=record)


def joined(first: WindowRecord | None, second: WindowRecord, *, labels: bool) -> WindowRecord:
    """The record of a window with what its predictions or its examples have shown; whichever was closed first.

    Args:
        first: what is kept already; None: nothing.
        second: what was judged now.
        labels: whether that is of examples. What it replaces is of the same, so judging a window again changes nothing.
    """
    if first is None:
        return second
    kept = [finding for finding in first.findings if of_examples(finding.kind, finding.feature) != labels]
    others = [curve for curve in first.curves if curve.feature not in {c.feature for c in second.curves}]
    both = [versions for versions in (first.versions, second.versions) if versions is not None]
    return msgspec.structs.replace(
        first if labels else second,
        findings=[*kept, *second.findings],
        curves=[*others, *second.curves],
        scores={**first.scores, **second.scores},
        offsets={**first.offsets, **second.offsets},
        versions=(min(low for low, _ in both), max(high for _, high in both)) if both else None,
    )


def _counted(findings: list[Finding], held: Content) -> list[Finding]:
    """With the number of different values, where a finding is about the values of a feature in this window."""
    counts = {f: Distinct(values=sketches.distinct(s), error=sketches.ERROR) for f, s in held.sketches.items()}
    return [
        msgspec.structs.replace(finding, distinct=counts[finding.feature])
        if finding.kind == "drift" and not finding.segment and finding.windows == 1 and finding.feature in counts
        else finding
        for finding in findings
    ]


def _kept(finding: Finding) -> bool:
    """Of longer blocks only what was found: the rest is said by the windows themselves."""
    return finding.windows == 1 or finding.state == "drift"
