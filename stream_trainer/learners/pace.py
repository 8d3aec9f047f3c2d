"""Longer steps for some rows: a factor and the rows that are left, kept among the training tensors.

So a restart and a replay go on as the run that was asked. Without such tensors nothing is longer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stream_trainer.learner import State

PART = "pace"


@dataclass(frozen=True, slots=True)
class Pace:
    """Steps are `factor` times as long while rows are left; `rows` counts those that are learned, not those replayed."""

    factor: float = 1.0
    rows: int = 0

    @classmethod
    def of(cls, training: Mapping[str, Tensor]) -> "Pace":
        """What a state's training tensors say."""
        if f"{PART}.factor" not in training:
            return cls()
        return cls(float(training[f"{PART}.factor"]), int(training[f"{PART}.rows"]))

    def at(self, row: int) -> float:
        """How much longer a step is that begins at this row of a block."""
        return self.factor if row < self.rows else 1.0

    def after(self, rows: int) -> dict[str, Tensor]:
        """The tensors after so many rows; none when they have run out."""
        left = self.rows - rows
        if left <= 0:
            return {}
        return {"factor": torch.tensor(self.factor, dtype=torch.float64), "rows": torch.tensor(left)}


def hastened(state: State, factor: float, rows: int) -> State:
    """The state whose next `rows` rows are learned in steps `factor` times as long; what was said before is replaced."""
    tensors = {f"{PART}.{name}": tensor for name, tensor in Pace(factor, rows).after(0).items()}
    return replace(state, training={**state.training, **tensors})
