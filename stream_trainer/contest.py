"""Champion against challenger on the same labelled rows: scores, evidence, and the verdict. Pure.

Each row gives one number in [-1, 1], above 0 when the challenger did better on it:

* binary, classes: the champion's Brier score minus the challenger's. Of classes it is halved, so that both lie in [0, 1]
  (Brier 1950; sum over the classes of (p - 1{class is true})^2, at most 2).
* numbers: (|e1| - |e2|) / (|e1| + |e2|) of the champion's error e1 and the challenger's e2; 0 when both are exact.

An output that is not finite counts as the worst there is.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stream_trainer.betting import Wealth
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
    """

    alpha: float = 0.01
    margin: float = 0.0
    max_rows: int = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """What the rows so far say; of constant size. The first row that decides ends it, later ones change nothing.

    Attributes:
        task: what kind of label.
        rules: when it ends.
        rows: how many rows counted.
        sums: float64 `[4]`: first and second loss of the champion, then of the challenger; see `losses`.
        better: wealth against "the challenger is not better by more than the margin".
        worse: wealth against "the challenger is no worse".
        verdict: None as long as it is open.
    """

    task: Task
    rules: Rules
    better: Wealth
    worse: Wealth = field(default_factory=lambda: Wealth(bound=0.0))
    rows: int = 0
    sums: tuple[float, ...] = (0.0,) * 4
    verdict: Verdict | None = None

    @classmethod
    def begin(cls, task: Task, rules: Rules) -> "Contest":
        """Before any row."""
        return cls(task=task, rules=rules, better=Wealth(bound=rules.margin))

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
        y = labels.numpy()
        scores = [_scores(self.task, outputs.numpy().astype(np.float64), y) for outputs in (champion, challenger)]
        return self._count(_differences(self.task, *scores), np.column_stack(scores))

    def _count(self, differences: Floats, losses: Floats) -> "Contest":
        better, better_logs = self.better.path(differences)
        worse, worse_logs = self.worse.path(-differences)
        bar = -math.log(self.rules.alpha)
        numbers = self.rows + 1 + np.arange(len(differences))
        over = np.flatnonzero((better >= bar) | (worse >= bar) | (numbers >= self.rules.max_rows))
        at = int(over[0]) if len(over) else len(differences) - 1
        sums = np.add.accumulate(np.concatenate([np.array([self.sums]), losses[: at + 1]]), axis=0)[-1]
        verdict: Verdict = "better" if better[at] >= bar else "worse" if worse[at] >= bar else "no_better"
        return replace(
            self,
            rows=self.rows + at + 1,
            sums=tuple(float(x) for x in sums),
            better=self.better.at(better_logs[at]),
            worse=self.worse.at(worse_logs[at]),
            verdict=verdict if len(over) else None,
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


def _differences(task: Task, champion: Floats, challenger: Floats) -> Floats:
    """Per row, in [-1, 1]; from the second column of `_scores`."""
    first, second = champion[:, 1], challenger[:, 1]
    if task != "regression":
        return first - second
    both = first + second
    return np.divide(first - second, both, out=np.zeros_like(both), where=both > 0)


def _scores(task: Task, outputs: Floats, y: Floats) -> Floats:
    """`[rows, 2]`: log loss and Brier score, or squared and absolute error."""
    if task == "regression":
        error = np.abs(outputs - np.clip(y, -_LARGEST, _LARGEST))
        error = np.where(np.isfinite(error), np.minimum(error, _LARGEST), _LARGEST)
        return np.column_stack([error**2, error])
    chances = np.column_stack([1.0 - outputs, outputs]) if task == "binary" else outputs
    truth = np.zeros_like(chances)
    truth[np.arange(len(y)), y.astype(np.int64)] = 1.0
    sound = np.asarray(np.isfinite(chances).all(axis=1))
    chances = np.where(sound[:, np.newaxis], chances, 0.0)
    likelihood = np.where(sound, np.clip((chances * truth).sum(axis=1), _FLOOR, 1.0), _FLOOR)
    brier = np.where(sound, np.clip(((chances - truth) ** 2).sum(axis=1) / 2.0, 0.0, 1.0), 1.0)
    return np.column_stack([-np.log(likelihood), brier])
