"""How much a labelled row counts where it is scored, and a fair sample for who can only count whole rows. No torch.

A stream from which false labels were sampled away (`Join.negative_rate`) says in each row at which rate: a false row then
stands for 1 / rate of its like. `_weight` says the same of any row. Without both a row counts once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stream_trainer.contract import Task

Floats = NDArray[np.float64]
Rows = TypeVar("Rows", pa.Table, pa.RecordBatch)

# One row that claims more would be all that is seen of a window.
LARGEST = 1e6
_MOST_COPIES = 1_000
_MIX = tuple(np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What rows say of how much they count; both float64 `[rows]`.

    Attributes:
        weights: at least 0.
        rates: the share of false labels that were taught, above 0 and at most 1; 1 but for binary labels.
    """

    weights: Floats
    rates: Floats

    def each(self, labels: Floats) -> Floats:
        """How much each row counts, at most a million."""
        return np.minimum(
            self.weights * np.where(labels == 0, 1.0 / np.maximum(self.rates, 1.0 / LARGEST), 1.0), LARGEST
        )


def counted(task: Task, rows: pa.Table | pa.RecordBatch) -> Counted | None:
    """Of decoded rows; None when all count once."""
    weights, rates = _said(rows, "_weight"), _said(rows, "_negative_rate") if task == "binary" else None
    if weights is None and rates is None:
        return None
    ones = np.ones(rows.num_rows)
    return Counted(weights=ones if weights is None else weights, rates=ones if rates is None else rates)


def _said(rows: pa.Table | pa.RecordBatch, name: str) -> Floats | None:
    if name not in rows.schema.names:
        return None
    column = rows.column(name)
    if column.null_count == len(column):
        return None
    found: Floats = pc.fill_null(column, 1.0).to_numpy(zero_copy_only=False).copy()
    return found


def fair(task: Task, label: str, rows: Rows) -> Rows:
    """Rows of which each counts once: a fair sample of what the given rows stand for. A function of each row alone.

    False rows stay, and of true ones the share that was taught of the false; so each says as much as a row of a stream that
    was sampled at that rate throughout, and no row is counted for more than it says. A weight w leaves w rows on average,
    at most a thousand.

    Args:
        task: kind of label.
        label: its column, a number.
        rows: decoded, all of them good.
    """
    places = fair_places(task, label, rows)
    if places is None:
        return rows
    taken: Callable[[NDArray[np.int64]], Rows] = rows.take
    return taken(places)


def fair_places(task: Task, label: str, rows: pa.Table | pa.RecordBatch) -> NDArray[np.int64] | None:
    """Which rows `fair` takes, ascending; None for all of them, once each."""
    found = counted(task, rows)
    if found is None:
        return None
    labels = rows.column(label).to_numpy(zero_copy_only=False)
    wanted = found.weights * np.where(labels == 0, 1.0, found.rates)
    copies = np.minimum(np.floor(wanted + chances(rows)), _MOST_COPIES).astype(np.int64)
    return np.repeat(np.arange(rows.num_rows), copies)


def chances(rows: pa.Table | pa.RecordBatch, seed: int = 0) -> Floats:
    """A number in [0, 1) for each row, of its place in the log alone (SplitMix64; Steele, Lea and Flood 2014).

    Other seeds give numbers that do not go together with these.
    """
    found = np.full(rows.num_rows, seed, dtype=np.uint64)
    for name in ("_partition", "_offset", "_row"):
        found += rows.column(name).to_numpy(zero_copy_only=False).astype(np.uint64) + _MIX[0]
        for shift, factor in ((30, _MIX[1]), (27, _MIX[2])):
            found = (found ^ (found >> np.uint64(shift))) * factor
        found ^= found >> np.uint64(31)
    return (found >> np.uint64(11)).astype(np.float64) * 2.0**-53
