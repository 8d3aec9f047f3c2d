"""What the trainer asks of anything that learns: pure functions over a state of named tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

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
    `answered`: the learner has taken the rows for a change, and answered it. `new_concept`: it has shown, too, that it is none
    of names or noise; see decision 9.
    """

    rows: int
    steps: int
    loss: float
    gradient_norm: float
    update_norm: float
    finite: bool
    answered: bool = False
    new_concept: bool = False


class Learner(Protocol):
    """Deterministic: the same state and batch give the same bits, whatever was called before.

    A learner whose forecast depends on a row's place in the log is an `Answerer` too.
    """

    def init(self, spec: FeatureSpec, seed: int) -> State:
        """The state before anything was learned; every random number comes from `seed`."""
        ...

    def predict(self, state: State, features: Tensor) -> Tensor:
        """Outputs float32 for features float64 `[rows, width]`; safe to call from several threads.

        The rows come in log order and directly follow what was learned; for rows without an order see `answer`.
        Binary: the probability of true, `[rows]`. Classes: probabilities, `[rows, classes]`. Number: `[rows]`.
        """
        ...

    def learn(self, state: State, batch: Batch) -> tuple[State, LearnReport]:
        """One pass over the rows in order; `state` stays as it was."""
        ...

    def hyperparameters(self) -> dict[str, Any]:
        """Plain JSON values for the manifest: all that decides what `learn` does, beside the code."""
        ...


class Answerer(Protocol):
    """What a learner may offer beside `Learner`: requests come in any order, and share a call with others' requests."""

    def answer(self, state: State, features: Tensor) -> Tensor:
        """As `Learner.predict`, but each row is answered as if it were the only one."""
        ...


class Hastener(Protocol):
    """What a learner may offer beside `Learner`: longer steps for a while, as an alert or a person may ask."""

    def hastened(self, state: State, factor: float, rows: int) -> State:
        """The state whose next `rows` rows are learned in steps `factor` times as long; it says so in its training tensors.

        Raises:
            ValueError: it has no steps that could be longer.
        """
        ...


def hastened(learner: Learner, state: State, factor: float, rows: int) -> State:
    """See `Hastener`.

    Raises:
        ValueError: the learner does not offer it.
    """
    if hasattr(learner, "hastened"):
        return cast("Hastener", learner).hastened(state, factor, rows)
    raise ValueError(f"the learner {type(learner).__name__} has no learning rate that could be raised")


def answer(learner: Learner, state: State, features: Tensor) -> Tensor:
    """Outputs for rows without an order: no answer depends on the other rows of the call, nor on its place among them."""
    if hasattr(learner, "answer"):  # `isinstance` of a protocol costs more than a small net
        return cast("Answerer", learner).answer(state, features)
    return learner.predict(state, features)
