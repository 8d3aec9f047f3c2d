"""What the members of `Sgd` forecast together: tensors in, features in, forecasts out. Nothing here learns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from stream_trainer.features import FeatureSpec, Scaling, Standardiser
from stream_trainer.learner import State
from stream_trainer.learners.mould import Mould, unique_tensors
from stream_trainer.learners.sgd.nets import NetBuilder
from stream_trainer.learners.sgd.randomness import seeded
from stream_trainer.learners.tabular.heads import Head, head_of
from stream_trainer.learners.tabular.mixer import Mixer
from stream_trainer.learners.tabular.naming import joined, split

Parts = dict[str, dict[str, Tensor]]
_Kinds = dict[str, tuple[torch.Size, torch.dtype]]
# So many labels count for the mean and spread of a numeric label.
_LABELS = 5_000


@dataclass(frozen=True, slots=True)
class Loaded:
    """A state, ready to forecast: the nets are not to be changed."""

    nets: list[nn.Module]
    scaling: Scaling
    parts: Parts


class Model:
    """The nets of one builder: one, or one for each of `rates`, mixed.

    Parts of a state's serving tensors: `net`, or `net0`, `net1`, … and `mixer` and, for numeric labels, `label`; and
    `standardiser`.
    """

    def __init__(self, build: NetBuilder, rates: tuple[float, ...], mixer: Mixer) -> None:
        self.build = build
        self.rates = rates
        self.mixer = mixer
        self._moulds: dict[FeatureSpec, tuple[Mould, _Kinds]] = {}
        self._loaded: WeakKeyDictionary[State, Loaded] = WeakKeyDictionary()

    @property
    def places(self) -> tuple[str, ...]:
        """What tells the members' parts apart: nothing, or their numbers."""
        return tuple(map(str, range(len(self.rates)))) or ("",)

    def head(self, spec: FeatureSpec) -> Head:
        """The head of the spec's task."""
        return head_of(spec, _LABELS)

    def fresh(self, spec: FeatureSpec, seed: int) -> tuple[dict[str, Tensor], Tensor]:
        """The serving tensors before the first row, and where the generator then is."""
        with seeded(seed):
            nets = [self.build(spec) for _ in self.places]
            rng = torch.get_rng_state()
        return joined(self._serving(spec, nets)), rng

    def loaded(self, state: State) -> Loaded:
        """Kept for as long as the state is."""
        found = self._loaded.get(state)
        if found is None:
            parts = split(state.serving)
            scaling = Standardiser.from_tensors(parts["standardiser"]).scaling(state.spec.scaled)
            nets = [net.eval() for net in self.nets(state)]
            found = self._loaded[state] = Loaded(nets, scaling, parts)
        return found

    def nets(self, state: State) -> list[nn.Module]:
        """The state's nets, each call's its own.

        Raises:
            ValueError: the state is another model's.
        """
        mould, expected = self._mould(state.spec)
        if _kinds(state.serving) != expected:
            raise ValueError(
                "the stored tensors do not fit the pipeline's model: "
                f"{sorted(expected.keys() ^ state.serving.keys()) or 'shapes differ, or types do'}; was the model changed?"
            )
        serving = state.serving
        return [mould.net({name: serving[f"net{at}.{name}"] for name in mould.tensors}) for at in self.places]

    def outputs(self, state: State, features: Tensor) -> Tensor:
        """See `Learner.predict`."""
        loaded = self.loaded(state)
        with torch.inference_mode():
            rows = loaded.scaling(features)
            if self.rates:
                head, known = self.head(state.spec), loaded.parts.get("label", {})
                forecasts = self.forecasts(state.spec, known, [net(rows) for net in loaded.nets])
                return head.outputs(known, self.mixture(state.spec, loaded.parts, forecasts))
            logits: Tensor = loaded.nets[0](rows)
            match state.spec.task:
                case "binary":
                    return torch.sigmoid(logits[:, 0])
                case "multiclass":
                    return torch.softmax(logits, dim=1)
                case "regression":
                    return logits[:, 0]

    def forecasts(self, spec: FeatureSpec, known: Mapping[str, Tensor], logits: Sequence[Tensor]) -> Tensor:
        """Each member's logits `[rows, outputs]` as forecasts of the head's, `[members, rows, size]`."""
        head = self.head(spec)
        match spec.task:
            case "binary":
                return head.forecast(torch.stack([torch.cat([torch.zeros_like(one), one], 1) for one in logits]))
            case "multiclass":
                return head.forecast(torch.stack(list(logits)))
            case "regression":
                return torch.stack([head.code(known, one[:, 0].double()) for one in logits])

    def mixture(self, spec: FeatureSpec, parts: Parts, forecasts: Tensor) -> Tensor:
        """The forecasts as one, `[rows, size]`."""
        if not self.rates:
            return forecasts[0]
        return self.mixer.mixed(parts["mixer"], forecasts, classes=spec.task != "regression")

    def _serving(self, spec: FeatureSpec, nets: Sequence[nn.Module]) -> Parts:
        parts: Parts = {
            f"net{at}": {name: t.detach().clone().contiguous() for name, t in unique_tensors(net)}
            for at, net in zip(self.places, nets, strict=True)
        }
        parts["standardiser"] = Standardiser.fresh(spec.width).tensors()
        if self.rates:
            head = self.head(spec)
            parts |= {"label": head.fresh(), "mixer": self.mixer.fresh(len(nets), head.size)}
        return parts

    def _mould(self, spec: FeatureSpec) -> tuple[Mould, _Kinds]:
        """What nets are made with, and the tensors that a state must have."""
        found = self._moulds.get(spec)
        if found is None:
            with seeded():
                net = self.build(spec)
            kinds = _kinds(joined(self._serving(spec, [net] * len(self.places))))
            found = self._moulds.setdefault(spec, (Mould(net), kinds))
        return found


def _kinds(tensors: Mapping[str, Tensor]) -> _Kinds:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
