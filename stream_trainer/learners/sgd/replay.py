"""The newest rows, learned again beside new ones (Lin 1992), and the steps in which rows are learned.

What is kept is what was seen: the columns as they were scaled then. It is needed for learning only.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from stream_trainer.learner import Batch
from stream_trainer.learners.tabular.replay import Rows

Piece = slice | Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Options. Tensors, for training: `rows [n, width]`, `labels [n]` and `weights [n]`, all float32.

    Attributes:
        rows: how many of the newest rows are kept.
        share: the part of each step's rows that is drawn from them, each as likely; they come beside the new ones.

    Raises:
        ValueError: `rows` is below 1, or `share` not in [0, 1).
    """

    rows: int = 2_000
    share: float = 0.5

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"Replay.rows is {self.rows}: keep one row at least, or give no replay")
        if not 0.0 <= self.share < 1.0:
            raise ValueError(f"Replay.share is {self.share}: it must be at least 0 and below 1, as new rows come too")

    def beside(self, new: int) -> int:
        """How many older rows are drawn for so many new ones."""
        return round(new * self.share / (1.0 - self.share))


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows in log order, the kept ones and after them a new block's; `Rows` of it hold positions as their inputs.

    Attributes:
        rows: scaled columns, float32 `[old + new, width]`.
        labels: float32 `[old + new]`.
        weights: how much each row counts, float32 `[old + new]`; None when all count 1.
        old: how many of them are not new.
    """

    rows: Tensor
    labels: Tensor
    weights: Tensor | None
    old: int

    @classmethod
    def of(cls, kept: Mapping[str, Tensor], rows: Tensor, batch: Batch) -> "Table":
        """Kept rows, if any, and a block whose columns are `rows` when scaled."""
        labels = batch.labels.to(torch.float32)
        weights = None if batch.weights is None else batch.weights.to(torch.float32)
        if not kept or not len(kept["labels"]):
            return cls(rows=rows, labels=labels, weights=weights, old=0)
        if weights is not None or not bool((kept["weights"] == 1.0).all()):
            weights = torch.cat([kept["weights"], torch.ones(len(labels)) if weights is None else weights])
        return cls(
            rows=torch.cat([kept["rows"], rows]),
            labels=torch.cat([kept["labels"], labels]),
            weights=weights,
            old=len(kept["labels"]),
        )

    def counts(self) -> Tensor:
        """How much each row counts."""
        return torch.ones(len(self.labels)) if self.weights is None else self.weights

    def positions(self, codes: Tensor) -> Rows:
        """All rows, by their positions, with coded labels."""
        return Rows(inputs=torch.arange(len(self.labels)), codes=codes, weights=self.counts(), old=self.old)

    def taken(self, piece: Piece) -> tuple[Tensor, Tensor, Tensor | None]:
        """Rows, labels and weights of a step."""
        return self.rows[piece], self.labels[piece], None if self.weights is None else self.weights[piece]

    def kept(self, positions: Tensor) -> dict[str, Tensor]:
        """Some rows as tensors that share no memory."""
        return {
            "rows": self.rows[positions].clone(),
            "labels": self.labels[positions].clone(),
            "weights": self.counts()[positions].clone(),
        }


def steps(rows: Rows, size: int, replay: Replay | None, *, again: bool) -> Iterator[Piece]:
    """One pass over the new rows in order: positions of each step's rows, `size` new ones and older ones beside them.

    Those are drawn, by torch's global generator, from the newest `replay.rows` before the step; from the newest of all
    in a pass that comes `again`. Without old rows there is none.
    """
    total = len(rows.inputs)
    for start in range(rows.old, total, size):
        new = rows.inputs[start : start + size]
        drawn = replay.beside(len(new)) if replay and rows.old else 0
        if replay is None or not drawn:
            yield slice(int(new[0]), int(new[-1]) + 1)
            continue
        end = total if again else start
        first = max(0, end - replay.rows)
        chance = torch.rand(drawn, dtype=torch.float64)
        yield torch.cat([new, rows.inputs[(first + chance * (end - first)).long()]])
