"""Nearest neighbours among the newest rows (Fix and Hodges 1951; for streams Losing, Hammer and Wersing 2016): local and at once.

Only the newest rows are kept, so that old concepts fade; they are the same rows that are replayed.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_FEWEST = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """Options: `count` neighbours vote, nearer ones louder.

    Attributes:
        count: how many neighbours are asked.
        rows: how many of the newest rows are looked at.
        prior: how many votes the uniform forecast has.
    """

    count: int = 10
    rows: int = 1_000
    prior: float = 0.08

    def forecast(self, rows: Tensor, codes: Tensor, counts: Tensor, wanted: Tensor, *, classes: bool) -> Tensor:
        """Forecasts `[wanted, size]` for scaled rows, of kept rows `[n, width]`, their coded labels `[n, size]` and weights `[n]`.

        Classes: log probabilities; numbers: the neighbours' weighted mean. Without enough rows: uniform, or 0.
        """
        rows, codes, counts = rows[-self.rows :], codes[-self.rows :], counts[-self.rows :]
        kept, size = len(codes), codes.shape[1]
        if kept < _FEWEST:
            return torch.full((len(wanted), size), -float(torch.tensor(float(size)).log()) if classes else 0.0)
        squares = torch.addmm(rows.square().sum(1), wanted, rows.T, alpha=-2.0)
        nearest, which = squares.topk(min(self.count, kept), 1, largest=False)
        distances = (nearest + wanted.square().sum(1, keepdim=True)).clamp_(min=0.0).sqrt_()
        weights = torch.exp(-distances / (distances.mean(1, keepdim=True) + 1e-6))
        weights *= counts[which]
        weights /= weights.sum(1, keepdim=True).clamp(min=1e-12)
        votes = torch.bmm(weights[:, None], codes[which])[:, 0]
        if not classes:
            return votes / (1.0 + self.prior)
        return ((votes + self.prior / size) / (1.0 + self.prior)).log_()
