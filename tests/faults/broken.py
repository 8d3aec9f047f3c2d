"""Commit protocols that are wrong on purpose: the fault suite has to notice each of them."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa

from stream_trainer import learning, microbatch, offsets
from stream_trainer import lineage as lineages
from stream_trainer.crashpoints import crashpoint
from stream_trainer.lineage import Lineage
from stream_trainer.microbatch import Context
from stream_trainer.store import FileEntry, ModelStore, Version
from stream_trainer.store import manifest as manifests
from stream_trainer.store.store import Intent
from stream_trainer.versions import manifest_of


def killer(kill: tuple[str, int]) -> Callable[[str], None]:
    """Counts arrivals at a point, or with "*" at any, and ends the process at the asked one as `kill -9` does."""
    name, left = kill

    def reached(at: str) -> None:
        nonlocal left
        if name in ("*", at):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return reached


def manifest_before_weights() -> None:
    """The version is visible before its files are."""

    def write(context: Context, lineage: Lineage, topic_ids: dict[str, str]) -> Version:
        attempt = context.store.new_attempt()
        digest = lineage.seen.digest
        if lineage.seen.reference is not None and digest is None:
            digest = context.store.put_reference(lineage.seen.reference.to_bytes())
        files = lineages.to_files(context.pipeline, lineage)
        entries = {name: FileEntry(size=len(data), sha256=manifests.sha256(data)) for name, data in files.items()}
        manifest = manifest_of(
            context.pipeline,
            lineage,
            files=entries,
            attempt=attempt,
            run_id=context.run_id,
            created_at=context.clock(),
            topic_ids=topic_ids,
            reference=digest,
        )
        version = context.store.commit(manifest)
        crashpoint("microbatch.files_written")
        context.store.write_files(lineage.number, attempt, files)
        return version

    microbatch._write = write


def next_offsets_from_rows() -> None:
    """The position is the newest row's offset plus one: what has no rows is not passed."""
    real = learning.learn

    def learn(pipeline: Any, lineage: Lineage, cut: Any, rows: pa.Table) -> Lineage:
        after = real(pipeline, lineage, cut, rows)
        position = offsets.copy(lineage.position)
        if rows.num_rows:
            newest = rows.group_by(["_topic", "_partition"]).aggregate([("_offset", "max")])
            for row in newest.to_pylist():
                position[row["_topic"]][row["_partition"]] = row["_offset_max"] + 1
        return replace(after, position=position)

    learning.learn = learn


def no_intent() -> None:
    """Nothing fixes the cut before it is learned."""

    def fix_cut(_: ModelStore, intent: Intent) -> Intent:
        return intent

    ModelStore.fix_cut = fix_cut  # type: ignore[method-assign,assignment]


def rejected_after_the_manifest() -> None:
    """Rejected records are sent once the version is committed: a crash in between loses them."""
    real_run = microbatch.run

    def run(context: Context, lineage: Lineage, cut: Any, fetch: Callable[[], pa.Table], **options: Any) -> Lineage:
        kept: list[pa.Table] = []

        class Later:
            def __getattr__(self, name: str) -> Any:
                return getattr(context.outbox, name)

            def reject(self, rows: pa.Table) -> None:
                kept.append(rows)

        late: Any = Later()
        after = real_run(replace(context, outbox=late), lineage, cut, fetch, **options)
        for rows in kept:
            context.outbox.reject(rows)
        return after

    microbatch.run = run


MUTANTS: dict[str, Callable[[], None]] = {
    "manifest before weights": manifest_before_weights,
    "next offsets from rows": next_offsets_from_rows,
    "no intent": no_intent,
    "rejected after the manifest": rejected_after_the_manifest,
}
