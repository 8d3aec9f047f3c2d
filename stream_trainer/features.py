"""Arrow columns to tensors: the same code in training and in serving.

Numbers stay as they are (NaN where an optional one is missing), categories become one-hot columns: one per word
of the vocabulary and one for "other", or one per hash bucket. Scaling is streaming and belongs to the
state of a model, see `Standardiser`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TypeAlias, cast

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from stream_trainer.contract import Categorical, Contract, Feature, Numeric, Task, Vector

Column: TypeAlias = "pa.Array | NDArray[np.float64]"

_CLIP = 8.0
# Fewer rows say nothing about what is far out; more than many say the same at a higher price.
_ENOUGH, _MANY = 20, 10_000
_QUARTILES = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSpec:
    """The columns of a feature tensor, and what is to be learned from them.

    Attributes:
        columns: one name per column, such as `distance`, `carrier=AA`, `carrier#17` or `pressure?`.
        scaled: whether a column is a number that a model standardises (one-hot columns are not).
        task: what the label asks for.
        outputs: how many logits a net returns per row.
    """

    columns: tuple[str, ...]
    scaled: tuple[bool, ...]
    task: Task
    outputs: int

    @property
    def width(self) -> int:
        """The number of columns."""
        return len(self.columns)


def feature_columns(feature: Feature) -> tuple[str, ...]:
    """The tensor columns of one feature, in order."""
    match feature:
        case Numeric(name=name, optional=optional):
            return (name, f"{name}?") if optional else (name,)
        case Categorical(name=name, vocabulary=None, buckets=buckets):
            return tuple(f"{name}#{i}" for i in range(buckets or 0))
        case Categorical(name=name, vocabulary=vocabulary):
            return (*(f"{name}={word}" for word in vocabulary or ()), f"{name}=*")
        case Vector(name=name, size=size):
            return tuple(f"{name}[{i}]" for i in range(size))


@lru_cache(maxsize=64)
def feature_spec(contract: Contract) -> FeatureSpec:
    """The spec of a contract's feature tensor."""
    columns: list[str] = []
    scaled: list[bool] = []
    for feature in contract.features:
        names = feature_columns(feature)
        columns += names
        scaled += [not isinstance(feature, Categorical) and not name.endswith("?") for name in names]
    return FeatureSpec(
        columns=tuple(columns), scaled=tuple(scaled), task=contract.label.task, outputs=contract.label.outputs
    )


def hash_bucket(text: str, buckets: int) -> int:
    """The bucket of a text: BLAKE2b, 8 bytes, little endian, modulo; the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") % buckets


def category_index(feature: Categorical, text: str) -> int:
    """The one-hot position of a text."""
    if feature.buckets is not None:
        return hash_bucket(text, feature.buckets)
    words = tuple(feature.vocabulary or ())
    return words.index(text) if text in words else len(words)


def encode(contract: Contract, columns: Mapping[str, Column]) -> Tensor:
    """Feature columns as a float64 tensor `[rows, spec.width]`; a missing optional number is NaN.

    A missing optional category has no 1 in any of its columns.
    """
    spec = feature_spec(contract)
    rows = len(columns[contract.features[0].name])
    out = np.zeros((rows, spec.width), dtype=np.float64)
    for feature, start, end in _places(contract):
        _fill(feature, columns[feature.name], out[:, start:end])
    return torch.from_numpy(out)


@lru_cache(maxsize=64)
def _places(contract: Contract) -> Sequence[tuple[Feature, int, int]]:
    """Each feature with the columns of the tensor that are its."""
    ends = list(accumulate(len(feature_columns(feature)) for feature in contract.features))
    return tuple(zip(contract.features, (0, *ends), ends, strict=False))


def _fill(feature: Feature, column: Column, out: NDArray[np.float64]) -> None:
    match feature:
        case Numeric(optional=optional):
            out[:, 0] = _numbers(column)
            if optional:
                out[:, 1] = np.isnan(out[:, 0])
        case Categorical():
            words = cast("pa.Array", column).dictionary_encode()
            table = [category_index(feature, word) for word in words.dictionary.to_pylist()]
            present = np.flatnonzero(words.indices.is_valid().to_numpy(zero_copy_only=False))
            indices = words.indices.drop_null().to_numpy(zero_copy_only=False)
            out[present, np.asarray(table, dtype=np.int64)[indices] if table else indices] = 1.0
        case Vector(size=size):
            out[:] = (column if isinstance(column, np.ndarray) else _numbers(column.flatten())).reshape(-1, size)


def _numbers(column: Column) -> NDArray[np.float64]:
    """Missing ones as NaN. Without any, nothing is converted, nor the interpreter let go on the way."""
    if isinstance(column, np.ndarray):
        return column
    if column.null_count or column.type != pa.float64():
        found: NDArray[np.float64] = column.to_numpy(zero_copy_only=False)
        return found
    return np.frombuffer(column.buffers()[1], np.float64, len(column), 8 * column.offset)


@dataclass(frozen=True, slots=True)
class Standardiser:
    """Streaming mean and variance per column, as a pure value.

    Batches are merged by the parallel rule of Chan, Golub and LeVeque (1983). The count is capped at `window` rows
    of weight, so that old rows fade. All tensors float64 `[width]`; a NaN takes no part in its column.
    """

    count: Tensor
    mean: Tensor
    m2: Tensor
    window: int = 50_000

    @classmethod
    def fresh(cls, width: int) -> "Standardiser":
        """The standardiser before any row: it maps every finite number to itself, clipped."""
        zeros = torch.zeros(width, dtype=torch.float64)
        return cls(zeros, zeros.clone(), zeros.clone())

    def update(self, rows: Tensor, *, robust: bool = False) -> "Standardiser":
        """Merge a batch `[rows, width]`; an empty batch changes nothing.

        `robust` takes numbers that are far out for less than they are (Winsor, in Tukey 1962): the first batch's beyond
        10 interquartile ranges of the median, later ones beyond 5 standard deviations of the mean. Absurd numbers, up
        to 1 in 25, do not flatten their column, and a column that has really moved is followed within some batches.
        """
        if robust and len(rows):
            rows = self._tamed(rows)
        seen = ~torch.isnan(rows)
        n = seen.sum(0).to(torch.float64)
        safe = torch.where(seen, rows, 0.0)
        mean = safe.sum(0) / n.clamp(min=1.0)
        m2 = (torch.where(seen, rows - mean, 0.0) ** 2).sum(0)
        keep = (self.window / (self.count + n).clamp(min=1.0)).clamp(max=1.0)
        count = self.count * keep
        old_m2 = self.m2 * keep
        total = (count + n).clamp(min=1.0)
        delta = mean - self.mean
        merged = self.mean + torch.where(n > 0, delta * n / total, 0.0)
        spread = old_m2 + torch.where(n > 0, m2 + delta**2 * count * n / total, 0.0)
        return Standardiser(count + n, merged, spread.clamp(min=0.0), self.window)

    def scale(self, rows: Tensor, scaled: tuple[bool, ...], clip: float = _CLIP) -> Tensor:
        """See `Scaling`, of which `scaling` makes one to be kept."""
        return self.scaling(scaled, clip)(rows)

    def scaling(self, scaled: tuple[bool, ...], clip: float = _CLIP) -> "Scaling":
        """What is known now, ready to be applied; `scaled` as in a `FeatureSpec`."""
        return Scaling(self.mean, self.deviation(), None if all(scaled) else torch.tensor(scaled), clip)

    def deviation(self) -> Tensor:
        """The standard deviation of each column; 1 for one that is constant."""
        std = (self.m2 / self.count.clamp(min=1.0)).sqrt()
        return torch.where(std > 1e-12 * (1.0 + self.mean.abs()), std, 1.0)

    def _tamed(self, rows: Tensor) -> Tensor:
        if bool((self.count == 0).all()):
            if len(rows) < _ENOUGH:
                return rows
            low, middle, high = torch.nanquantile(rows[:_MANY], _QUARTILES, dim=0)
            centre, reach = middle, 10.0 * (high - low)
        else:
            centre, reach = self.mean, 5.0 * (self.m2 / self.count.clamp(min=1.0)).sqrt()
            reach = torch.where(self.count < _ENOUGH, torch.inf, reach)
        # A column that has been constant so far has no spread to judge by.
        reach = torch.where(reach > 0, reach, torch.inf)
        return rows.clamp(centre - reach, centre + reach)

    def tensors(self) -> dict[str, Tensor]:
        """The value as named tensors; the window is the caller's."""
        return {"count": self.count, "mean": self.mean, "m2": self.m2}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], window: int = 50_000) -> "Standardiser":
        """The inverse of `tensors`."""
        return cls(tensors["count"], tensors["mean"], tensors["m2"], window)


@dataclass(frozen=True, slots=True)
class Scaling:
    """Rows `[rows, width]` to float32 z-values clipped at ±`clip`; missing numbers become 0 (the mean).

    Attributes:
        mean: float64 `[width]`.
        std: float64 `[width]`; 1 where a column is constant.
        scaled: bool `[width]`, whether a column is scaled; None where all are.
        clip: in standard deviations.
    """

    mean: Tensor
    std: Tensor
    scaled: Tensor | None
    clip: float

    def __call__(self, rows: Tensor) -> Tensor:
        """The scaled rows."""
        z = ((rows - self.mean) / self.std).clamp_(-self.clip, self.clip)
        if self.scaled is not None:
            z = torch.where(self.scaled, z, rows)
        return torch.nan_to_num_(z, nan=0.0).to(torch.float32)
