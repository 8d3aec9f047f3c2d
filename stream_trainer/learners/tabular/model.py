"""What the parts of `Tabular` forecast together: tensors in, features in, forecasts out. Nothing here learns."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Generator, Tensor

from stream_trainer.features import FeatureSpec, Standardiser
from stream_trainer.learner import State
from stream_trainer.learners.tabular.drift import Drift
from stream_trainer.learners.tabular.heads import Head, head_of
from stream_trainer.learners.tabular.linear import Linear
from stream_trainer.learners.tabular.memory import LabelMemory
from stream_trainer.learners.tabular.mixer import Mixer
from stream_trainer.learners.tabular.naming import joined, split
from stream_trainer.learners.tabular.neighbours import Neighbours
from stream_trainer.learners.tabular.nets import Nets, fresh_moments
from stream_trainer.learners.tabular.replay import Replay
from stream_trainer.learners.tabular.sureness import Sureness
from stream_trainer.prequential import uniform

Parts = dict[str, dict[str, Tensor]]
SURENESS = "sureness"
_POWER = f"{SURENESS}.power"
_KEPT = ("recent.rows", "recent.codes", "recent.weights")


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A block as the experts saw it.

    Attributes:
        features: a copy of what was given.
        inputs: float32 `[rows, memory + width + 1]`: label memory, scaled columns, 1.
        forecasts: `[experts, rows, size]`.
        mixture: the forecasts as one, `[rows, size]`.
        known: the same by the state from before the whole micro-batch.
    """

    features: Tensor
    inputs: Tensor
    forecasts: Tensor
    mixture: Tensor
    known: Tensor

    def is_of(self, features: Tensor) -> bool:
        """Whether these are the features, bit for bit: NaN equals itself."""
        same = self.features.shape == features.shape
        return same and torch.equal(self.features.view(torch.int64), features.contiguous().view(torch.int64))


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The parts that forecast; see `Tabular`.

    Raises:
        ValueError: there is no expert.
    """

    nets: Nets | None
    linear: Linear | None
    neighbours: Neighbours | None
    memory: LabelMemory
    replay: Replay
    mixer: Mixer
    sureness: Sureness
    window: int
    clip: float

    def __post_init__(self) -> None:
        if not self.experts:
            raise ValueError("Tabular has no expert: keep one of nets, linear and neighbours")

    @property
    def experts(self) -> int:
        """How many forecasts are mixed."""
        nets = self.nets.experts if self.nets else 0
        return nets + (len(self.linear.rates) if self.linear else 0) + (self.neighbours is not None)

    def head(self, spec: FeatureSpec) -> Head:
        """The head of the spec's task."""
        return head_of(spec, self.window)

    def fresh(self, spec: FeatureSpec, generator: Generator) -> dict[str, Tensor]:
        """The serving tensors before the first row."""
        head = self.head(spec)
        size, memory = head.size, self.memory.width(head.size)
        parts: Parts = {
            "standardiser": Standardiser.fresh(spec.width).tensors(),
            "label": head.fresh(),
            "memory": self.memory.fresh(size),
            "recent": self.replay.fresh(spec.width, memory, size),
            "mixer": self.mixer.fresh(self.experts, size),
            "stream": {"rows": torch.zeros((), dtype=torch.int64)},
        }
        if self.nets:
            parts["nets"] = self.nets.fresh(memory + spec.width + 1, memory, size, generator)
        if self.linear:
            parts["linear"] = self.linear.fresh(spec.width + 1, size)
        del parts["recent"]["memory"]
        return joined(parts)

    def fresh_training(self, spec: FeatureSpec, drift: Drift | None) -> dict[str, Tensor]:
        """The training tensors before the first row, the generator's excepted."""
        size = self.head(spec).size
        memory = self.memory.width(size)
        parts: Parts = {
            "recent": {"memory": self.replay.fresh(spec.width, memory, size)["memory"]},
            "mixer": self.mixer.fresh_moments(self.experts),
            "drift": drift.fresh() if drift else {},
        }
        if self.nets:
            width = memory + spec.width + 1
            parts["nets"] = fresh_moments(self.nets.fresh(width, memory, size, Generator()))
        return joined(parts)

    def seen(self, state: State, features: Tensor, *, ordered: bool) -> Seen:
        """A block as the experts see it, in log order or each row for itself."""
        self._check(state)
        return self.seen_at(state, features, self.ages(split(state.serving), len(features), ordered=ordered))

    def seen_at(self, state: State, features: Tensor, ages: Tensor) -> Seen:
        """Rows as the experts see them, so many rows after the last known label: `ages [rows]`."""
        parts = split(state.serving)
        inputs = self.inputs(state.spec, parts, features, ages)
        forecasts = self.forecasts(state.spec, parts, inputs)
        mixture = self.mixer.mixed(parts["mixer"], forecasts, classes=self.is_of_classes(state.spec))
        return Seen(features.clone(), inputs, forecasts, mixture, mixture)

    def is_of_classes(self, spec: FeatureSpec) -> bool:
        """Whether forecasts are log probabilities."""
        return spec.task != "regression"

    def inputs(self, spec: FeatureSpec, parts: Parts, features: Tensor, ages: Tensor) -> Tensor:
        """What the experts are given for float64 features `[rows, width]`; see `Seen`."""
        scaler = Standardiser.from_tensors(parts["standardiser"], self.window)
        scaled = scaler.scale(features, spec.scaled, clip=self.clip)
        return torch.cat([self.memory.features(parts["memory"], ages), scaled, torch.ones(len(features), 1)], 1)

    def forecasts(self, spec: FeatureSpec, parts: Parts, inputs: Tensor) -> Tensor:
        """Each expert's forecasts, `[experts, rows, size]`."""
        head = self.head(spec)
        own = inputs[:, self.memory.width(head.size) :]
        found: list[Tensor] = []
        if self.nets:
            found.append(head.forecast(self.nets.outputs(parts["nets"], inputs)))
        if self.linear:
            found.append(head.forecast(self.linear.outputs(parts["linear"]["weights"], own)))
        if self.neighbours:
            recent = parts["recent"]
            kept = (recent["rows"], recent["codes"], recent["weights"])
            near = self.neighbours.forecast(*kept, own[:, :-1], classes=self.is_of_classes(spec))
            found.append(near[None])
        return torch.cat(found)

    def outputs(self, state: State, mixture: Tensor, *, ordered: bool) -> Tensor:
        """A mixture as a learner's outputs; uniform before the first row was learned."""
        parts = split(state.serving)
        if not int(parts["stream"]["rows"]):
            return uniform(state.spec.task, state.spec.outputs, len(mixture))
        if self.is_of_classes(state.spec):
            ages = self.ages(parts, len(mixture), ordered=ordered)
            mixture = self.sureness.applied(parts.get(SURENESS, {}), mixture, ages)
        return self.head(state.spec).outputs(parts.get("label", {}), mixture)

    def ages(self, parts: Parts, rows: int, *, ordered: bool) -> Tensor:
        """How many rows after the last known label they come, `[rows]`: in log order, or each by itself."""
        return self.memory.ordered(rows) if ordered else self.memory.usual(parts["memory"], rows)

    def _check(self, state: State) -> None:
        expected = _kinds(self, state.spec)
        found = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in state.serving.items()}
        if found.get(_POWER) == (torch.float32, ()):
            del found[_POWER]
        for name in _KEPT:
            if name in found and state.serving[name].dim() == len(expected[name][1]):
                dtype, shape = found[name]
                found[name] = dtype, (0, *shape[1:])
        if found != expected or len({len(state.serving[name]) for name in _KEPT}) != 1:
            wrong = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
            raise ValueError(
                f"the stored tensors do not fit the pipeline's learner: {wrong or 'recent rows'}; was the learner changed?"
            )


@lru_cache(maxsize=64)
def _kinds(model: Model, spec: FeatureSpec) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    fresh = model.fresh(spec, Generator())
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in fresh.items()}
