"""How long the trainer's own steps take, without Kafka and Spark: learning, counting, whole micro-batches."""

import time
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import torch

from examples.flights.pipeline import pipeline
from stream_trainer import lineage as lineages
from stream_trainer import microbatch, reference
from stream_trainer.decode import decode
from stream_trainer.features import encode
from stream_trainer.learner import Batch
from stream_trainer.microbatch import Context
from stream_trainer.reference.pseudo import outputs_type
from stream_trainer.store import open_store
from stream_trainer.strategies import local
from tests.bench.alone import START, check_trained, context_of, next_cut
from tests.bench.decode import ROWS, records
from tests.bench.options import Options
from tests.bench.section import Section
from tests.bench.timing import seconds
from tests.bench.world import fresh_settings

_PIECE = 1_000


def measure(options: Options) -> Section:
    """Rates of the pure steps; p50 and p99 of micro-batches on a local store."""
    table = pa.Table.from_batches([decode(pipeline.contract, records())]).combine_chunks()
    rows = [[name, f"{ROWS / spent:,.0f} rows/s", f"{spent * 1000:.1f}", ""] for name, spent in _rates(table).items()]
    with fresh_settings() as settings:
        batches = _microbatches(context_of(pipeline, open_store(settings, pipeline.name)), table)
    p50, p99 = np.quantile(batches, (0.5, 0.99)) * 1000
    rows.append(
        [f"micro-batch of {_PIECE:,} rows", f"{1 / np.mean(batches):,.1f} a second", f"{p50:.1f}", f"{p99:.1f}"]
    )
    notes = [
        f"torch with {torch.get_num_threads()} threads; the micro-batch is all of its ten steps, with a local store.",
        "Medians of repeated calls for the pure steps.",
    ]
    headings = ("step", "rate", "ms, p50", "ms, p99")
    return Section(title="Learning", headings=headings, rows=rows, notes=notes)


def _rates(table: pa.Table) -> Mapping[str, float]:
    contract, learner = pipeline.contract, pipeline.learner
    columns = {name: table.column(name).combine_chunks() for name in table.column_names}
    labels = torch.from_numpy(columns[contract.label.name].to_numpy(zero_copy_only=False).astype(np.float64))
    batch = Batch(features=encode(contract, columns), labels=labels)
    state, _ = learner.learn(learner.init(pipeline.spec, 0), batch)
    columns[reference.LABEL] = columns[contract.label.name]
    outputs = learner.predict(state, batch.features).reshape(ROWS, -1)
    columns[reference.OUTPUT] = pa.array(outputs.tolist(), outputs_type())
    bins = reference.freeze(contract, columns)
    times, kept = columns[contract.event_time], pipeline.reference_hours
    learned = reference.Learned().add(reference.coded(contract, bins, columns), times, kept)
    return {
        "learn, one core": seconds(lambda: local.learn(learner, state, batch), 3),
        "predict": seconds(lambda: learner.predict(state, batch.features)),
        "count and add": seconds(lambda: learned.add(reference.coded(contract, bins, columns), times, kept)),
    }


def _microbatches(context: Context, table: pa.Table) -> list[float]:
    """The first one does not count: it freezes nothing and warms everything."""
    lineage, found = lineages.fresh(pipeline, START), []
    for first in range(0, ROWS, _PIECE):
        piece = table.slice(first, _PIECE)
        cut = next_cut(lineage, _PIECE)
        started = time.perf_counter()
        lineage = microbatch.run(context, lineage, cut, lambda piece=piece: piece)  # type: ignore[misc]
        found.append(time.perf_counter() - started)
    check_trained(lineage, ROWS)
    return found[1:]
