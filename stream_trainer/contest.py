"""Champion against challenger on the same labelled rows: scores, evidence, and the verdict. Pure.

Each row gives one number in [-1, 1], above 0 when the challenger did better on it:

* binary, classes: the champion's Brier score minus the challenger's. Of classes it is halved, so that both lie in [0, 1]
  (Brier 1950; sum over the classes of (p - 1{class is true})^2, at most 2).
* numbers: (|e1| - |e2|) / (|e1| + |e2|) of the champion's error e1 and the challenger's e2; 0 when both are exact.

Bet is on the mean of a block of rows, as rows next to each other often share their fate. How far a difference could
have gone, whatever the label, is its reach: the two predictions tell (1 for numbers).
An output that is not finite counts as the worst there is.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stream_trainer.betting import Wealth
from stream_trainer.blocks import OpenBlock
from stream_trainer.contract import Task

Floats = NDArray[np.float64]
Verdict = Literal["better", "worse", "no_better"]
Role = Literal["champion", "challenger"]

ROLES: tuple[Role, Role] = ("champion", "challenger")
_FLOOR = 1e-7
_LARGEST = 1e15


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """When a contest ends.

    Attributes:
        alpha: the probability, at most, of the verdict `better` where the challenger is not better by more than
            `margin`, and of `worse` where it is no worse; however long, and whenever one looks.
        margin: in units of the row's difference, at least 0 and below 1.
        max_rows: rows after which it is `no_better`.
        block_rows: rows of a block, at least 1. Rows may share their fate over a quarter of it.
        least_reach: above 0, at most 1. A bet is as if one block could lose so much, or as much as any block could so
            far. At 1 no bet leans on what the blocks so far could do.
    """

    alpha: float = 0.01
    margin: float = 0.0
    max_rows: int = 100_000
    block_rows: int = 100
    least_reach: float = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """What the rows so far say; of constant size. The first block that decides ends it, later rows change nothing.

    Attributes:
        task: what kind of label.
        rules: when it ends.
        rows: how many rows counted.
        sums: float64 `[4]`: first and second loss of the champion, then of the challenger; see `losses`.
        better: wealth against "the challenger is not better by more than the margin".
        worse: wealth against "the challenger is no worse".
        block: the rows that no bet has counted yet.
        reach: the largest of a block so far, and at least `rules.least_reach`.
        verdict: None as long as it is open.
    """

    task: Task
    rules: Rules
    better: Wealth
    block: OpenBlock
    reach: float
    worse: Wealth = field(default_factory=lambda: Wealth(bound=0.0))
    rows: int = 0
    sums: tuple[float, ...] = (0.0,) * 4
    verdict: Verdict | None = None

    @classmethod
    def begin(cls, task: Task, rules: Rules) -> "Contest":
        """Before any row."""
        return cls(
            task=task,
            rules=rules,
            better=Wealth(bound=rules.margin),
            block=OpenBlock(size=rules.block_rows),
            reach=rules.least_reach,
        )

    def add(self, champion: Tensor, challenger: Tensor, labels: Tensor) -> "Contest":
        """Count rows in order.

        How they are split into calls makes no difference.

        Args:
            champion: its outputs, as a learner predicts them.
            challenger: the same of the challenger.
            labels: float64 `[rows]`.
        """
        if self.verdict is not None or not len(labels):
            return self
        most = self.rules.max_rows - self.rows
        y = labels.numpy()[:most]
        both = [outputs.numpy()[:most].astype(np.float64) for outputs in (champion, challenger)]
        losses = [_losses(self.task, outputs, y) for outputs in both]
        return self._count(_differences(self.task, both[0], both[1], y), np.column_stack(losses))

    def _count(self, differences: Floats, losses: Floats) -> "Contest":
        means, block = self.block.add(differences)
        reaches = np.maximum.accumulate(np.append(self.reach, means[:, 1]))
        better, better_logs = self.better.path(means[:, 0], reaches[1:])
        worse, worse_logs = self.worse.path(-means[:, 0], reaches[1:])
        bar = -math.log(self.rules.alpha)
        over = np.flatnonzero((better >= bar) | (worse >= bar))
        blocks, rows = len(means), len(losses)
        verdict: Verdict | None = "no_better" if self.rows + rows == self.rules.max_rows else None
        if len(over):
            blocks = int(over[0])
            rows = blocks * block.size - self.block.rows
            block = OpenBlock(size=block.size)
            verdict = "better" if better[blocks] >= bar else "worse"
        sums = np.add.accumulate(np.concatenate([np.array([self.sums]), losses[:rows]]), axis=0)[-1]
        return replace(
            self,
            rows=self.rows + rows,
            sums=tuple(float(x) for x in sums),
            better=self.better.at(better_logs[blocks]),
            worse=self.worse.at(worse_logs[blocks]),
            block=block,
            reach=float(reaches[blocks]),
            verdict=verdict,
        )

    @property
    def metrics(self) -> dict[Role, dict[str, float]]:
        """The mean losses of both over the same rows; empty before the first.

        Binary and classes: `log_loss` and `brier` (in [0, 1]: of classes it is halved). Numbers: `mse` and `mae`.
        """
        if not self.rows:
            return {}
        names = ("mse", "mae") if self.task == "regression" else ("log_loss", "brier")
        means = [total / self.rows for total in self.sums]
        return {role: dict(zip(names, means[2 * i : 2 * i + 2], strict=True)) for i, role in enumerate(ROLES)}

    def summary(self) -> str:
        """The figures on which a verdict rests, for a reason that is kept."""
        second = "mae" if self.task == "regression" else "brier"
        losses = ", ".join(f"{role} {found[second]:.4g}" for role, found in self.metrics.items())
        return (
            f"after {self.rows} labelled rows: {second} {losses}; evidence that it is better {self.better.evidence:.4g}, "
            f"worse {self.worse.evidence:.4g}, of {1 / self.rules.alpha:.4g} needed"
        )


def _differences(task: Task, champion: Floats, challenger: Floats, y: Floats) -> Floats:
    """`[rows, 2]`: the difference in [-1, 1], and its reach."""
    if task == "regression":
        first, second = (_errors(outputs, y) for outputs in (champion, challenger))
        both = first + second
        found = np.divide(first - second, both, out=np.zeros_like(both), where=both > 0)
        return np.column_stack([found, np.ones_like(found)])
    each = _briers(_chances(task, champion)) - _briers(_chances(task, challenger))
    return np.column_stack([_of_truth(each, y), np.abs(each).max(axis=1)])


def _losses(task: Task, outputs: Floats, y: Floats) -> Floats:
    """`[rows, 2]`: log loss and Brier score, or squared and absolute error."""
    if task == "regression":
        error = _errors(outputs, y)
        return np.column_stack([error**2, error])
    chances = _chances(task, outputs)
    likelihood = np.clip(np.nan_to_num(_of_truth(chances, y), nan=0.0), _FLOOR, 1.0)
    return np.column_stack([-np.log(likelihood), _of_truth(_briers(chances), y)])


def _errors(outputs: Floats, y: Floats) -> Floats:
    error = np.abs(outputs - np.clip(y, -_LARGEST, _LARGEST))
    return np.where(np.isfinite(error), np.minimum(error, _LARGEST), _LARGEST)


def _chances(task: Task, outputs: Floats) -> Floats:
    """`[rows, classes]`; a row with an output that is not finite is NaN altogether."""
    chances = np.column_stack([1.0 - outputs, outputs]) if task == "binary" else outputs
    return np.where(np.isfinite(chances).all(axis=1, keepdims=True), chances, np.nan)


def _briers(chances: Floats) -> Floats:
    """`[rows, classes]`: the score if that class were the true one, halved for it to lie in [0, 1]."""
    scores = ((chances**2).sum(axis=1, keepdims=True) - 2.0 * chances + 1.0) / 2.0
    return np.where(np.isnan(scores), 1.0, np.clip(scores, 0.0, 1.0))


def _of_truth(values: Floats, y: Floats) -> Floats:
    found: Floats = values[np.arange(len(y)), y.astype(np.int64)]
    return found
