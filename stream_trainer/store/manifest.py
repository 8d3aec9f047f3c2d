"""`manifest.json`: what a version is, what it has learned from and where the next one begins.

Canonical JSON: sorted keys, no spaces, UTF-8; its SHA-256 is the version's identity. `docs/schemas/manifest.json`
describes it for readers in other languages.
"""

import hashlib
from datetime import datetime
from typing import Any

import msgspec

from stream_trainer.errors import Corrupt
from stream_trainer.offsets import Loss, Offsets, Ranges

FORMAT = 1


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What one gate said; kept in the manifest."""

    gate: str
    passed: bool
    detail: str


class FileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One data file of a version, under its attempt's folder."""

    size: int
    sha256: str


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """How the rows of the ranges were accounted for; `seen` is the sum of the others."""

    seen: int = 0
    trained: int = 0
    rejected: int = 0
    skipped: int = 0
    quarantined: int = 0

    def __add__(self, other: "Rows") -> "Rows":
        return Rows(**{f: getattr(self, f) + getattr(other, f) for f in self.__struct_fields__})


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """The earliest and the latest of some instants, UTC."""

    min: datetime
    max: datetime

    def union(self, other: "Span | None") -> "Span":
        """The span over both."""
        return self if other is None else Span(min=min(self.min, other.min), max=max(self.max, other.max))


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One version. `previous` is the number before it, `parent` the version whose weights it started from.

    `cuts` are the micro-batches it took in, in order; `ranges` is what they cover; `next_offsets` is where the next
    version begins. `quarantined` are those of the cuts that failed a gate: accounted for, not in the weights. `lost`
    are offsets between the previous version and the first cut that were gone. `total` counts rows since the first
    version. `covered_at`: when the trainer last saw the end of the log covered, as far as this version knows.
    """

    format_version: int = FORMAT
    pipeline: str
    contract: str
    version: int
    previous: int | None
    parent: int | None
    parent_sha256: str | None
    run_id: str
    attempt: str
    created_at: datetime
    files: dict[str, FileEntry]
    next_offsets: Offsets
    ranges: Ranges
    cuts: list[Ranges]
    quarantined: list[Ranges] = []
    lost: list[Loss] = []
    topic_ids: dict[str, str]
    rows: Rows
    total: Rows
    unknown_fields: int
    event_time: Span | None
    append_time: Span | None
    trained_through: datetime | None
    covered_at: datetime | None
    metrics: dict[str, Any]
    gates: list[Verdict]
    strategy: str
    world_size: int
    partition_order: list[str]
    seed: int
    hyperparameters: dict[str, Any]
    libraries: dict[str, str]
    threads: int
    cpu_capability: str
    reference: str | None

    @property
    def passed(self) -> bool:
        """Whether it may be served: a quarantined micro-batch is not in the weights, but others may be."""
        return self.rows.trained > 0 or all(v.passed for v in self.gates)


def encode(manifest: Manifest) -> bytes:
    """The canonical bytes."""
    return canonical_json(manifest)


def canonical_json(value: Any) -> bytes:
    """Sorted keys, no spaces, UTF-8."""
    return msgspec.json.encode(msgspec.to_builtins(value, str_keys=True), order="sorted")


def decode(data: bytes, where: str) -> Manifest:
    """Parse and check.

    Raises:
        Corrupt: not a manifest, or one of a newer format.
    """
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Corrupt(f"{where} is not a manifest: {error}") from error
    if manifest.format_version > FORMAT:
        raise Corrupt(f"{where} has format {manifest.format_version}, this program reads up to {FORMAT}: upgrade it")
    return manifest


def sha256(data: bytes) -> str:
    """The lower-case hex digest."""
    return hashlib.sha256(data).hexdigest()
