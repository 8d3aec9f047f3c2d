"""Learning anew: from the state before anything was learned, over records that are still in the log.

They are learned block by block in the order of their arrival, each judged as a micro-batch is, so that what was
quarantined for what it is stays out. Pure: the same records give the same bits.
"""

from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from stream_trainer import learning
from stream_trainer import lineage as lineages
from stream_trainer.learning import Cut
from stream_trainer.lineage import Lineage
from stream_trainer.pipeline import Pipeline

ROWS = 1_000
_ORDER = ("_append_time", "_topic", "_partition", "_offset", "_row")


def retrained(pipeline: Pipeline, lineage: Lineage, rows: pa.Table) -> tuple[Lineage, str]:
    """The lineage with a state that knows these records only, and what they are like; its place and scores stay.

    The last block is judged by what has been usual for the lineage. When it fails a gate, or nothing could be learned,
    the lineage stays as it was, and the second is why; else it is empty.

    Args:
        pipeline: whose learner, seed and gates.
        lineage: what goes on.
        rows: decoded (`decode.decoded_schema`), in any order.
    """
    usable = rows.filter(pc.is_null(rows.column("_reason")))
    begun = _begun(pipeline, lineage)
    blocks = list(_blocks(usable.sort_by([(name, "ascending") for name in _ORDER])))
    for block in blocks[:-1]:
        begun = _learned(pipeline, begun, block)
    begun = replace(begun, history=lineage.history)
    after = _learned(pipeline, begun, blocks[-1]) if blocks else begun
    if after.pending.rows.quarantined > begun.pending.rows.quarantined:
        known = set(begun.pending.gates)
        failed = [verdict for verdict in after.pending.gates if not verdict.passed and verdict not in known]
        return lineage, "; ".join(f"{verdict.gate}: {verdict.detail}" for verdict in failed) or "a gate failed"
    if not after.pending.rows.trained:
        return lineage, "none of the records could be learned"
    return replace(lineage, state=after.state, seen=replace(after.seen, again=False)), ""


def _begun(pipeline: Pipeline, lineage: Lineage) -> Lineage:
    """Nothing learned; the drift reference is that of the lineage, if it has one."""
    fresh = lineages.fresh(pipeline, {})
    if lineage.seen.reference is None:
        return fresh
    return replace(fresh, seen=replace(lineage.seen, learned=fresh.seen.learned, again=True))


def _learned(pipeline: Pipeline, lineage: Lineage, block: pa.Table) -> Lineage:
    return learning.learn(pipeline, lineage, Cut(ranges={}, covered_at=None), block)


def _blocks(rows: pa.Table) -> Iterator[pa.Table]:
    """Blocks of `ROWS` rows; what is left over belongs to the last one."""
    count = max(1, rows.num_rows // ROWS) if rows.num_rows else 0
    for i in range(count):
        yield rows.slice(i * ROWS) if i == count - 1 else rows.slice(i * ROWS, ROWS)
