"""What a commit costs, for a small and a large model, and its share of a micro-batch."""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from rich.filesize import decimal

from examples.flights.pipeline import pipeline
from stream_trainer import crashpoints, learning, microbatch
from stream_trainer import lineage as lineages
from stream_trainer.decode import decode
from stream_trainer.learners import Sgd, mlp
from stream_trainer.lineage import Lineage
from stream_trainer.microbatch import CommitPolicy
from stream_trainer.pipeline import Pipeline
from stream_trainer.settings import Settings
from stream_trainer.store import ModelStore, open_store
from stream_trainer.versions import manifest_of
from tests.bench.alone import START, check_trained, context_of, next_cut
from tests.bench.decode import ROWS, records
from tests.bench.machine import file_system
from tests.bench.options import Options
from tests.bench.section import Goal, Section
from tests.bench.world import fresh_settings
from tests.bucket import bucket

_RUNS, _BATCHES = 3, 7
_GOAL_PERCENT = 10.0
# 8.7 million weights: with AdamW's two moments, 100 MB.
LARGE = replace(pipeline, name="flights-large", learner=Sgd(model=partial(mlp, hidden=(2_900, 2_700))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What is committed again and again, and where.

    Attributes:
        name: for the table.
        where: the kind of store, for the table.
        pipeline: whose model.
        lineage: it has learned something, and is about to become a version.
        count: commits a run.
    """

    name: str
    where: str
    pipeline: Pipeline
    lineage: Lineage
    count: int


class Commit(NamedTuple):
    """Seconds of one commit, part by part."""

    serialise: float
    files: float
    manifest: float


class Batch(NamedTuple):
    """Seconds of one micro-batch, part by part; `rest` is its intent and what it checks and rejects."""

    decode: float
    learn: float
    rest: float
    commit: float


def measure(options: Options) -> Section:
    """Commits one after another in this process."""
    runs = options.runs or _RUNS
    batch = records()
    table = pa.Table.from_batches([decode(pipeline.contract, batch)]).combine_chunks()
    small = Model(name="small", where="folder", pipeline=pipeline, lineage=_learned(pipeline, table), count=100)
    large = Model(name="large", where="folder", pipeline=LARGE, lineage=_learned(LARGE, table), count=10)
    remote = replace(small, where="bucket", count=30)
    with fresh_settings() as settings:
        rows = [_row(model, open_store(settings, model.pipeline.name), runs) for model in (small, large)]
        beside = settings.model_copy(update={"data_dir": settings.data_dir / "beside"})
        batches = _batches(open_store(beside, pipeline.name), batch, runs * _BATCHES)
        disk = file_system(settings.data_dir)
    with bucket() as store_settings:
        bucketed = Settings().model_copy(update={"store": store_settings})
        rows.append(_row(remote, open_store(bucketed, pipeline.name), runs))
    decoded, learned, rest, commit = (statistics.median(column) for column in zip(*batches, strict=True))
    return Section(
        title="Committing a version",
        headings=("model", "store", "files", "serialise", "write", "manifest", "ms, p50", "ms, p99"),
        rows=rows,
        notes=[
            (
                f"Medians of {runs} runs of {small.count}, {large.count} and {remote.count} commits; p99 of so few is "
                "nearly the slowest. Parts are p50 in ms; write includes SHA-256, manifest includes `CURRENT`."
            ),
            *(_sizes(model) for model in (small, large)),
            (
                f"Folder: {disk}, every fsync a real one. Bucket: moto's server in a thread of this process, for "
                "orientation; it says nothing about a real one."
            ),
            (
                f"A micro-batch of {ROWS:,} flights, small model, folder, medians of {len(batches)}: decode "
                f"{decoded * 1000:.0f} ms, forecast, learn and judge {learned * 1000:.0f} ms, intent, check and "
                f"reject {rest * 1000:.1f} ms, commit (steps 8 to 11) {commit * 1000:.1f} ms."
            ),
            (
                "One core decodes; what Spark needs to start a micro-batch is not in it. Nothing was rejected, and "
                "step 11 announced to memory: what Kafka needs for that is not in it either."
            ),
        ],
        goals=[
            _goal("commit against decode and learn", commit / (decoded + learned)),
            _goal("commit against the whole micro-batch", commit / (decoded + learned + rest + commit)),
        ],
    )


def _goal(what: str, share: float) -> Goal:
    return Goal(what=what, limit=_GOAL_PERCENT, found=100 * share, unit="%")


def _learned(of: Pipeline, rows: pa.Table) -> Lineage:
    """As large as it gets: with optimiser state, histogram and frozen bins."""
    rows = rows.slice(0, of.reference_rows)
    lineage = lineages.fresh(of, START)
    lineage = learning.learn(of, lineage, next_cut(lineage, rows.num_rows), rows)
    check_trained(lineage, rows.num_rows)
    return lineage


def _row(model: Model, store: ModelStore, runs: int) -> list[str]:
    """Medians over the runs: of the parts' p50, then of the whole's p50 and p99."""
    found = _commits(model, store, runs)
    parts = np.median(np.quantile(found, 0.5, axis=1), axis=0)
    whole = np.median(np.quantile(found.sum(axis=2), (0.5, 0.99), axis=1), axis=1)
    size = decimal(sum(len(data) for data in lineages.to_files(model.pipeline, model.lineage).values()))
    return [model.name, model.where, size, *(f"{1000 * spent:.1f}" for spent in (*parts, *whole))]


def _commits(model: Model, store: ModelStore, runs: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Seconds `[runs, commits, parts]`."""
    _commit(model, store, 1)  # makes the folders and does not count
    found = [
        [_commit(model, store, 2 + run * model.count + number) for number in range(model.count)] for run in range(runs)
    ]
    return np.array(found)


def _commit(model: Model, store: ModelStore, number: int) -> Commit:
    """The same version again under another number."""
    lineage = replace(model.lineage, number=number)
    attempt = store.new_attempt()
    begun = time.perf_counter()
    files = lineages.to_files(model.pipeline, lineage)
    serialised = time.perf_counter()
    written = store.write_files(number, attempt, files)
    wrote = time.perf_counter()
    manifest = manifest_of(
        model.pipeline,
        lineage,
        files=written,
        attempt=attempt,
        run_id="bench",
        created_at=datetime.now(UTC),
        topic_ids={},
        reference=None,
    )
    store.commit(manifest)
    done = time.perf_counter()
    if model.pipeline is LARGE:
        store.prune(number)  # the disk is not ours
    return Commit(serialise=serialised - begun, files=wrote - serialised, manifest=done - wrote)


def _sizes(model: Model) -> str:
    files = lineages.to_files(model.pipeline, model.lineage)
    weights = sum(tensor.numel() for name, tensor in model.lineage.state.serving.items() if name.startswith("net."))
    listed = ", ".join(f"{name} {decimal(len(data))}" for name, data in files.items())
    return f"{model.name}: {weights:,} weights with AdamW's moments; {listed}."


def _batches(store: ModelStore, records: pa.RecordBatch, count: int) -> list[Batch]:
    """Micro-batches of the same records; the first does not count: it warms everything and freezes the bins."""
    context = context_of(pipeline, store, CommitPolicy(rows=10**12))  # `run` learns, `commit` is called here
    lineage, found = lineages.fresh(pipeline, START), []
    for _ in range(count + 1):
        cut = next_cut(lineage, records.num_rows)
        with _marks() as at:
            begun = time.perf_counter()
            lineage = microbatch.run(context, lineage, cut, lambda: _decoded(records))
            ran = time.perf_counter()
            lineage = microbatch.commit(context, lineage)
            done = time.perf_counter()
        decoding = at["microbatch.fetched"] - at["microbatch.cut_fixed"]
        learned = at["microbatch.learned"] - at["microbatch.rejected"]
        rest = ran - begun - decoding - learned
        found.append(Batch(decode=decoding, learn=learned, rest=rest, commit=done - ran))
    check_trained(lineage, (count + 1) * records.num_rows)
    return found[1:]


def _decoded(records: pa.RecordBatch) -> pa.Table:
    return pa.Table.from_batches([decode(pipeline.contract, records)])


@contextmanager
def _marks() -> Iterator[dict[str, float]]:
    """When each crash point was passed: the trainer says itself where it is."""
    at: dict[str, float] = {}

    def mark(name: str) -> None:
        at[name] = time.perf_counter()

    crashpoints.watch(mark)
    try:
        yield at
    finally:
        crashpoints.watch(None)
