"""Any `torch.nn.Module` and optimiser, learned one pass over the stream in small sub-steps.

Sub-steps of 32 rows matter: one optimiser step a micro-batch learns far less from the same rows. Finiteness is
checked before the step, because NaN passes `clip_grad_norm_`.
"""

import itertools
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional

from stream_trainer.contract import Task
from stream_trainer.features import FeatureSpec, Standardiser
from stream_trainer.learner import Batch, LearnReport, State
from stream_trainer.learners.mould import Mould, unique_tensors

NetBuilder = Callable[[FeatureSpec], nn.Module]
OptimizerBuilder = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
Loss = Callable[[Tensor, Tensor], Tensor]
_Kinds = dict[str, tuple[torch.Size, torch.dtype]]

_NET, _SCALE, _OPTIMIZER = "net.", "standardiser.", "optimizer."
# Modules draw from torch's one global generator: two learners in one process take turns, or neither would repeat.
_GENERATOR = threading.Lock()


def mlp(spec: FeatureSpec, hidden: tuple[int, ...] = (64, 32)) -> nn.Module:
    """A plain ReLU net with a linear skip: `[rows, spec.width]` to logits `[rows, spec.outputs]`."""
    return _SkipMlp(spec.width, hidden, spec.outputs)


class _SkipMlp(nn.Module):
    def __init__(self, width: int, hidden: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        sizes = (width, *hidden)
        layers: list[nn.Module] = []
        for size, following in itertools.pairwise(sizes):
            layers += [nn.Linear(size, following), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Linear(sizes[-1], outputs))
        self.skip = nn.Linear(width, outputs, bias=False)
        nn.init.zeros_(self.skip.weight)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.body(features) + self.skip(features)
        return logits


def adamw(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The default optimiser."""
    return torch.optim.AdamW(parameters, lr=2e-3, weight_decay=1e-3, fused=True)


def default_loss(task: Task) -> Loss:
    """Mean loss of logits `[rows, outputs]` against labels `[rows]`: log loss, or squared error for numbers."""
    match task:
        case "binary":
            return lambda logits, labels: functional.binary_cross_entropy_with_logits(logits[:, 0], labels)
        case "multiclass":
            return lambda logits, labels: functional.cross_entropy(logits, labels.long())
        case "regression":
            return lambda logits, labels: functional.mse_loss(logits[:, 0], labels)


class Sgd:
    """A learner over any module: build it with `model(spec)`, train it with `optimizer(parameters)`.

    Args:
        model: from a `FeatureSpec` to a module whose `forward` maps float32 `[rows, spec.width]` to logits
            `[rows, spec.outputs]`.
        optimizer: from parameters to a torch optimiser.
        loss: mean loss of logits and labels; None takes the label's usual one.
        rows_per_step: rows of one optimiser step.
        clip_norm: the gradient's global norm is clipped here.
    """

    def __init__(
        self,
        model: NetBuilder = mlp,
        optimizer: OptimizerBuilder = adamw,
        *,
        loss: Loss | None = None,
        rows_per_step: int = 32,
        clip_norm: float = 5.0,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.loss = loss
        self.rows_per_step = rows_per_step
        self.clip_norm = clip_norm
        self._moulds: dict[FeatureSpec, tuple[Mould, _Kinds]] = {}
        self._loaded: WeakKeyDictionary[State, nn.Module] = WeakKeyDictionary()

    def init(self, spec: FeatureSpec, seed: int) -> State:
        """A fresh net and standardiser; the seed also starts the RNG that later steps draw from."""
        with _GENERATOR, torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = self.model(spec)
            rng = torch.get_rng_state()
        scaler = Standardiser.fresh(spec.width)
        return State(spec=spec, serving=_serving(net, scaler), training={"rng": rng})

    def predict(self, state: State, features: Tensor) -> Tensor:
        """See `Learner.predict`."""
        net = self._loaded.get(state)
        if net is None:
            net = self._net(state).eval()
            self._loaded[state] = net
        with torch.inference_mode():
            scaled = _standardiser(state).scale(features, state.spec.scaled)
            logits: Tensor = net(scaled)
            match state.spec.task:
                case "binary":
                    return torch.sigmoid(logits[:, 0])
                case "multiclass":
                    return torch.softmax(logits, dim=1)
                case "regression":
                    return logits[:, 0]

    def learn(self, state: State, batch: Batch) -> tuple[State, LearnReport]:
        """See `Learner.learn`."""
        scaler = _standardiser(state).update(batch.features)
        net = self._net(state).train()
        parameters = [p for p in net.parameters() if p.requires_grad]
        optimizer = self.optimizer(parameters)
        _load_optimizer(optimizer, state.training)
        rows = scaler.scale(batch.features, state.spec.scaled)
        labels = batch.labels.to(torch.float32)
        with _rng(state.training["rng"]) as rng:
            report = self._steps(net, optimizer, rows, labels, state.spec.task, batch.weights)
        training = {"rng": rng[0], **_optimizer_tensors(optimizer)}
        return State(spec=state.spec, serving=_serving(net, scaler), training=training), report

    def hyperparameters(self) -> dict[str, Any]:
        """See `Learner.hyperparameters`."""
        probe = self.optimizer([nn.Parameter(torch.zeros(1))])
        groups = [{k: v for k, v in g.items() if k != "params"} for g in probe.param_groups]
        return {
            "learner": "sgd",
            "optimizer": type(probe).__name__,
            "param_groups": [{k: v if _is_plain(v) else repr(v) for k, v in g.items()} for g in groups],
            "rows_per_step": self.rows_per_step,
            "clip_norm": self.clip_norm,
        }

    def _steps(
        self,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        rows: Tensor,
        labels: Tensor,
        task: Task,
        weights: Tensor | None,
    ) -> LearnReport:
        loss_of = self.loss or default_loss(task)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        before = [parameter.detach().clone() for parameter in parameters]
        total, largest, steps = 0.0, 0.0, 0
        for start in range(0, len(rows), self.rows_per_step):
            piece = slice(start, start + self.rows_per_step)
            optimizer.zero_grad(set_to_none=True)
            logits = net(rows[piece])
            if weights is None:
                loss = loss_of(logits, labels[piece])
            else:
                loss = _weighted(loss_of, logits, labels[piece], weights[piece].to(torch.float32))
            loss.backward()  # type: ignore[no-untyped-call]
            norm = float(nn.utils.clip_grad_norm_(parameters, self.clip_norm))
            value = float(loss.detach())
            if not (_finite(value) and _finite(norm)):
                return LearnReport(
                    rows=start, steps=steps, loss=value, gradient_norm=norm, update_norm=0.0, finite=False
                )
            optimizer.step()
            total += value * len(rows[piece])
            largest = max(largest, norm)
            steps += 1
        mean = total / len(rows) if len(rows) else 0.0
        moved = _distance(before, parameters)
        return LearnReport(
            rows=len(rows), steps=steps, loss=mean, gradient_norm=largest, update_norm=moved, finite=True
        )

    def _net(self, state: State) -> nn.Module:
        mould, expected = self._mould(state.spec)
        if _kinds(state.serving) != expected:
            raise ValueError(
                "the stored tensors do not fit the pipeline's model: "
                f"{sorted(expected.keys() ^ state.serving.keys()) or 'shapes differ, or types do'}; was the model changed?"
            )
        return mould.net({name: state.serving[f"{_NET}{name}"] for name in mould.tensors})

    def _mould(self, spec: FeatureSpec) -> tuple[Mould, _Kinds]:
        """What nets are made with, and the tensors that a state must have."""
        found = self._moulds.get(spec)
        if found is None:
            with _GENERATOR, torch.random.fork_rng(devices=[]):
                net = self.model(spec)
            kinds = _kinds(_serving(net, Standardiser.fresh(spec.width)))
            found = self._moulds.setdefault(spec, (Mould(net), kinds))
        return found


def _weighted(loss_of: Loss, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """The sum of weighted losses over the number of rows; each row's loss is what `loss_of` says of it alone."""
    losses = [loss_of(logits[i : i + 1], labels[i : i + 1]) for i in range(len(labels))]
    return (torch.stack(losses) * weights).mean()


def _distance(before: list[Tensor], after: list[nn.Parameter]) -> float:
    squares = [float((new.detach() - old).double().square().sum()) for old, new in zip(before, after, strict=True)]
    return math.sqrt(math.fsum(squares))


def _finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")  # noqa: PLR0124 - NaN is the one value unequal to itself


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _kinds(tensors: Mapping[str, Tensor]) -> _Kinds:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def _serving(net: nn.Module, scaler: Standardiser) -> Mapping[str, Tensor]:
    tensors = {f"{_NET}{name}": t.detach().clone().contiguous() for name, t in unique_tensors(net)}
    return tensors | {
        f"{_SCALE}count": scaler.count,
        f"{_SCALE}mean": scaler.mean,
        f"{_SCALE}m2": scaler.m2,
    }


def _standardiser(state: State) -> Standardiser:
    count, mean, m2 = (state.serving[f"{_SCALE}{part}"] for part in ("count", "mean", "m2"))
    return Standardiser(count, mean, m2)


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for index, slots in optimizer.state_dict()["state"].items():
        for name, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"{_OPTIMIZER}{index}.{name}"] = value.detach().clone().contiguous()
            elif value is not None:
                tensors[f"{_OPTIMIZER}{index}.{name}:number"] = torch.tensor(value, dtype=torch.float64)
    return tensors


def _load_optimizer(optimizer: torch.optim.Optimizer, training: Mapping[str, Tensor]) -> None:
    slots: dict[int, dict[str, Any]] = {}
    for key, tensor in training.items():
        if key.startswith(_OPTIMIZER):
            index, name = key.removeprefix(_OPTIMIZER).split(".", 1)
            plain = name.removesuffix(":number")
            slots.setdefault(int(index), {})[plain] = tensor.item() if plain != name else tensor.clone()
    if slots:
        optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})


@contextmanager
def _rng(state: Tensor) -> Iterator[list[Tensor]]:
    """Run under a given CPU RNG state; the list holds the state that it ended in."""
    after: list[Tensor] = []
    with _GENERATOR, torch.random.fork_rng(devices=[]):
        torch.set_rng_state(state)
        yield after
        after.append(torch.get_rng_state())
