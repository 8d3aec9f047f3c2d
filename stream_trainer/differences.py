"""What tells a rebuilt version from the committed one, and why that may be. Pure: the store's bytes come as a parameter.

A digest in the manifest is enough to compare; the stored file, while it is still there, says which tensor differs.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import torch
from msgspec import UNSET
from torch import Tensor

from stream_trainer import lineage as lineages
from stream_trainer.errors import Corrupt
from stream_trainer.evaluation.scores import SCORING
from stream_trainer.evaluation.table import EVALUATION
from stream_trainer.lineage import BASELINE, PREQUENTIAL, Lineage
from stream_trainer.pipeline import Pipeline
from stream_trainer.store import Manifest, Rows, tensors
from stream_trainer.store.manifest import canonical_json, sha256
from stream_trainer.store.store import GOLDEN, LEARNED, TRAINER, WEIGHTS
from stream_trainer.strategies import local
from stream_trainer.versions import libraries

REFERENCE = "reference"
_ORDER = (WEIGHTS, TRAINER, LEARNED, BASELINE, GOLDEN, EVALUATION, REFERENCE)
_OF_THE_DATA = {"rows", "unknown_fields", "event_time", "append_time"}
_DATA_FILES = {LEARNED, BASELINE, REFERENCE}

Stored = Callable[[str], bytes | None]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a result depends on and that is not as it was when `version` was learned."""

    version: int
    what: str
    recorded: str
    here: str

    def __str__(self) -> str:
        return f"{self.what} was {self.recorded}, here it is {self.here}"


class TensorDifference(msgspec.Struct, frozen=True, kw_only=True):
    """The first tensor, by name, that is not bit for bit the stored one.

    `elements` and `largest` (the largest absolute difference) are null when there is nothing to subtract: another
    shape or type, a tensor too few or too many, NaN.
    """

    name: str
    elements: int | None
    of: int
    largest: float | None


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """A field of the manifest that the replay arrives at differently."""

    name: str
    recorded: Any
    replayed: Any


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Where a replay first arrives elsewhere. `file` is the first of `files` that differ; null when only fields do."""

    version: int
    file: str | None
    files: list[str]
    fields: list[Field]
    tensor: TensorDifference | None
    reasons: list[str]


def changes(pipeline: Pipeline, manifest: Manifest) -> list[Change]:
    """What is not as it was: seed, hyper-parameters, strategy, threads, CPU, libraries, the form of scores, sampling."""
    here = {
        "seed": pipeline.seed,
        "strategy": local.NAME,
        "threads": local.THREADS,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "scoring": SCORING,
        **_under("hyperparameters", pipeline.learner.hyperparameters()),
        **_under("library", libraries()),
    }
    recorded = {
        "seed": manifest.seed,
        "strategy": manifest.strategy,
        "threads": manifest.threads,
        "cpu_capability": manifest.cpu_capability,
        "scoring": scoring(manifest),
        **_under("hyperparameters", manifest.hyperparameters),
        **_under("library", manifest.libraries),
    }
    if manifest.negative_rate is not UNSET:
        here["negative_rate"], recorded["negative_rate"] = pipeline.negative_rate, manifest.negative_rate
    pairs = {name: (_text(recorded.get(name)), _text(here.get(name))) for name in {**recorded, **here}}
    return [Change(version=manifest.version, what=name, recorded=a, here=b) for name, (a, b) in pairs.items() if a != b]


def scoring(manifest: Manifest) -> int:
    """The form of a version's scores. Those of another form are left out of a comparison: they are computed otherwise now."""
    return 1 if manifest.scoring is UNSET else manifest.scoring


def _under(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix} {name}": value for name, value in values.items()}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else canonical_json(value).decode()


def digests(pipeline: Pipeline, lineage: Lineage) -> tuple[dict[str, bytes], dict[str, str]]:
    """The files of the version that a lineage is about to become, and the SHA-256 of each, the reference's included."""
    if lineage.golden is None:  # nothing was learned: there is nothing to write
        return {}, {}
    files = lineages.to_files(pipeline, lineage)
    found = {name: sha256(data) for name, data in files.items()}
    if lineage.seen.reference is not None:
        found[REFERENCE] = lineage.seen.digest or sha256(lineage.seen.reference.to_bytes())
    return files, found


def compare(pipeline: Pipeline, lineage: Lineage, manifest: Manifest, stored: Stored) -> Difference | None:
    """How the version that `lineage` is about to become differs from the committed one; None when it does not.

    Args:
        pipeline: what learned.
        lineage: with every cut of the version learned and nothing committed.
        manifest: the committed one.
        stored: the bytes of a stored file that are still what was committed, None when they are gone.
    """
    rebuilt, found = digests(pipeline, lineage)
    wanted = {name: entry.sha256 for name, entry in manifest.files.items()}
    if manifest.reference is not None:
        wanted[REFERENCE] = manifest.reference
    names = sorted({*wanted, *found}, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name))
    files = [name for name in names if wanted.get(name) != found.get(name)]
    fields = _fields(lineage, manifest)
    if scoring(manifest) != SCORING:
        files = [name for name in files if not _is_scores(name, rebuilt, stored)]
        fields = [field for field in fields if field.name != "metrics"]
    if not files and not fields:
        return None
    tensor = None
    for name in (WEIGHTS, TRAINER):
        kept = stored(name) if name in files and name in rebuilt and tensor is None else None
        if kept is not None:
            tensor = _tensor(kept, rebuilt[name])
    return Difference(
        version=manifest.version,
        file=files[0] if files else None,
        files=files,
        fields=fields,
        tensor=tensor,
        reasons=_reasons(pipeline, manifest, files, fields),
    )


def _is_scores(name: str, rebuilt: Mapping[str, bytes], stored: Stored) -> bool:
    """Whether a file that differs does so in its scores alone, as far as what is stored tells."""
    if name != TRAINER or name not in rebuilt:
        return name == EVALUATION
    kept = stored(name)
    if kept is None:
        return True
    both = [tensors.from_bytes(data, TRAINER) for data in (kept, rebuilt[name])]
    old, new = ({key: t for key, t in named.items() if not key.startswith(PREQUENTIAL)} for named in both)
    return old.keys() == new.keys() and not any(_differs(old[key], new[key]) for key in old)


def _differs(a: Tensor, b: Tensor) -> bool:
    return a.shape != b.shape or a.dtype != b.dtype or bool(_differing(a, b))


def _fields(lineage: Lineage, manifest: Manifest) -> list[Field]:
    pending = lineage.pending
    replayed = {
        "rows": pending.rows,
        "quarantined": list(pending.quarantined),
        "gates": list(pending.gates),
        "next_offsets": lineage.position,
        "unknown_fields": pending.unknown_fields,
        "event_time": pending.event_time,
        "append_time": pending.append_time,
        "metrics": lineage.prequential.metrics(),
        "acts": list(pending.acts),
    }
    pairs = {name: (_plain(getattr(manifest, name)), _plain(value)) for name, value in replayed.items()}
    return [Field(name=name, recorded=a, replayed=b) for name, (a, b) in pairs.items() if a != b]


def _plain(value: Any) -> Any:
    return msgspec.json.decode(canonical_json(value))


def _reasons(pipeline: Pipeline, manifest: Manifest, files: list[str], fields: list[Field]) -> list[str]:
    names = {field.name for field in fields}
    found = [str(change) for change in changes(pipeline, manifest)]
    if manifest.contract != pipeline.contract.fingerprint:
        found.insert(0, f"the contract was {manifest.contract[:12]}, here it is {pipeline.contract.fingerprint[:12]}")
    for field in fields:
        if field.name == "rows":
            counts = [(n, field.replayed[n], field.recorded[n]) for n in Rows.__struct_fields__]
            changed = ", ".join(f"{n} {here} instead of {then}" for n, here, then in counts if here != then)
            found.append(f"the log gives other rows than were learned: {changed}")
        elif field.name in ("gates", "quarantined"):
            found.append(f"a gate judges otherwise: {field.name} differ")
        elif field.name == "next_offsets":
            found.append("the manifest's cuts do not end at its next_offsets: it was changed")
    if not found and (names & _OF_THE_DATA or _DATA_FILES & set(files) or _other_labels(fields)):
        found.append("the log holds other records at these offsets than were learned")
    if not found and names == {"metrics"} and not files:
        found.append("the manifest's metrics are not those of its tensors: it was changed")
    return found


def _other_labels(fields: list[Field]) -> bool:
    """Whether the baselines score differently: they know the labels and nothing of the model."""
    pairs = [(field.recorded, field.replayed) for field in fields if field.name == "metrics"]
    return any(a.get(name) != b.get(name) for a, b in pairs for name in ("majority", "no_change"))


def _tensor(stored: bytes, rebuilt: bytes) -> TensorDifference | None:
    try:
        old, new = tensors.from_bytes(stored, "stored"), tensors.from_bytes(rebuilt, "rebuilt")
    except Corrupt:
        return None
    for name in sorted({*old, *new}):
        a, b = old.get(name), new.get(name)
        if a is None or b is None or a.shape != b.shape or a.dtype != b.dtype:
            present = a if a is not None else b
            return TensorDifference(
                name=name, elements=None, of=present.numel() if present is not None else 0, largest=None
            )
        if count := _differing(a, b):
            largest = float((a.to(torch.float64) - b.to(torch.float64)).abs().max())
            finite = largest == largest and largest != float("inf")  # noqa: PLR0124 - NaN
            return TensorDifference(name=name, elements=count, of=a.numel(), largest=largest if finite else None)
    return None


def _differing(a: Tensor, b: Tensor) -> int:
    """How many elements differ in their bits, so that NaN equals itself and 0 is not -0."""
    if not a.numel():
        return 0
    bits = [t.contiguous().reshape(-1).view(torch.uint8).reshape(t.numel(), -1) for t in (a, b)]
    return int((bits[0] != bits[1]).any(dim=1).sum())
