"""How sure forecasts should be of rows long after the last known label: the mixture is taught by pieces, and knows only the next rows.

In a large block the world may change before its end. How much has come of that is seen when the block's labels are:
the power of the forecast probabilities that would have cost least lately is taken for the next block (temperature, as in
Guo et al. 2017).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Sureness:
    """Options. Tensors: `power []` for serving, `losses [powers]` for training; there are none before the first large block.

    Attributes:
        powers: what is tried; the first is taken while all are alike.
        first: the power before the first large block, of which nothing can be known. A forecast that is too sure costs
            much more than one that is not sure enough.
        age: rows that come more than so many after the last known label are meant.
        half_life: losses count half after so many rows.
    """

    powers: tuple[float, ...] = (1.0, 0.85, 0.7, 0.5, 0.35, 0.2, 0.1)
    first: float = 0.85
    age: int = 256
    half_life: float = 4_096.0

    def applied(self, known: Mapping[str, Tensor], mixture: Tensor, ages: Tensor) -> Tensor:
        """Log probabilities `[rows, size]` as sure as they should be at these ages `[rows]`."""
        power = known.get("power", torch.tensor(self.first))
        return torch.where(ages[:, None] > self.age, (mixture * power).log_softmax(1), mixture)

    def learned(self, losses: Tensor | None, mixture: Tensor, codes: Tensor, counts: Tensor) -> dict[str, Tensor]:
        """Both tensors after a block of rows in log order, forecast as `mixture` from before it; `losses` is None at first."""
        late = slice(self.age, None)
        powers = torch.tensor(self.powers)[:, None, None]
        chances = (mixture[late] * powers).log_softmax(2)
        found = -(chances * codes[late]).sum(2).mul(counts[late]).double().sum(1)
        if losses is not None:
            found += losses * 0.5 ** (len(codes) / self.half_life)
        return {"power": torch.tensor(self.powers[int(found.argmin())]), "losses": found}
