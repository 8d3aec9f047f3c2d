"""What one event of a pipeline looks like: its features, label, key, event time and segments.

The one contract drives decoding, the request model and its OpenAPI schema, the drift definition and the
fingerprint stored in every version. It holds names, kinds and bounds, and never any data.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

from stream_trainer.errors import UsageError

Task = Literal["binary", "multiclass", "regression"]

RESERVED_FIELDS = (
    "_example_id",
    "_prediction_id",
    "_model_version",
    "_output",
    "_weight",
    "_label_time",
    "_negative_rate",
)
FLOAT32_MAX = 3.4028234663852886e38
MAX_TEXT = 256
MAX_KEY = 1024


@dataclass(frozen=True, slots=True)
class Numeric:
    """A number; out of `[low, high]` or beyond float32 it is rejected. `optional`: may be null or absent."""

    name: str
    low: float = -FLOAT32_MAX
    high: float = FLOAT32_MAX
    optional: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise UsageError(f"feature {self.name!r}: low {self.low} must be below high {self.high}")


@dataclass(frozen=True, slots=True)
class Categorical:
    """A text of at most 256 characters, by vocabulary (anything else counts as "other") or hashed into buckets."""

    name: str
    vocabulary: Sequence[str] | None = None
    buckets: int | None = None
    optional: bool = False

    def __post_init__(self) -> None:
        if (self.vocabulary is None) == (self.buckets is None):
            raise UsageError(f"feature {self.name!r}: give either a vocabulary or a number of buckets")
        if self.vocabulary is not None:
            object.__setattr__(self, "vocabulary", tuple(self.vocabulary))
            if not self.vocabulary or len(set(self.vocabulary)) != len(self.vocabulary):
                raise UsageError(f"feature {self.name!r}: the vocabulary is empty or repeats a value")
        if self.buckets is not None and self.buckets < 2:
            raise UsageError(f"feature {self.name!r}: at least 2 buckets are needed, not {self.buckets}")


@dataclass(frozen=True, slots=True)
class Vector:
    """A list of exactly `size` numbers, such as an embedding."""

    name: str
    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UsageError(f"feature {self.name!r}: size must be at least 1, not {self.size}")


@dataclass(frozen=True, slots=True)
class BinaryLabel:
    """true/false or 1/0; the model's output is the probability of true."""

    name: str

    @property
    def task(self) -> Task:
        """The kind of learning this label asks for."""
        return "binary"

    @property
    def outputs(self) -> int:
        """How many logits a net for this label has."""
        return 1


@dataclass(frozen=True, slots=True)
class ClassLabel:
    """One of the named classes; the model's output is a probability for each, in this order."""

    name: str
    classes: Sequence[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < 2:
            raise UsageError(f"label {self.name!r}: give at least 2 different classes")

    @property
    def task(self) -> Task:
        """The kind of learning this label asks for."""
        return "multiclass"

    @property
    def outputs(self) -> int:
        """How many logits a net for this label has."""
        return len(self.classes)


@dataclass(frozen=True, slots=True)
class NumericLabel:
    """A number; the model's output is its estimate."""

    name: str

    @property
    def task(self) -> Task:
        """The kind of learning this label asks for."""
        return "regression"

    @property
    def outputs(self) -> int:
        """How many values a net for this label returns."""
        return 1


Feature = Numeric | Categorical | Vector
Label = BinaryLabel | ClassLabel | NumericLabel


@dataclass(frozen=True, kw_only=True)
class Contract:
    """The fields of one labelled event. Segments are texts to report by; a categorical feature may be one.

    Raises:
        UsageError: names repeat, are empty, or begin with `_` (reserved).
    """

    features: Sequence[Feature]
    label: Label
    key: str
    event_time: str
    segments: Sequence[str] = field(default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(self.features))
        object.__setattr__(self, "segments", tuple(self.segments))
        if not self.features:
            raise UsageError("a contract needs at least one feature")
        single = [*(f.name for f in self.features), self.label.name, self.key, self.event_time, *self.extra_segments]
        for name in single:
            if not name or name.startswith("_"):
                raise UsageError(f"field {name!r}: a name is not empty and does not begin with '_' (reserved)")
            if single.count(name) > 1:
                raise UsageError(f"field {name!r} is named twice")
        if len(set(self.segments)) != len(self.segments):
            raise UsageError(f"segments {list(self.segments)} repeat a name")
        plain = {f.name for f in self.features if not isinstance(f, Categorical)}
        if numeric := plain.intersection(self.segments):
            raise UsageError(f"segments {sorted(numeric)} are not text: a segment is a categorical feature or a field")

    @property
    def extra_segments(self) -> tuple[str, ...]:
        """The segments that are not features as well."""
        names = {f.name for f in self.features}
        return tuple(s for s in self.segments if s not in names)

    def describe(self) -> dict[str, Any]:
        """The contract as plain JSON values: what the fingerprint is taken of."""

        def part(item: Feature | Label) -> dict[str, Any]:
            return {"kind": type(item).__name__, **asdict(item)}

        return {
            "features": [part(f) for f in self.features],
            "label": part(self.label),
            "key": self.key,
            "event_time": self.event_time,
            "segments": list(self.segments),
        }

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return int(self.fingerprint[:15], 16)  # the same in every process: it travels with what was cached

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON of the contract: a version learned under another one is never served."""
        text = json.dumps(self.describe(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()
