"""Linear experts: plain stochastic gradient descent on each few new rows, once (Robbins and Monro 1951).

They learn the easy part of a stream from its first rows on, and do not forget it: no momentum, no replay.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from stream_trainer.learners.tabular.heads import Head

_LONGEST = 32.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """Options: one expert for each rate, on the sum of the rows' gradients. Tensor: `weights [width, experts, size]`."""

    rates: tuple[float, ...] = (0.01, 0.05)

    def fresh(self, width: int, size: int) -> dict[str, Tensor]:
        """Before the first row: every forecast is uniform, or 0."""
        return {"weights": torch.zeros(width, len(self.rates), size)}

    def outputs(self, weights: Tensor, rows: Tensor) -> Tensor:
        """Raw outputs `[experts, rows, size]` for `rows [rows, width]`, a constant 1 among the columns."""
        return (rows @ weights.flatten(1)).view(len(rows), *weights.shape[1:]).transpose(0, 1)

    def learned(
        self, weights: Tensor, rows: Tensor, codes: Tensor, counts: Tensor, head: Head, step: int, *, pace: float = 1.0
    ) -> Tensor:
        """The weights after one pass in steps of `step` rows, each `pace` times as long.

        Long rows, and those that count much, take shorter steps, or the sum of their gradients would overshoot (as in normalised least mean squares,
        Nagumo and Noda 1967).
        """
        weights = weights.clone()
        flat = weights.view(len(weights), -1)
        length = float(rows.square().sum(1).mul(counts).mean()) if len(rows) else 0.0
        shorter = min(1.0, _LONGEST / max(length, 1e-6)) * (1.0 if head.size > 1 else 0.25)
        rates = (torch.tensor(self.rates) * (shorter * pace)).repeat_interleave(head.size)
        targets = codes[:, None].expand(-1, len(self.rates), -1)
        for start in range(0, len(rows), step):
            piece = rows[start : start + step]
            outputs = (piece @ flat).view(-1, len(self.rates), head.size)
            gradient = head.gradient(outputs, targets[start : start + step])
            gradient = gradient.mul_(counts[start : start + step, None, None]).flatten(1)
            flat.sub_((piece.T @ gradient).mul_(rates))
        return weights
