"""What the trainer asks of anything that learns: pure functions over a state of named tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from stream_trainer.features import FeatureSpec


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class State:
    """A model at one moment. Never modified: learning returns a new one.

    Attributes:
        spec: the feature columns it was made for.
        serving: what prediction needs (net, standardiser); goes into `weights.safetensors`.
        training: what only learning needs (optimiser, RNG); goes into `trainer.safetensors`.
    """

    spec: FeatureSpec
    serving: Mapping[str, Tensor]
    training: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Labelled rows in log order: features float64 `[rows, spec.width]`, labels float64 `[rows]`.

    `weights` float64 `[rows]`: how much each counts; None when all count 1.
    """

    features: Tensor
    labels: Tensor
    weights: Tensor | None = None

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnReport:
    """What one call of `learn` did: rows and optimiser steps, mean loss, the largest gradient norm before clipping.

    `update_norm` is the Euclidean length of the way that the weights went; 0 where a learner has no such thing, as
    with `gradient_norm`. `finite` is False when a loss or gradient was NaN or infinite; learning stopped there.
    """

    rows: int
    steps: int
    loss: float
    gradient_norm: float
    update_norm: float
    finite: bool


class Learner(Protocol):
    """Deterministic: the same state and batch give the same bits, whatever was called before."""

    def init(self, spec: FeatureSpec, seed: int) -> State:
        """The state before anything was learned; every random number comes from `seed`."""
        ...

    def predict(self, state: State, features: Tensor) -> Tensor:
        """Outputs float32 for features float64 `[rows, width]`; safe to call from several threads.

        Binary: the probability of true, `[rows]`. Classes: probabilities, `[rows, classes]`. Number: `[rows]`.
        """
        ...

    def learn(self, state: State, batch: Batch) -> tuple[State, LearnReport]:
        """One pass over the rows in order; `state` stays as it was."""
        ...

    def hyperparameters(self) -> dict[str, Any]:
        """Plain JSON values for the manifest: all that decides what `learn` does, beside the code."""
        ...
