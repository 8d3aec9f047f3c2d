"""`Sgd`: any `torch.nn.Module` and optimiser, learned one pass over the stream in small sub-steps.

Sub-steps of 32 rows matter: one optimiser step a micro-batch learns far less from the same rows. What it can do
beside that is off unless it is asked for, each part in a module of its own. See `docs/learners.md`.
"""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from stream_trainer.features import FeatureSpec
from stream_trainer.learner import Batch, LearnReport, State
from stream_trainer.learners.pace import hastened
from stream_trainer.learners.sgd.member import has_rates
from stream_trainer.learners.sgd.model import Model
from stream_trainer.learners.sgd.nets import Loss, NetBuilder, OptimizerBuilder, adamw, mlp
from stream_trainer.learners.sgd.replay import Replay
from stream_trainer.learners.sgd.training import Recipe, learned
from stream_trainer.learners.tabular.drift import Drift
from stream_trainer.learners.tabular.mixer import Mixer


class Sgd:
    """A learner over any module: build it with `model(spec)`, train it with `optimizer(parameters)`.

    Args:
        model: from a `FeatureSpec` to a module whose `forward` maps float32 `[rows, spec.width]` to logits
            `[rows, spec.outputs]`.
        optimizer: from parameters to a torch optimiser.
        loss: mean loss of logits and labels; None takes the label's usual one.
        rows_per_step: new rows of one optimiser step.
        clip_norm: the gradient's global norm is clipped here.
        passes: how often a micro-batch is learned.
        replay: the newest rows, kept to be learned again beside new ones; None for none.
        rates: learning rates: a net for each, mixed by their recent loss; () for one net at the optimiser's rate.
        mixer: how the nets of several rates are mixed.
        drift: what is done when the forecasts become much worse; None for nothing.

    Raises:
        ValueError: `passes` or `rows_per_step` is below 1, or one of `rates` is not above 0.
    """

    def __init__(
        self,
        model: NetBuilder = mlp,
        optimizer: OptimizerBuilder = adamw,
        *,
        loss: Loss | None = None,
        rows_per_step: int = 32,
        clip_norm: float = 5.0,
        passes: int = 1,
        replay: Replay | None = None,
        rates: tuple[float, ...] = (),
        mixer: Mixer = Mixer(),
        drift: Drift | None = None,
    ) -> None:
        if passes < 1 or rows_per_step < 1:
            raise ValueError(f"passes is {passes} and rows_per_step {rows_per_step}: both must be at least 1")
        if not all(rate > 0.0 for rate in rates):
            raise ValueError(f"rates are {rates}: each must be above 0")
        self.model = Model(model, tuple(rates), mixer)
        self.recipe = Recipe(
            model=self.model,
            optimizer=optimizer,
            loss=loss,
            rows_per_step=rows_per_step,
            clip_norm=clip_norm,
            passes=passes,
            replay=replay,
            drift=drift,
        )

    def init(self, spec: FeatureSpec, seed: int) -> State:
        """Fresh nets and standardiser; the seed also starts the RNG that later steps draw from."""
        serving, rng = self.model.fresh(spec, seed)
        return State(spec=spec, serving=serving, training={"rng": rng})

    def predict(self, state: State, features: Tensor) -> Tensor:
        """See `Learner.predict`."""
        return self.model.outputs(state, features)

    def learn(self, state: State, batch: Batch) -> tuple[State, LearnReport]:
        """See `Learner.learn`."""
        return learned(self.recipe, state, batch)

    def hastened(self, state: State, factor: float, rows: int) -> State:
        """See `Hastener.hastened`: to the end of the sub-step in which the rows run out."""
        if not has_rates(self._probe()):
            raise ValueError(f"{type(self._probe()).__name__} has no learning rate that could be raised")
        return hastened(state, factor, rows)

    def hyperparameters(self) -> dict[str, Any]:
        """See `Learner.hyperparameters`. An option that is off is not named."""
        recipe = self.recipe
        probe = self._probe()
        groups = [{k: v for k, v in g.items() if k != "params"} for g in probe.param_groups]
        found = {
            "learner": "sgd",
            "optimizer": type(probe).__name__,
            "param_groups": [{k: v if _is_plain(v) else repr(v) for k, v in g.items()} for g in groups],
            "rows_per_step": recipe.rows_per_step,
            "clip_norm": recipe.clip_norm,
        }
        if recipe.passes > 1:
            found["passes"] = recipe.passes
        if recipe.replay:
            found["replay"] = asdict(recipe.replay)
        if self.model.rates:
            found |= {"rates": list(self.model.rates), "mixer": asdict(self.model.mixer)}
        if recipe.drift:
            found["drift"] = asdict(recipe.drift)
        return found

    def _probe(self) -> torch.optim.Optimizer:
        return self.recipe.optimizer([nn.Parameter(torch.zeros(1))])


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)
