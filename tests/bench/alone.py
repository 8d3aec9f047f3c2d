"""A trainer's own steps, without Kafka and Spark: it reads what is in memory and tells nobody."""

import time
from datetime import UTC, datetime

import pyarrow as pa

from stream_trainer.learning import Cut
from stream_trainer.lineage import Lineage
from stream_trainer.microbatch import CommitPolicy, Context
from stream_trainer.offsets import Offsets, Ranges
from stream_trainer.pipeline import Pipeline
from stream_trainer.store import ModelStore
from stream_trainer.testing import MemoryOutbox, MemoryRequests
from tests.bench.world import TOPICS
from tests.core.worlds import FakeSource

START: Offsets = {TOPICS.examples: {0: 0}}


class _Silent(FakeSource):
    """A topic that is still the same."""

    def check(self, needed: Offsets) -> dict[str, str]:
        return {TOPICS.examples: "11111111-2222-3333-4444-555555555555"}


def _nothing_again(ranges: Ranges) -> pa.Table:
    raise NotImplementedError(ranges)


def context_of(pipeline: Pipeline, store: ModelStore, policy: CommitPolicy | None = None) -> Context:
    """What every micro-batch of a measurement shares."""
    return Context(
        pipeline=pipeline,
        store=store,
        source=_Silent(),
        outbox=MemoryOutbox(),
        run_id="bench",
        clock=lambda: datetime.now(UTC),
        monotonic=time.monotonic,
        requests=MemoryRequests(),
        reread=_nothing_again,
        policy=policy or CommitPolicy(),
    )


def next_cut(lineage: Lineage, rows: int) -> Cut:
    """So many records after the ones that the lineage has seen."""
    first = lineage.position[TOPICS.examples][0]
    return Cut(ranges={TOPICS.examples: {0: (first, first + rows)}}, covered_at=datetime.now(UTC))


def check_trained(lineage: Lineage, rows: int) -> None:
    """Refuse a measurement in which records were rejected or quarantined: that is another, cheaper way."""
    trained = lineage.total.trained + lineage.pending.rows.trained
    if trained != rows:
        raise RuntimeError(f"only {trained} of {rows} rows were trained: the figures would mean nothing")
