"""Where the trainer stands: the newest version, what it knows, and the cuts learned since.

`Lineage` is a value that a micro-batch turns into the next one. `load` and `to_files` are each other's inverse: what
a trainer knows is what its newest version holds, never what its memory holds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from stream_trainer import offsets, reference, schema
from stream_trainer.acts import CutActs, Read
from stream_trainer.errors import Corrupt, UsageError
from stream_trainer.evaluation.counts import chances
from stream_trainer.evaluation.scores import SCORING
from stream_trainer.evaluation.table import EVALUATION, evaluation
from stream_trainer.features import encode
from stream_trainer.gates import History
from stream_trainer.learner import State, answer
from stream_trainer.offsets import Loss, Offsets, Ranges
from stream_trainer.pipeline import Pipeline
from stream_trainer.prequential import Prequential
from stream_trainer.reference import LABEL, OUTPUT, Learned, Outdated, Reference
from stream_trainer.reference.pseudo import outputs_type
from stream_trainer.store import ModelStore, Rows, Span, Version, tensors
from stream_trainer.store.manifest import HistoryFile, Verdict
from stream_trainer.store.store import GOLDEN, LEARNED, TRAINER, WEIGHTS

BASELINE = "baseline.arrow"
GOLDEN_ROWS = 8
CHOOSES = "_chooses"
_HALVES = 2**32  # the seed of the coin by which rows choose bins; no partition has as high a number
_LEARNER, PREQUENTIAL, _HISTORY = "learner.", "prequential.", "gates."


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was learned of the data's distribution: frozen bins, counts, and the rows kept until bins exist.

    Bins are chosen over one half of the first rows, and the baseline counts the other: words that are the most frequent
    of some rows are more frequent in these than in any others. For the same reason the first half is in no count.

    Attributes:
        again: rows come that may have been learned before; the half that may have chosen the bins is not counted.
    """

    reference: Reference | None = None
    digest: str | None = None
    learned: Learned = field(default_factory=Learned)
    baseline: pa.Table | None = None
    again: bool = False

    def add(self, pipeline: Pipeline, rows: pa.Table, outputs: Tensor) -> "Seen":
        """Count learned rows; freeze the bins once there are `pipeline.reference_rows` of them.

        `outputs` is what was forecast of the rows before they were learned.
        """
        seen = _counted_columns(pipeline, rows, outputs)
        if self.reference is not None:
            kept = _others(seen) if self.again else seen
            return replace(self, learned=_counted(pipeline, self.reference, self.learned, kept))
        baseline = seen if self.baseline is None else pa.concat_tables([self.baseline, seen])
        if baseline.num_rows < pipeline.reference_rows:
            return replace(self, baseline=baseline)
        first, later = baseline.slice(0, pipeline.reference_rows), baseline.slice(pipeline.reference_rows)
        columns = _arrays(first)
        chooses = columns.pop(CHOOSES).to_numpy(zero_copy_only=False)
        frozen = reference.freeze(pipeline.contract, columns, chooses)
        counted = pa.concat_tables([_others(first), later])
        return Seen(reference=frozen, learned=_counted(pipeline, frozen, self.learned, counted))


def _counted_columns(pipeline: Pipeline, rows: pa.Table, outputs: Tensor) -> pa.Table:
    """Features and segments, the label as it was learned, and what had been answered: by serving, else by the forecast.

    No event time counts for more than the moment Kafka got the record.
    """
    contract = pipeline.contract
    names = [*(f.name for f in contract.features), *contract.extra_segments]
    forecast = pa.array(outputs.reshape(rows.num_rows, -1).tolist(), outputs_type())
    answered = pc.coalesce(rows.column("_output").combine_chunks().cast(outputs_type()), forecast)
    instants = (rows.column(name).cast(pa.int64()) for name in (contract.event_time, "_append_time"))
    made = {
        contract.event_time: pc.min_element_wise(*instants).cast(schema.TIMESTAMP),
        LABEL: rows.column(contract.label.name),
        OUTPUT: answered,
        CHOOSES: pa.array(chances(rows, _HALVES) < 0.5),
    }
    kept = rows.select(names)
    for name, column in made.items():
        kept = kept.append_column(name, column)
    return kept


def _others(rows: pa.Table) -> pa.Table:
    """Those that choose no bins."""
    return rows.filter(pc.invert(rows.column(CHOOSES)))


def _counted(pipeline: Pipeline, bins: Reference, learned: Learned, rows: pa.Table) -> Learned:
    columns = _arrays(rows)
    found = reference.coded(pipeline.contract, bins, columns)
    return learned.add(found, columns[pipeline.contract.event_time], pipeline.reference_hours)


def _arrays(table: pa.Table) -> dict[str, pa.Array]:
    return {name: table.column(name).combine_chunks() for name in table.column_names}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """The cuts learned since the newest version, and what they add up to.

    Attributes:
        first_cut: number of the first intent that can still be learned: those before it were lost.
        begun: monotonic seconds at which the first cut was learned; None before. Never stored.
    """

    cuts: tuple[Ranges, ...] = ()
    quarantined: tuple[Ranges, ...] = ()
    lost: tuple[Loss, ...] = ()
    history: tuple[HistoryFile, ...] = ()
    rows: Rows = field(default_factory=Rows)
    unknown_fields: int = 0
    event_time: Span | None = None
    append_time: Span | None = None
    covered_at: datetime | None = None
    gates: tuple[Verdict, ...] = ()
    acts: tuple[CutActs, ...] = ()
    first_cut: int = 0
    begun: float | None = None

    @property
    def ranges(self) -> Ranges:
        """All cuts as one."""
        whole: Ranges = {}
        for cut in self.cuts:
            whole = offsets.join(whole, cut)
        return whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Everything the next micro-batch starts from.

    Attributes:
        head: the newest verified version, None before the first; the weights' parent unless `parent` differs.
        number: the version to be committed next: one above the highest there is, damaged ones included.
        position: the next offsets to read.
        asked: how far `P.actions` was read; None before.
    """

    head: Version | None
    parent: Version | None
    number: int
    position: Offsets
    state: State
    prequential: Prequential
    history: History
    seen: Seen
    total: Rows
    pending: Pending
    golden: pa.Table | None = None
    asked: Read | None = None


def fresh(pipeline: Pipeline, position: Offsets, number: int = 1) -> Lineage:
    """A lineage that has learned nothing."""
    return Lineage(
        head=None,
        parent=None,
        number=number,
        position=position,
        state=pipeline.learner.init(pipeline.spec, pipeline.seed),
        prequential=unscored(pipeline),
        history=History.fresh(),
        seen=Seen(),
        total=Rows(),
        pending=Pending(),
    )


def load(
    pipeline: Pipeline, store: ModelStore, head: Version, parent: Version | None = None, *, number: int | None = None
) -> Lineage:
    """The lineage that continues `head`; with `parent`, from that version's weights but the head's offsets.

    `number` is that of the version to come; without it, the one after `head`.

    Raises:
        Corrupt: a file differs from what was committed, or lacks what a trainer needs.
        UsageError: the version was learned under another contract.
    """
    source = parent or head
    if source.manifest.contract != pipeline.contract.fingerprint:
        raise UsageError(
            f"version {source.number} of {store.describe()} was learned under contract "
            f"{source.manifest.contract[:12]}, the pipeline now has {pipeline.contract.fingerprint[:12]}: "
            "give the changed pipeline a new name, or restore the contract"
        )
    stored = store.load(source, pipeline.spec, training=True)
    try:
        prequential = _prequential(pipeline, source, stored.training)
        history = History.from_tensors(_under(_HISTORY, stored.training))
    except (KeyError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise Corrupt(f"version {source.number} of {store.describe()}: {TRAINER} is incomplete: {error}") from error
    return Lineage(
        head=head,
        parent=source,
        number=head.number + 1 if number is None else number,
        position=offsets.copy(head.manifest.next_offsets),
        state=State(spec=pipeline.spec, serving=stored.serving, training=_under(_LEARNER, stored.training)),
        prequential=prequential,
        history=history,
        seen=_seen(store, source),
        total=head.manifest.total,
        pending=Pending(),
        golden=reference.table_from_bytes(store.file(source, GOLDEN)),
        asked=head.manifest.asked or None,
    )


def to_files(pipeline: Pipeline, lineage: Lineage) -> dict[str, bytes]:
    """The data files of the version that this lineage is about to become."""
    training = {f"{_LEARNER}{name}": tensor for name, tensor in lineage.state.training.items()}
    training |= {f"{PREQUENTIAL}{name}": tensor for name, tensor in lineage.prequential.tensors().items()}
    training |= {f"{_HISTORY}{name}": tensor for name, tensor in lineage.history.tensors().items()}
    files = {
        WEIGHTS: tensors.to_bytes(lineage.state.serving),
        TRAINER: tensors.to_bytes(training),
        LEARNED: lineage.seen.learned.to_bytes(),
        GOLDEN: reference.table_to_bytes(_golden(pipeline, lineage)),
        EVALUATION: reference.table_to_bytes(evaluation(lineage.prequential, pipeline.contract.segments)),
    }
    if lineage.seen.reference is None and lineage.seen.baseline is not None:
        files[BASELINE] = reference.table_to_bytes(lineage.seen.baseline)
    return files


def committed(lineage: Lineage, version: Version) -> Lineage:
    """The lineage after it has become a version."""
    return replace(
        lineage,
        head=version,
        parent=version,
        number=version.number + 1,
        total=version.manifest.total,
        seen=replace(lineage.seen, digest=version.manifest.reference),
        pending=Pending(),
    )


def keep_golden(pipeline: Pipeline, lineage: Lineage, rows: pa.Table) -> Lineage:
    """Remember the newest rows as the golden input; their outputs are computed at the commit."""
    names = [field.name for field in schema.arrow_fields(pipeline.contract, "request")]
    return replace(lineage, golden=rows.select(names).slice(0, GOLDEN_ROWS))


def _golden(pipeline: Pipeline, lineage: Lineage) -> pa.Table:
    assert lineage.golden is not None, "a version is committed only after something was learned"  # noqa: S101
    names = [field.name for field in schema.arrow_fields(pipeline.contract, "request")]
    rows = lineage.golden.select(names)
    outputs = answer(pipeline.learner, lineage.state, encode(pipeline.contract, _arrays(rows)))
    values = outputs.reshape(rows.num_rows, -1).tolist()
    return rows.append_column("_output", pa.array(values, pa.list_(pa.float32())))


def _prequential(pipeline: Pipeline, source: Version, training: Mapping[str, Tensor]) -> Prequential:
    """What a version knows of its scores. One of an older release kept them otherwise: they begin anew, the weights go on."""
    if EVALUATION not in source.manifest.files or source.manifest.scoring != SCORING:
        return unscored(pipeline)
    return Prequential.from_tensors(pipeline.spec.task, _under(PREQUENTIAL, training))


def _seen(store: ModelStore, source: Version) -> Seen:
    """What a version knows of its data. One of an older release counted otherwise: bins are frozen anew, see decision 20."""
    digest, files = source.manifest.reference, source.manifest.files
    try:
        frozen = Reference.from_bytes(store.reference(digest)) if digest else None
    except Outdated:
        return Seen()
    baseline = reference.table_from_bytes(store.file(source, BASELINE)) if BASELINE in files else None
    if baseline is not None and not {OUTPUT, CHOOSES} <= set(baseline.column_names):
        return Seen()
    learned = Learned.from_bytes(store.file(source, LEARNED), frozen) if frozen else Learned()
    return Seen(reference=frozen, digest=digest, learned=learned, baseline=baseline)


def unscored(pipeline: Pipeline) -> Prequential:
    """Before any row was scored."""
    return Prequential.fresh(pipeline.spec.task, pipeline.spec.outputs, len(pipeline.contract.segments))


def _under(prefix: str, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in stored.items() if name.startswith(prefix)}
