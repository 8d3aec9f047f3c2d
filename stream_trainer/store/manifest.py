"""`manifest.json`: what a version is, what it has learned from and where the next one begins.

Canonical JSON: sorted keys, no spaces, UTF-8; its SHA-256 is the version's identity. `docs/schemas/manifest.json`
describes it for readers in other languages. What names files in it holds no path: a name is checked before it is used.
"""

import hashlib
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from stream_trainer.acts import CutActs, Read
from stream_trainer.errors import Corrupt
from stream_trainer.offsets import Loss, Offsets, Ranges

FORMAT = 1
MAX_BYTES = 16 * 2**20
_MOST = 2**63 - 1

FileName = Annotated[str, Meta(pattern=r"\A[a-z0-9_][a-z0-9_.]{0,63}\Z")]
Digest = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Folder = Annotated[str, Meta(pattern=r"\A[0-9a-f]{1,64}\Z")]
Count = Annotated[int, Meta(ge=0, le=_MOST)]
Number = Annotated[int, Meta(ge=1, le=_MOST)]
Seed = Annotated[int, Meta(ge=-_MOST, le=_MOST)]
Instant = Annotated[datetime, Meta(tz=True)]
Rate = Annotated[float, Meta(gt=0, le=1)]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What one gate said; kept in the manifest."""

    gate: str
    passed: bool
    detail: str


class FileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One data file of a version, under its attempt's folder."""

    size: Count
    sha256: Digest


class HistoryFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that the first version of a lineage was learned from, before the log: found again by its digest."""

    name: str
    size: Count
    sha256: Digest


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """How the rows of the ranges were accounted for; `seen` is the sum of the others."""

    seen: Count = 0
    trained: Count = 0
    rejected: Count = 0
    skipped: Count = 0
    quarantined: Count = 0

    def __add__(self, other: "Rows") -> "Rows":
        return Rows(**{f: getattr(self, f) + getattr(other, f) for f in self.__struct_fields__})


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """The earliest and the latest of some instants, UTC."""

    min: Instant
    max: Instant

    def union(self, other: "Span | None") -> "Span":
        """The span over both."""
        return self if other is None else Span(min=min(self.min, other.min), max=max(self.max, other.max))


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One version. `previous` is the number before it, `parent` the version whose weights it started from.

    `cuts` are the micro-batches it took in, in order; `ranges` is what they cover; `next_offsets` is where the next
    version begins. `quarantined` are those of the cuts that failed a gate: accounted for, not in the weights. `lost`
    are offsets between the previous version and the first cut that were gone. `total` counts rows since the first
    version; with `history`, those of the files that it was learned from are in `rows` too. `covered_at`: when the trainer
    last saw the end of the log covered, as far as this version knows. `checksum` is of everything else but the signature:
    the newest manifest has no child yet that names its digest, and one digit that a disk has changed would pass for a
    number. `signature` is there when the trainer has a key: see `signing`. `actions` are
    the acts of its cuts, `asked` how far `P.actions` was read for them, `acted_before` the newest version before this one
    that has acts. `negative_rate` is the share of false labels that it was taught (`Join.negative_rate`). `scoring` is the
    form of its scores; absent in the first.
    """

    format_version: Number = FORMAT
    pipeline: str
    contract: str
    version: Number
    previous: Number | None
    parent: Number | None
    parent_sha256: Digest | None
    run_id: str
    attempt: Folder
    created_at: Instant
    files: dict[FileName, FileEntry]
    next_offsets: Offsets
    ranges: Ranges
    cuts: list[Ranges]
    quarantined: list[Ranges] = []
    lost: list[Loss] = []
    topic_ids: dict[str, str]
    rows: Rows
    total: Rows
    unknown_fields: Count
    event_time: Span | None
    append_time: Span | None
    trained_through: Instant | None
    covered_at: Instant | None
    metrics: dict[str, Any]
    gates: list[Verdict]
    strategy: str
    world_size: Number
    partition_order: list[str]
    seed: Seed
    hyperparameters: dict[str, Any]
    libraries: dict[str, str]
    threads: Number
    cpu_capability: str
    reference: Digest | None
    history: list[HistoryFile] | UnsetType = UNSET
    actions: list[CutActs] | UnsetType = UNSET
    asked: Read | UnsetType = UNSET
    acted_before: Number | UnsetType = UNSET
    negative_rate: Rate | UnsetType = UNSET
    scoring: Number | UnsetType = UNSET
    checksum: Digest | UnsetType = UNSET
    signature: str | UnsetType = UNSET

    @property
    def acts(self) -> list[CutActs]:
        """The acts of its cuts, in order."""
        return self.actions or []

    @property
    def passed(self) -> bool:
        """Whether it may be served: a quarantined micro-batch is not in the weights, but others may be."""
        return self.rows.trained > 0 or all(v.passed for v in self.gates)


def sealed(manifest: Manifest) -> Manifest:
    """With the checksum of what it says."""
    bare = msgspec.structs.replace(manifest, checksum=UNSET, signature=UNSET)
    return msgspec.structs.replace(manifest, checksum=sha256(canonical_json(bare)))


def encode(manifest: Manifest) -> bytes:
    """The canonical bytes of the manifest, sealed."""
    return canonical_json(sealed(manifest))


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
        if manifest.format_version <= FORMAT and not is_canonical(data):
            raise Corrupt(f"{where} is not a manifest: its JSON is not canonical, so it was changed")
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise Corrupt(f"{where} is not a manifest: {error}") from error
    if manifest.format_version > FORMAT:
        raise Corrupt(f"{where} has format {manifest.format_version}, this program reads up to {FORMAT}: upgrade it")
    _check_seal(manifest, msgspec.json.decode(data), where)
    if any(not 0 <= offset <= _MOST for offset in _numbers(manifest)):
        raise Corrupt(f"{where} is not a manifest: an offset or a partition is out of range")
    return manifest


def _check_seal(manifest: Manifest, fields: dict[str, Any], where: str) -> None:
    """A manifest without a checksum is from before there were any, so it has no field that was not known then.

    Otherwise one damaged letter in the name `checksum` would turn a sealed manifest into an old one.
    """
    if manifest.checksum is UNSET:
        if unknown := sorted(fields.keys() - set(Manifest.__struct_fields__)):
            raise Corrupt(
                f"{where} is not what was committed: it has no checksum but a field {unknown[0][:64]!r}, "
                "so it was changed or damaged"
            )
        return
    bare = {name: value for name, value in fields.items() if name not in ("checksum", "signature")}
    if manifest.checksum != sha256(canonical_json(bare)):
        raise Corrupt(f"{where} is not what was committed: its checksum differs, so it was changed or damaged")


def is_canonical(data: bytes) -> bool:
    """Whether JSON is what `canonical_json` makes of it: no name twice, and nothing that two readers read differently.

    Raises:
        ValueError, RecursionError, msgspec.MsgspecError: it is no JSON, or nested too deeply.
    """
    return canonical_json(msgspec.json.decode(data)) == data


def _numbers(manifest: Manifest) -> Iterator[int]:
    """Every partition and offset in it."""
    for partitions in manifest.next_offsets.values():
        for partition, offset in partitions.items():
            yield from (partition, offset)
    for ranges in (manifest.ranges, *manifest.cuts, *manifest.quarantined):
        for bounds in ranges.values():
            for partition, (start, end) in bounds.items():
                yield from (partition, start, end)
    for act in (act for cut in manifest.acts for act in cut.acts):
        for bounds in (act.ranges or {}).values():
            for partition, (start, end) in bounds.items():
                yield from (partition, start, end)
    for loss in manifest.lost:
        yield from (loss.partition, loss.start, loss.start if loss.next is None else loss.next)


def sha256(data: bytes) -> str:
    """The lower-case hex digest."""
    return hashlib.sha256(data).hexdigest()
