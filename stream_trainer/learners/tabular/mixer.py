"""Mixes the experts by how they have done lately: the mean of two mixtures, one sharp and one safe.

*Log-mixing* weighs the experts' log probabilities and learns the weights by gradient (Genest and Zidek 1986; as in
Mattern 2012). *Hedge* weighs their probabilities by exponential weights with a fixed share (Herbster and Warmuth 1998).
Both are made of many tiny steps, which NumPy does faster than torch. For numbers, the same with values for logs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixer:
    """Options. Tensors: `weights [experts]`, `bias [size]`, `hedge [experts]` (logs) and, for training, `moments [2, experts]`.

    Attributes:
        rate: how fast the weights of log-mixing move.
        rows: rows of one of its steps.
        eta: the rate of Hedge, a row.
        hedge_rows: rows of one step of Hedge.
        share: the fixed share: what each step of Hedge gives to all experts alike.
    """

    rate: float = 0.02
    rows: int = 16
    eta: float = 0.3
    hedge_rows: int = 32
    share: float = 0.01

    def fresh(self, experts: int, size: int) -> dict[str, Tensor]:
        """All experts alike."""
        return {
            "weights": torch.full((experts,), 1.0 / experts),
            "bias": torch.zeros(size),
            "hedge": torch.full((experts,), -float(np.log(experts))),
        }

    def fresh_moments(self, experts: int) -> dict[str, Tensor]:
        """What training keeps, before the first step."""
        return {"moments": torch.zeros(2, experts)}

    def mixed(self, mixer: Mapping[str, Tensor], forecasts: Tensor, *, classes: bool) -> Tensor:
        """One forecast `[rows, size]` of the experts' `[experts, rows, size]`."""
        flat = forecasts.flatten(1)
        weighted = (mixer["weights"] @ flat).view(forecasts.shape[1:]) + mixer["bias"]
        shares = mixer["hedge"].exp()
        if not classes:
            return (weighted + (shares @ flat).view(weighted.shape)) / 2.0
        safe = (shares @ flat.exp()).view(weighted.shape)
        return ((weighted.softmax(1) + safe) / 2.0).log_()

    def learned(
        self,
        mixer: Mapping[str, Tensor],
        forecasts: Tensor,
        codes: Tensor,
        losses: Tensor,
        counts: Tensor,
        *,
        classes: bool,
    ) -> dict[str, Tensor]:
        """All tensors after rows in log order, of which each counts `counts [rows]`.

        The experts' forecasts `[experts, rows, size]` must have been made before any of the rows was learned; `losses` is
        `[experts, rows]`.
        """
        mixture = _LogMixture(mixer)
        given, truth, weights = forecasts.numpy(), codes.numpy(), counts.numpy()
        for start in range(0, len(truth), self.rows):
            piece = slice(start, start + self.rows)
            mixture.step(given[:, piece], truth[piece], weights[piece], self.rate, classes=classes)
        hedge = self._hedged(mixer["hedge"].numpy(), (losses * counts).numpy())
        after = {"weights": mixture.weights, "bias": mixture.bias, "moments": mixture.moments, "hedge": hedge}
        return {name: torch.from_numpy(array) for name, array in after.items()}

    def _hedged(self, hedge: Floats, losses: Floats) -> Floats:
        starts = np.arange(0, losses.shape[1], self.hedge_rows)
        chances = np.exp(hedge.astype(np.float64))
        for loss in np.add.reduceat(losses.astype(np.float64), starts, axis=1).T:
            chances = chances * np.exp(-self.eta * (loss - loss.min()))
            chances = (1.0 - self.share) * chances / chances.sum() + self.share / len(chances)
        return np.log(chances).astype(np.float32)


class _LogMixture:
    """Log-mixing while it learns; the steps are normalised by a running second moment, as Adam's are."""

    def __init__(self, mixer: Mapping[str, Tensor]) -> None:
        self.weights: Floats = mixer["weights"].numpy().copy()
        self.bias: Floats = mixer["bias"].numpy().copy()
        self.moments: Floats = mixer["moments"].numpy().copy()

    def step(self, forecasts: Floats, codes: Floats, counts: Floats, rate: float, *, classes: bool) -> None:
        flat = forecasts.reshape(len(forecasts), -1)
        outputs: Any = (self.weights @ flat).reshape(codes.shape) + self.bias
        if classes:
            outputs = np.exp(outputs - outputs.max(1, keepdims=True))
            outputs /= outputs.sum(1, keepdims=True)
        error = (outputs - codes) * (counts / np.float32(len(codes)))[:, None]
        gradient = flat @ error.ravel()
        mean, square = self.moments
        mean += np.float32(0.1) * (gradient - mean)
        square += np.float32(0.01) * (gradient * gradient - square)
        step = gradient / (np.sqrt(square) * np.float32(3.0) + np.float32(1e-2))
        self.weights -= np.float32(0.5 * rate) * step
        np.clip(self.weights, -0.5, 3.0, out=self.weights)
        self.bias -= np.float32(rate) * error.sum(0)
