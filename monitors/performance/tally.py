"""Joined examples to additive figures of a window: loss, baselines, calibration, versions. Exact in any order.

It runs in Spark's Python workers, so it imports neither torch nor Spark. What a record says of its answer is read by
`stream_trainer.decode`, which lets no crafted record through: here everything is finite and in bounds.
"""

from collections.abc import Mapping
from datetime import datetime

import msgspec
import pyarrow as pa

from monitors.performance.exact import ZERO, Exact
from stream_trainer.contract import Contract, Task

BINS = 100
CALIBRATION_BINS = 20
KEPT_VERSIONS = 64
KEPT_CLASSES = 64
OTHERS = "*"


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
        versions: the `KEPT_VERSIONS` highest versions → losses; older ones under 0.
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


def joined(contract: Contract, decoded: pa.RecordBatch) -> pa.RecordBatch:
    """The rows of `stream_trainer.decode.decode` that are good and say what was answered, by which version."""
    raise NotImplementedError


def tally(contract: Contract, rows: pa.RecordBatch, kept: Mapping[str, frozenset[str]]) -> Tally:
    """The figures of some rows of `joined`.

    Args:
        contract: says the label and the segments.
        rows: of `joined`.
        kept: per segment name the values that are told apart; a segment that is not named is not counted.
    """
    raise NotImplementedError


def tallies(
    contract: Contract, rows: pa.RecordBatch, kept: Mapping[str, frozenset[str]], *, window_seconds: float
) -> dict[datetime, Tally]:
    """The same, per tumbling window of the contract's event time: start of the window → figures."""
    raise NotImplementedError


def add(first: Tally, second: Tally) -> Tally:
    """Both together.

    Raises:
        ValueError: they are of different kinds of label.
    """
    raise NotImplementedError
