"""Label memory: what the newest labels were, as features. Streams that stay where they are, stay where they are.

The last known label fades with its age, two running means of the labels do not: the persistence that an online learner
would otherwise lose to a forecaster that repeats the last label (Bifet et al. 2013; Žliobaitė et al. 2015).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelMemory:
    """Options. Tensors: `last [size]`, `means [len(half_lives), size]` (both centred) and `block []`, the usual block's rows.

    Attributes:
        fades: the last label's feature halves every so many rows.
        half_lives: of the running means, in rows.
        gain: how large the features are.
    """

    fades: tuple[float, ...] = (4.0, 48.0)
    half_lives: tuple[float, ...] = (16.0, 256.0)
    gain: float = 2.0

    def width(self, size: int) -> int:
        """How many features it makes of labels of `size` values."""
        return (len(self.fades) + len(self.half_lives)) * size

    def fresh(self, size: int) -> dict[str, Tensor]:
        """Before the first label."""
        return {
            "last": torch.zeros(size),
            "means": torch.zeros(len(self.half_lives), size),
            "block": torch.zeros(()),
        }

    def features(self, known: Mapping[str, Tensor], ages: Tensor) -> Tensor:
        """Float32 `[rows, width]` for rows that come so many rows after the last known label: `ages [rows]`, from 1."""
        fading = torch.exp2(-ages[:, None] / torch.tensor(self.fades))
        last = (fading[:, :, None] * known["last"]).flatten(1)
        means = known["means"].flatten().expand(len(ages), -1)
        return torch.cat([last, means], 1).mul_(self.gain)

    def ordered(self, rows: int) -> Tensor:
        """The ages of rows that directly follow the last known label."""
        return torch.arange(1, rows + 1, dtype=torch.float32)

    def usual(self, known: Mapping[str, Tensor], rows: int) -> Tensor:
        """The ages of rows without an order: the middle of the usual block for each."""
        return ((known["block"] + 1.0) / 2.0).clamp(min=1.0).expand(rows)

    def after(self, known: Mapping[str, Tensor], codes: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """After some more labels, centred codes `[rows, size]` in log order; at least one. A label of weight 2 is as two."""
        rows = len(codes)
        after = weights.flip(0).cumsum(0).flip(0)
        means = []
        for mean, half in zip(known["means"], self.half_lives, strict=True):
            shares = torch.exp2((weights - after) / half) * -torch.expm1(weights * (-math.log(2.0) / half))
            means.append(mean * torch.exp2(-after[0] / half) + shares @ codes)
        block = known["block"]
        usual = torch.where(block > 0, block + (rows - block) / 16.0, float(rows))
        return {
            "last": codes[-1].clone(),
            "means": torch.stack(means) if means else known["means"].clone(),
            "block": usual,
        }
