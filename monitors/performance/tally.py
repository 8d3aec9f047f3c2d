"""Additive figures of joined examples: loss, baselines, calibration, versions. Exact in any order and any grouping.

`counting` makes them of records. They hold sums only: no instant, no order and no example.
"""

from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

import msgspec

from monitors.performance.exact import ZERO, Exact, as_float, plus
from stream_trainer.contract import Task

BINS = 100
CALIBRATION_BINS = 20
KEPT_VERSIONS = 64
KEPT_CLASSES = 64
OLDER = 0

Key = TypeVar("Key", bound=Hashable)


class Losses(msgspec.Struct, frozen=True, kw_only=True):
    """The loss of some rows: log loss in nats (at most -ln 1e-7), or the squared error.

    Attributes:
        rows: how many; `correct`: whose likeliest class came true (0 for numbers).
        total: sum of the losses; `squares`: sum of their squares.
        sizes: how many rows by size: key `floor(4 log2(loss))`, for numbers of the absolute error, clipped.
    """

    rows: int = 0
    correct: int = 0
    total: Exact = ZERO
    squares: Exact = ZERO
    sizes: dict[int, int] = {}

    @property
    def mean(self) -> float:
        """Mean loss; 0 without rows."""
        return as_float(self.total) / self.rows if self.rows else 0.0


class Bins(msgspec.Struct, frozen=True, kw_only=True):
    """Rows by the probability that was answered, in `BINS` equal bins; lists are empty for numbers.

    The probability is that of true, for classes that of the likeliest one.

    Attributes:
        rows: rows a bin; `hits`: those where it came true.
        cost_hit: loss if it comes true, in 2^-20 nats, over all `rows` of the bin.
        cost_miss: loss if it does not; for two classes over all `rows`, else over those where it did not come true.
    """

    rows: list[int] = []
    hits: list[int] = []
    cost_hit: list[int] = []
    cost_miss: list[int] = []


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """Additive figures of joined examples. `Tally()` is nothing; `add` is exact, commutative and associative.

    Attributes:
        task: kind of label; None while there are no rows.
        losses: of all rows together.
        surprise: sum of loss minus the loss that the answer itself expects (its entropy); `surprise_squares`: of squares;
            `surprise_variance`: of the variances that the answers themselves expect. Zero for numbers.
        absolute: sum of absolute errors, numbers only.
        labels: rows per class (two for binary); for numbers empty.
        label_sums: sum of the labels and of their squares, numbers only.
        bins: see `Bins`.
        class_rows: per class, rows by the class's own probability in `CALIBRATION_BINS` bins; ClassLabel of at most
            `KEPT_CLASSES` classes only. `class_hits`: those rows of that class.
        segments: `name=value` → losses; values that are not told apart under `name=*`.
        versions: the `KEPT_VERSIONS` highest versions → losses; older ones under `OLDER`.
    """

    task: Task | None = None
    losses: Losses = Losses()
    surprise: Exact = ZERO
    surprise_squares: Exact = ZERO
    surprise_variance: Exact = ZERO
    absolute: Exact = ZERO
    labels: list[int] = []
    label_sums: tuple[Exact, Exact] = (ZERO, ZERO)
    bins: Bins = Bins()
    class_rows: list[list[int]] = []
    class_hits: list[list[int]] = []
    segments: dict[str, Losses] = {}
    versions: dict[int, Losses] = {}


def add(first: Tally, second: Tally) -> Tally:
    """Both together.

    Raises:
        ValueError: they are of different kinds of label, or of different classes.
    """
    if not (first.losses.rows and second.losses.rows):
        return first if first.losses.rows else second
    if first.task != second.task or len(first.labels) != len(second.labels):
        raise ValueError("tallies of different labels do not add up")
    return Tally(
        task=first.task,
        losses=add_losses(first.losses, second.losses),
        surprise=plus(first.surprise, second.surprise),
        surprise_squares=plus(first.surprise_squares, second.surprise_squares),
        surprise_variance=plus(first.surprise_variance, second.surprise_variance),
        absolute=plus(first.absolute, second.absolute),
        labels=_each(first.labels, second.labels),
        label_sums=(
            plus(first.label_sums[0], second.label_sums[0]),
            plus(first.label_sums[1], second.label_sums[1]),
        ),
        bins=_add_bins(first.bins, second.bins),
        class_rows=[_each(a, b) for a, b in zip(first.class_rows, second.class_rows, strict=True)],
        class_hits=[_each(a, b) for a, b in zip(first.class_hits, second.class_hits, strict=True)],
        segments=_united([first.segments, second.segments]),
        versions=newest(_united([first.versions, second.versions])),
    )


def add_losses(first: Losses, second: Losses) -> Losses:
    """Both together."""
    sizes = dict(first.sizes)
    for size, rows in second.sizes.items():
        sizes[size] = sizes.get(size, 0) + rows
    return Losses(
        rows=first.rows + second.rows,
        correct=first.correct + second.correct,
        total=plus(first.total, second.total),
        squares=plus(first.squares, second.squares),
        sizes=dict(sorted(sizes.items())),
    )


def newest(versions: Mapping[int, Losses]) -> dict[int, Losses]:
    """The `KEPT_VERSIONS` highest, the others together under `OLDER`; the same however one got there."""
    kept = sorted(v for v in versions if v != OLDER)[-KEPT_VERSIONS:]
    rest = [versions[v] for v in sorted(versions) if v not in set(kept)]
    found = _united([{OLDER: losses} for losses in rest])
    return found | {version: versions[version] for version in kept}


def _add_bins(first: Bins, second: Bins) -> Bins:
    return Bins(
        rows=_each(first.rows, second.rows),
        hits=_each(first.hits, second.hits),
        cost_hit=_each(first.cost_hit, second.cost_hit),
        cost_miss=_each(first.cost_miss, second.cost_miss),
    )


def _united(parts: Iterable[Mapping[Key, Losses]]) -> dict[Key, Losses]:
    found: dict[Key, Losses] = {}
    for part in parts:
        for key, losses in part.items():
            found[key] = add_losses(found[key], losses) if key in found else losses
    return dict(sorted(found.items()))


def _each(first: list[int], second: list[int]) -> list[int]:
    return [a + b for a, b in zip(first, second, strict=True)]
