"""How long the trainer's own steps take, without Kafka and Spark: learning, counting, committing."""

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import torch

from examples.flights.pipeline import pipeline
from stream_trainer import lineage as lineages
from stream_trainer import microbatch, reference
from stream_trainer.decode import decode
from stream_trainer.features import encode
from stream_trainer.learner import Batch
from stream_trainer.learning import Cut
from stream_trainer.lineage import Lineage
from stream_trainer.microbatch import Context
from stream_trainer.offsets import Offsets
from stream_trainer.store import open_store
from stream_trainer.strategies import local
from stream_trainer.testing import MemoryOutbox
from stream_trainer.versions import manifest_of
from tests.bench.decode import ROWS, records
from tests.bench.options import Options
from tests.bench.section import Section
from tests.bench.timing import seconds
from tests.bench.world import TOPICS, fresh_settings
from tests.core.worlds import FakeSource

_PIECE = 1_000
_COMMITS = 100


class _Silent(FakeSource):
    """A topic that is still the same."""

    def check(self, needed: Offsets) -> dict[str, str]:
        return {TOPICS.examples: "none"}


def measure(options: Options) -> Section:
    """Rates of the pure steps; p50 and p99 of what writes to a local store."""
    table = pa.Table.from_batches([decode(pipeline.contract, records())]).combine_chunks()
    rows = [[name, f"{ROWS / spent:,.0f} rows/s", f"{spent * 1000:.1f}", ""] for name, spent in _rates(table).items()]
    with fresh_settings() as settings:
        store = open_store(settings, pipeline.name)
        context = Context(
            pipeline=pipeline,
            store=store,
            source=_Silent(),
            outbox=MemoryOutbox(),
            run_id="bench",
            clock=lambda: datetime.now(UTC),
            monotonic=time.monotonic,
        )
        lineage, batches = _microbatches(context, table)
        commits = _commits(context, lineage)
    for name, spent in ((f"micro-batch of {_PIECE:,} rows", batches), ("commit of a version", commits)):
        p50, p99 = np.quantile(spent, (0.5, 0.99)) * 1000
        rows.append([name, f"{1 / np.mean(spent):,.1f} a second", f"{p50:.1f}", f"{p99:.1f}"])
    notes = [
        f"torch with {torch.get_num_threads()} threads; the micro-batch is all of its ten steps, with a local store.",
        "Medians of repeated calls for the pure steps.",
    ]
    headings = ("step", "rate", "ms, p50", "ms, p99")
    return Section(title="Learning and committing", headings=headings, rows=rows, notes=notes)


def _rates(table: pa.Table) -> Mapping[str, float]:
    contract, learner = pipeline.contract, pipeline.learner
    columns = {name: table.column(name).combine_chunks() for name in table.column_names}
    labels = torch.from_numpy(columns[contract.label.name].to_numpy(zero_copy_only=False).astype(np.float64))
    batch = Batch(features=encode(contract, columns), labels=labels)
    state, _ = learner.learn(learner.init(pipeline.spec, 0), batch)
    bins = reference.freeze(contract, columns)
    hours = columns[contract.event_time]
    counted = reference.histogram(contract, bins, columns, hours)
    return {
        "learn, one core": seconds(lambda: local.learn(learner, state, batch), 3),
        "predict": seconds(lambda: learner.predict(state, batch.features)),
        "histogram and merge": seconds(
            lambda: reference.merge(
                counted, reference.histogram(contract, bins, columns, hours), hours=pipeline.reference_hours
            )
        ),
    }


def _microbatches(context: Context, table: pa.Table) -> tuple[Lineage, list[float]]:
    """The first one does not count: it freezes nothing and warms everything."""
    lineage = lineages.fresh(pipeline, {TOPICS.examples: {0: 0}})
    found = []
    for first in range(0, ROWS, _PIECE):
        piece = table.slice(first, _PIECE)
        cut = Cut(ranges={TOPICS.examples: {0: (first, first + _PIECE)}}, covered_at=datetime.now(UTC))
        started = time.perf_counter()
        lineage = microbatch.run(context, lineage, cut, lambda piece=piece: piece)  # type: ignore[misc]
        found.append(time.perf_counter() - started)
    return lineage, found[1:]


def _commits(context: Context, lineage: Lineage) -> list[float]:
    """Files, manifest and hint of a version as large as a real one, written again and again under new numbers."""
    found = []
    files = lineages.to_files(pipeline, lineage)
    for number in range(lineage.number, lineage.number + _COMMITS):
        attempt = context.store.new_attempt()
        started = time.perf_counter()
        written = context.store.write_files(number, attempt, files)
        manifest = manifest_of(
            pipeline,
            replace(lineage, number=number),
            files=written,
            attempt=attempt,
            run_id="bench",
            created_at=datetime.now(UTC),
            topic_ids={},
            reference=lineage.seen.digest,
        )
        context.store.commit(manifest)
        found.append(time.perf_counter() - started)
    return found
