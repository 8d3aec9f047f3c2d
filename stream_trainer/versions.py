"""From a lineage to the manifest of its next version."""

import platform
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from importlib.metadata import version as installed

import torch
from msgspec import UNSET

from stream_trainer.evaluation.scores import SCORING
from stream_trainer.lineage import Lineage
from stream_trainer.pipeline import Pipeline
from stream_trainer.store import FileEntry, Manifest, Version
from stream_trainer.strategies import local

_LIBRARIES = ("stream-trainer", "torch", "pyarrow", "numpy", "msgspec", "pyspark")


@cache
def libraries() -> dict[str, str]:
    """The versions that bit-identity depends on."""
    return {"python": platform.python_version(), **{name: installed(name) for name in _LIBRARIES}}


def manifest_of(
    pipeline: Pipeline,
    lineage: Lineage,
    *,
    files: Mapping[str, FileEntry],
    attempt: str,
    run_id: str,
    created_at: datetime,
    topic_ids: Mapping[str, str],
    reference: str | None,
) -> Manifest:
    """What the version says about itself; pure but for the library versions and the CPU."""
    pending, head, parent = lineage.pending, lineage.head, lineage.parent
    ranges = pending.ranges
    newest = pending.event_time.max if pending.event_time else None
    before = head.manifest.trained_through if head else None
    return Manifest(
        pipeline=pipeline.name,
        contract=pipeline.contract.fingerprint,
        version=lineage.number,
        previous=lineage.number - 1 if lineage.number > 1 else None,
        parent=parent.number if parent else None,
        parent_sha256=parent.sha256 if parent else None,
        run_id=run_id,
        attempt=attempt,
        created_at=created_at,
        files=dict(files),
        next_offsets=lineage.position,
        ranges=ranges,
        cuts=list(pending.cuts),
        quarantined=list(pending.quarantined),
        lost=list(pending.lost),
        topic_ids=dict(topic_ids),
        rows=pending.rows,
        total=lineage.total + pending.rows,
        unknown_fields=pending.unknown_fields,
        event_time=pending.event_time,
        append_time=pending.append_time,
        trained_through=max(filter(None, (newest, before)), default=None),
        covered_at=pending.covered_at,
        metrics=lineage.prequential.metrics(),
        gates=list(pending.gates),
        strategy=local.NAME,
        world_size=local.WORLD_SIZE,
        partition_order=[f"{topic}-{partition}" for topic, ps in sorted(ranges.items()) for partition in sorted(ps)],
        seed=pipeline.seed,
        hyperparameters=pipeline.learner.hyperparameters(),
        libraries=libraries(),
        threads=local.THREADS,
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        reference=reference,
        history=list(pending.history) or UNSET,
        actions=list(pending.acts) or UNSET,
        asked=lineage.asked or UNSET,
        acted_before=_acted_before(head) or UNSET,
        negative_rate=pipeline.negative_rate,
        scoring=SCORING,
    )


def _acted_before(head: Version | None) -> int | None:
    if head is None:
        return None
    return head.number if head.manifest.acts else head.manifest.acted_before or None
