"""`Tabular`: the default learner for tables, several experts mixed by how they have done lately. One configuration for all.

It is made of parts, each in a module of its own; a part is options and pure functions over named tensors, and None
switches it off. `training.py` says what happens to a micro-batch. See `docs/learners.md`.
"""

from dataclasses import asdict
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from stream_trainer.features import FeatureSpec
from stream_trainer.learner import Batch, LearnReport, State
from stream_trainer.learners.counting import counting
from stream_trainer.learners.pace import hastened
from stream_trainer.learners.tabular.drift import Drift
from stream_trainer.learners.tabular.linear import Linear
from stream_trainer.learners.tabular.memory import LabelMemory
from stream_trainer.learners.tabular.mixer import Mixer
from stream_trainer.learners.tabular.model import Model, Seen
from stream_trainer.learners.tabular.neighbours import Neighbours
from stream_trainer.learners.tabular.nets import Nets
from stream_trainer.learners.tabular.passes import Passes
from stream_trainer.learners.tabular.pieces import learned_in_pieces
from stream_trainer.learners.tabular.replay import Replay
from stream_trainer.learners.tabular.sureness import Sureness
from stream_trainer.learners.tabular.training import Recipe

_SEEDS = 2**63


class Tabular:
    """An ensemble for tables: nets at several learning rates, linear experts and neighbours, mixed by recent loss.

    Args:
        nets: the nets; None for none.
        linear: the linear experts; None for none.
        neighbours: the nearest neighbours; None for none.
        memory: the newest labels as features; None for none.
        replay: the newest rows, kept for neighbours and to be learned again.
        mixer: how the experts are mixed.
        sureness: how sure forecasts are of rows far ahead.
        drift: what is done when the forecasts become much worse; None for nothing.
        passes: sub-steps, and how often a block is learned.
        window: so many rows count for the scale of features and labels.
        clip: features are at most so many standard deviations off.

    Raises:
        ValueError: no expert is left.
    """

    def __init__(
        self,
        *,
        nets: Nets | None = Nets(),
        linear: Linear | None = Linear(),
        neighbours: Neighbours | None = Neighbours(),
        memory: LabelMemory | None = LabelMemory(),
        replay: Replay = Replay(),
        mixer: Mixer = Mixer(),
        sureness: Sureness = Sureness(),
        drift: Drift | None = Drift(),
        passes: Passes = Passes(),
        window: int = 5_000,
        clip: float = 4.0,
    ) -> None:
        self.model = Model(
            nets=nets,
            linear=linear,
            neighbours=neighbours,
            memory=memory or LabelMemory(fades=(), half_lives=()),
            replay=replay,
            mixer=mixer,
            sureness=sureness,
            window=window,
            clip=clip,
        )
        self.recipe = Recipe(model=self.model, drift=drift, passes=passes)
        self._last: WeakKeyDictionary[State, Seen] = WeakKeyDictionary()

    def init(self, spec: FeatureSpec, seed: int) -> State:
        """See `Learner.init`."""
        generator = torch.Generator().manual_seed(seed % _SEEDS)
        serving = self.model.fresh(spec, generator)
        training = self.model.fresh_training(spec, self.recipe.drift)
        return State(spec=spec, serving=serving, training=training | {"rng": generator.get_state()})

    def predict(self, state: State, features: Tensor) -> Tensor:
        """See `Learner.predict`: rows in log order that directly follow what was learned."""
        with torch.no_grad():
            return self.model.outputs(state, self._forecast(state, features).mixture, ordered=True)

    def answer(self, state: State, features: Tensor) -> Tensor:
        """See `learner.answer`: each row as if it were the only one, half a usual block after what was learned."""
        with torch.no_grad():
            return self.model.outputs(state, self.model.seen(state, features, ordered=False).mixture, ordered=False)

    def learn(self, state: State, batch: Batch) -> tuple[State, LearnReport]:
        """See `Learner.learn`."""
        with torch.no_grad():
            batch = counting(batch)
            seen = self._forecast(state, batch.features)
            return learned_in_pieces(self.recipe, state, batch, seen)

    def hastened(self, state: State, factor: float, rows: int) -> State:
        """See `Hastener.hastened`: nets and linear experts, to the end of the piece in which the rows run out."""
        if not (self.model.nets or self.model.linear):
            raise ValueError("this Tabular has neither nets nor linear experts: nothing in it learns at a rate")
        return hastened(state, factor, rows)

    def hyperparameters(self) -> dict[str, Any]:
        """See `Learner.hyperparameters`."""
        model = self.model
        parts = {
            "nets": model.nets,
            "linear": model.linear,
            "neighbours": model.neighbours,
            "memory": model.memory,
            "replay": model.replay,
            "mixer": model.mixer,
            "sureness": model.sureness,
            "drift": self.recipe.drift,
            "passes": self.recipe.passes,
        }
        plain = {name: None if part is None else _plain(asdict(part)) for name, part in parts.items()}
        return {"learner": "tabular", "window": model.window, "clip": model.clip, **plain}

    def _forecast(self, state: State, features: Tensor) -> Seen:
        """What `predict` has just computed is what `learn` needs first: the newest block of a state is kept beside it.

        It is taken only if it is that of the very same features, so that it changes the time taken and no bit.
        """
        kept = self._last.get(state)
        if kept is not None and kept.is_of(features):
            return kept
        seen = self.model.seen(state, features, ordered=True)
        self._last[state] = seen
        return seen


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
